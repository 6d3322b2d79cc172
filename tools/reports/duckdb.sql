-- What the reports are written in is Athena's; here DuckDB gets what it calls otherwise.
CREATE MACRO json_extract_scalar(json, path) AS
    CASE WHEN json_type(json, path) NOT IN ('OBJECT', 'ARRAY') THEN json_extract_string(json, path) END;
CREATE MACRO to_unixtime(moment) AS epoch(moment);
CREATE MACRO from_unixtime(seconds) AS make_timestamp(CAST(seconds * 1000000 AS BIGINT));
CREATE MACRO approx_percentile(value, share) AS quantile_cont(value, share);
CREATE MACRO sequence(first, last) AS generate_series(first, last);
-- DuckDB's own replaces the first occurrence alone.
CREATE MACRO regexp_replace(text, pattern, replacement) AS array_to_string(string_split_regex(text, pattern), replacement);

-- A time as ingest writes it; NULL for anything else that a producer may have put there.
CREATE MACRO receipt(text) AS
    CASE WHEN regexp_full_match(text, '\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z') THEN TRY_CAST(rtrim(text, 'Z') AS TIMESTAMP) END;
CREATE MACRO is_text_or_null(json, path) AS coalesce(json_type(json, path), 'NULL') IN ('NULL', 'VARCHAR');
-- An envelope is what compact-partition takes for one, or figures would change when an hour is Parquet.
CREATE MACRO is_envelope(line) AS
    json_type(line, '$.v') = 'UBIGINT' AND json_extract_string(line, '$.v') = '1'
    AND json_type(line, '$.id') = 'VARCHAR'
    AND json_type(line, '$.received_at') = 'VARCHAR' AND receipt(json_extract_string(line, '$.received_at')) IS NOT NULL
    AND json_exists(line, '$.event')
    AND is_text_or_null(line, '$.request_id')
    AND coalesce(json_type(line, '$.client'), 'OBJECT') = 'OBJECT'
    AND is_text_or_null(line, '$.client.user_agent') AND is_text_or_null(line, '$.client.ip')
    AND NOT is_repeated(line);
CREATE MACRO is_repeated(line) AS
    len(list_filter(json_keys(line), lambda name: name IN ('v', 'id', 'received_at', 'request_id', 'app', 'client', 'event')))
    > len(list_distinct(list_filter(json_keys(line), lambda name: name IN ('v', 'id', 'received_at', 'request_id', 'app', 'client', 'event'))));

-- Hours that are not in Parquet, by their lines. One that is no envelope is an event as a whole; one that is not JSON is NULL.
CREATE TABLE landed AS
SELECT
    CASE WHEN is_envelope(json) THEN json_extract_string(json, '$.id') END AS id,
    CASE WHEN is_envelope(json) THEN receipt(json_extract_string(json, '$.received_at')) END AS received_at,
    CASE WHEN is_envelope(json) THEN json_extract(json, '$.event') ELSE json(json) END AS event
FROM read_ndjson_objects('/dev/stdin', ignore_errors = true, maximum_object_size = 16777216);
