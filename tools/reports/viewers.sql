-- Viewers a minute: playbacks that played at some time of it
SELECT from_unixtime(minute * 60) AS minute, count(DISTINCT session) AS viewers
FROM (SELECT session, begins, ends FROM intervals WHERE state = 'playing' AND ends IS NOT NULL) AS played
-- A sequence may have 10,000 entries in Athena; that of a day has 1,441.
CROSS JOIN UNNEST(sequence(CAST(floor(begins / 60000) AS BIGINT), CAST(floor(ends / 60000) AS BIGINT))) AS minutes(minute)
GROUP BY 1 ORDER BY 1;
