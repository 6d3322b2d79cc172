-- What reports begin with, behind WITH and events_columnar. `states` is what players say of their state, in one vocabulary: who (a playback), when (milliseconds since 1970) and which state begins then or
-- still goes on: starting, playing, rebuffering, seeking, paused, ended, failed.
fields AS (
    SELECT
        to_unixtime(received_at) * 1000 AS received,
        json_extract_scalar(event, '$.type') AS type,
        json_extract_scalar(event, '$.session_id') AS session_id,
        json_extract_scalar(event, '$.time') AS client_time,
        json_extract_scalar(event, '$.e') AS e,
        json_extract_scalar(event, '$.sid') AS sid,
        json_extract_scalar(event, '$.sta') AS sta,
        json_extract_scalar(event, '$.ts') AS ts,
        json_extract_scalar(event, '$.xid') AS xid,
        json_extract_scalar(event, '$.uti') AS uti
    FROM events_columnar
), said AS (
    -- CMCD version 2 (CTA-5004-B): changes of the play state, and what it still is at each interval.
    SELECT sid AS session, received, ts AS said_at,
        CASE sta
            WHEN 's' THEN 'starting' WHEN 'p' THEN 'playing' WHEN 'r' THEN 'rebuffering'
            WHEN 'k' THEN 'seeking' WHEN 'w' THEN 'seeking' WHEN 'a' THEN 'paused' WHEN 'e' THEN 'ended'
            WHEN 'q' THEN 'ended' WHEN 'f' THEN 'failed'
        END AS state
    FROM fields WHERE sta IS NOT NULL AND e IN ('ps', 't')
    UNION ALL
    -- mux-embed. A player that waits while it seeks does not rebuffer; mux says apart when it does.
    SELECT xid, received, uti,
        CASE e
            WHEN 'play' THEN 'starting' WHEN 'playing' THEN 'playing' WHEN 'rebufferend' THEN 'playing'
            WHEN 'rebufferstart' THEN 'rebuffering' WHEN 'seeking' THEN 'seeking' WHEN 'pause' THEN 'paused'
            WHEN 'ended' THEN 'ended' WHEN 'viewend' THEN 'ended' WHEN 'error' THEN 'failed'
        END
    FROM fields WHERE xid IS NOT NULL
    UNION ALL
    -- Our own names: play when the viewer asks, playing with the first picture. A heartbeat says that it still plays.
    SELECT session_id, received, client_time,
        CASE type
            WHEN 'play' THEN 'starting' WHEN 'playing' THEN 'playing' WHEN 'heartbeat' THEN 'playing'
            WHEN 'rebuffer' THEN 'rebuffering' WHEN 'seek' THEN 'seeking' WHEN 'pause' THEN 'paused'
            WHEN 'ended' THEN 'ended' WHEN 'error' THEN 'failed'
        END
    FROM fields WHERE session_id IS NOT NULL AND xid IS NULL AND sta IS NULL
), clocks AS (
    SELECT session, state, received,
        CASE WHEN TRY_CAST(said_at AS DOUBLE) BETWEEN 946684800000 AND 4102444800000 THEN TRY_CAST(said_at AS DOUBLE) END AS clock
    FROM said WHERE session IS NOT NULL AND state IS NOT NULL
), corrected AS (
    -- A player's clock may be wrong, and its events may wait to be sent: the one that waited least tells by how much.
    SELECT session, state, received, clock + min(received - clock) OVER (PARTITION BY session) AS clock FROM clocks
), states AS (
    SELECT session, state, CASE WHEN abs(clock - received) < 86400000 THEN clock ELSE received END AS begins FROM corrected
), intervals AS (
    -- Each state with when the next one begins; NULL for a playback's last.
    SELECT session, state, begins, lead(begins) OVER (PARTITION BY session ORDER BY begins) AS ends FROM states
), playbacks AS (
    -- A line a playback that was asked for. What happens before the first picture is starting, whatever the player calls it.
    SELECT session,
        min(CASE WHEN state = 'starting' THEN begins END) AS asked_at,
        min(CASE WHEN state = 'playing' THEN begins END) AS started_at,
        min(CASE WHEN state = 'failed' THEN begins END) AS failed_at
    FROM states GROUP BY session HAVING count(CASE WHEN state IN ('starting', 'playing') THEN 1 END) > 0
)
