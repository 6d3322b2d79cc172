-- Viewers a minute: playbacks that played at some time of it
SELECT from_unixtime(minute * 60) AS minute, count(DISTINCT session) AS viewers
FROM intervals
CROSS JOIN UNNEST(sequence(CAST(floor(begins / 60000) AS BIGINT), CAST(floor(ends / 60000) AS BIGINT))) AS minutes(minute)
WHERE state = 'playing' GROUP BY 1 ORDER BY 1;
