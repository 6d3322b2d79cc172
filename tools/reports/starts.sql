-- Plays, and how long the first picture took
SELECT
    count(*) AS plays,
    count(started_at) AS started,
    count(CASE WHEN started_at IS NULL AND failed_at IS NULL THEN 1 END) AS exits_before_start,
    count(CASE WHEN started_at IS NULL THEN failed_at END) AS start_failures,
    approx_percentile(started_at - asked_at, 0.5) AS median_start_ms,
    approx_percentile(started_at - asked_at, 0.95) AS p95_start_ms
FROM plays;
