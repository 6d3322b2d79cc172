-- Ad impressions a minute: our ad_impression, mux-embed's adimpression, CMCD's start of an ad
SELECT date_trunc('minute', received_at) AS minute, count(*) AS impressions
FROM events_columnar
WHERE coalesce(json_extract_scalar(event, '$.type'), json_extract_scalar(event, '$.event'), json_extract_scalar(event, '$.e')) = 'ad_impression'
    OR json_extract_scalar(event, '$.e') IN ('adimpression', 'as')
GROUP BY 1 ORDER BY 1;
