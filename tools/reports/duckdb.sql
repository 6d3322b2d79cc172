-- What the reports are written in is Athena's; here DuckDB gets what it calls otherwise.
CREATE MACRO json_extract_scalar(json, path) AS
    CASE WHEN json_type(json, path) NOT IN ('OBJECT', 'ARRAY') THEN json_extract_string(json, path) END;
CREATE MACRO to_unixtime(moment) AS epoch(moment);
CREATE MACRO from_unixtime(seconds) AS make_timestamp(CAST(seconds * 1000000 AS BIGINT));
CREATE MACRO approx_percentile(value, share) AS quantile_cont(value, share);
CREATE MACRO sequence(first, last) AS generate_series(first, last);
-- DuckDB's own replaces the first occurrence alone.
CREATE MACRO regexp_replace(text, pattern, replacement) AS array_to_string(string_split_regex(text, pattern), replacement);

-- Hours that are not in Parquet, by their lines. One that players or Kinesis sent twice counts once: the same id with the same event.
CREATE TABLE landed AS
SELECT min(received_at) AS received_at, event
FROM read_json('/dev/stdin', format = 'newline_delimited', maximum_object_size = 16777216,
    columns = {id: 'VARCHAR', received_at: 'TIMESTAMP', event: 'JSON'})
GROUP BY id, event;
