-- Seconds played and rebuffered, after the first picture
SELECT
    sum(CASE WHEN state = 'playing' THEN ends - begins END) / 1000 AS playing_s,
    coalesce(sum(CASE WHEN state = 'rebuffering' THEN ends - begins END), 0) / 1000 AS rebuffering_s,
    coalesce(sum(CASE WHEN state = 'rebuffering' THEN ends - begins END), 0) / nullif(sum(ends - begins), 0) AS rebuffering_ratio,
    -- CMCD says at each interval of a long one that it still goes on.
    count(CASE WHEN state = 'rebuffering' AND previous_state <> 'rebuffering' THEN 1 END) AS rebufferings
FROM intervals
WHERE state IN ('playing', 'rebuffering') AND place >= started_place;
