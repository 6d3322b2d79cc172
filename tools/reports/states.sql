-- What reports begin with, behind WITH and `all_hours` (id, received_at, event). `events_columnar` has each event once, and `states` what players say of their state,
-- in one vocabulary: who (a playback), when (milliseconds since 1970) and which state begins then or still goes on: starting, playing, rebuffering, seeking, paused,
-- ended, failed. Nothing is referred to twice from here on, since Athena would read the date once for each.
events_columnar AS (
    -- An event may come again in another hour: the same id with the same event. Without an id nothing tells what came twice.
    SELECT min(received_at) AS received_at, event FROM all_hours GROUP BY coalesce(id, CAST(uuid() AS VARCHAR)), event
), fields AS (
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
), spoken AS (
    SELECT *, CASE
        WHEN xid IS NOT NULL THEN 'mux-embed'
        WHEN sid IS NOT NULL AND e IN ('ps', 't', 'e') THEN 'CMCD'
        WHEN session_id IS NOT NULL AND sta IS NULL THEN 'our own'
    END AS vocabulary
    FROM fields
), said AS (
    SELECT received,
        CASE vocabulary WHEN 'mux-embed' THEN xid WHEN 'CMCD' THEN sid ELSE session_id END AS session,
        CASE vocabulary WHEN 'mux-embed' THEN uti WHEN 'CMCD' THEN ts ELSE client_time END AS said_at,
        CASE vocabulary
            -- A player that waits while it seeks does not rebuffer; mux says apart when it does.
            WHEN 'mux-embed' THEN CASE e
                WHEN 'play' THEN 'starting' WHEN 'playing' THEN 'playing' WHEN 'rebufferend' THEN 'playing'
                WHEN 'rebufferstart' THEN 'rebuffering' WHEN 'seeking' THEN 'seeking' WHEN 'pause' THEN 'paused'
                WHEN 'ended' THEN 'ended' WHEN 'viewend' THEN 'ended' WHEN 'error' THEN 'failed'
            END
            -- Version 2 (CTA-5004-B): changes of the play state, and what it still is at each interval and at an error.
            WHEN 'CMCD' THEN CASE coalesce(sta, CASE e WHEN 'e' THEN 'none' END)
                WHEN 's' THEN 'starting' WHEN 'p' THEN 'playing' WHEN 'r' THEN 'rebuffering'
                WHEN 'k' THEN 'seeking' WHEN 'w' THEN 'seeking' WHEN 'a' THEN 'paused' WHEN 'e' THEN 'ended'
                WHEN 'q' THEN 'ended' WHEN 'f' THEN 'failed' WHEN 'none' THEN 'none'
            END
            -- play when the viewer asks, playing with the first picture.
            ELSE CASE type
                WHEN 'play' THEN 'starting' WHEN 'playing' THEN 'playing' WHEN 'heartbeat' THEN 'heartbeat'
                WHEN 'rebuffer' THEN 'rebuffering' WHEN 'seek' THEN 'seeking' WHEN 'pause' THEN 'paused'
                WHEN 'ended' THEN 'ended' WHEN 'error' THEN 'failed'
            END
        END AS state,
        -- A player may go on after an error, and then says so in its state.
        CASE WHEN vocabulary = 'CMCD' THEN e = 'e' OR sta = 'f' WHEN vocabulary = 'mux-embed' THEN e = 'error' ELSE type = 'error' END AS is_error
    FROM spoken WHERE vocabulary IS NOT NULL
), clocks AS (
    SELECT session, state, is_error, received,
        CASE WHEN TRY_CAST(said_at AS DOUBLE) BETWEEN 946684800000 AND 4102444800000 THEN TRY_CAST(said_at AS DOUBLE) END AS clock
    FROM said WHERE session IS NOT NULL AND state IS NOT NULL
), corrected AS (
    -- A player's clock may be wrong, and its events may wait to be sent: the one that waited least tells by how much.
    SELECT session, state, is_error, received, clock + coalesce(min(received - clock) OVER (PARTITION BY session), 0) AS clock FROM clocks
), timed AS (
    SELECT session, state, is_error, CASE WHEN received IS NULL OR abs(clock - received) < 86400000 THEN clock ELSE received END AS begins FROM corrected
), known AS (
    -- The last state before it that is one, and the session's first error, which may be all that an event says.
    SELECT *, max_by(state, CASE WHEN state NOT IN ('heartbeat', 'none') THEN begins END) OVER (PARTITION BY session ORDER BY begins) AS last_state,
        min(CASE WHEN is_error THEN begins END) OVER (PARTITION BY session) AS failed_at
    FROM timed WHERE begins IS NOT NULL
), states AS (
    -- Players send heartbeats in stalls too, and before the first picture: one says that it still plays, but not that it plays again.
    SELECT session, CASE state WHEN 'heartbeat' THEN 'playing' ELSE state END AS state, failed_at, begins
    FROM known WHERE state NOT IN ('heartbeat', 'none') OR (state = 'heartbeat' AND coalesce(last_state, 'playing') = 'playing')
), intervals AS (
    -- Each state with when the next one begins; NULL for a playback's last. What happens before the first picture is starting, whatever the player calls it.
    SELECT session, state, begins,
        lead(begins) OVER (PARTITION BY session ORDER BY begins) AS ends,
        lag(state) OVER (PARTITION BY session ORDER BY begins) AS previous_state,
        min(CASE WHEN state = 'playing' THEN begins END) OVER (PARTITION BY session) AS started_at
    FROM states
), plays AS (
    -- A line a playback that was asked for. One that plays before it is asked for began before the data, and what it asks for later is no start.
    SELECT session, asked_at, started_at, failed_at
    FROM (
        SELECT session,
            min(CASE WHEN state = 'starting' THEN begins END) AS asked_at,
            min(CASE WHEN state = 'playing' THEN begins END) AS started_at,
            min(failed_at) AS failed_at
        FROM states GROUP BY session
    ) AS sessions
    WHERE asked_at <= coalesce(started_at, asked_at)
)
