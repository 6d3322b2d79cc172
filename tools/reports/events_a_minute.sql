-- Events a minute by kind
SELECT
    date_trunc('minute', received_at) AS minute,
    -- A terminal must not do what a player says.
    regexp_replace(coalesce(json_extract_scalar(event, '$.type'), json_extract_scalar(event, '$.event'), json_extract_scalar(event, '$.e')),
        '\p{C}', '?') AS kind,
    count(*) AS events
FROM events_columnar GROUP BY 1, 2 ORDER BY 1, 2;
