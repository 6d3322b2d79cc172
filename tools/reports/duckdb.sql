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
-- An envelope is what compact-partition takes for one, or figures would change when an hour is Parquet.
CREATE MACRO is_envelope(types, version, received_at, names) AS
    types[1] = 'UBIGINT' AND version = '1' AND types[2] = 'VARCHAR' AND types[3] = 'VARCHAR' AND receipt(received_at) IS NOT NULL AND types[4] IS NOT NULL
    AND coalesce(types[5], 'OBJECT') = 'OBJECT' AND len(list_filter(types[6:8], lambda type: type NOT IN ('NULL', 'VARCHAR'))) = 0
    -- None of its members comes twice.
    AND len(names) = len(list_distinct(names));

-- Hours that are not in Parquet, by their lines. One that is no envelope is an event as a whole; one that is not JSON is NULL.
CREATE TABLE landed AS
WITH lines AS (
    SELECT json AS line,
        json_type(json, ['$.v', '$.id', '$.received_at', '$.event', '$.client', '$.request_id', '$.client.user_agent', '$.client.ip']) AS types,
        json_extract_string(json, ['$.v', '$.id', '$.received_at']) AS texts,
        list_filter(json_keys(json), lambda name: name IN ('v', 'id', 'received_at', 'request_id', 'app', 'client', 'event')) AS names
    FROM read_ndjson_objects('/dev/stdin', ignore_errors = true, maximum_object_size = 16777216)
), checked AS (
    SELECT line, texts, is_envelope(types, texts[1], texts[3], names) AS has_envelope FROM lines
)
SELECT
    CASE WHEN has_envelope THEN texts[2] END AS id,
    CASE WHEN has_envelope THEN receipt(texts[3]) END AS received_at,
    CASE WHEN has_envelope THEN json_extract(line, '$.event') ELSE json(line) END AS event
FROM checked;
