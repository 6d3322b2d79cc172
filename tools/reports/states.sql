-- What reports begin with, behind WITH and `all_hours` (id, received_at, event). `events_columnar` has each event once, and `states` what players say of their state,
-- in one vocabulary: who (a playback), when (milliseconds since 1970) and which state begins then or still goes on: starting, playing, rebuffering, seeking, paused,
-- ended, failed. Nothing is referred to twice from here on, since Athena would read the date once for each.
events_columnar AS (
    -- An event may come again in another hour: the same id with the same event. Without an id nothing tells what came twice.
    SELECT min(received_at) AS received_at, event FROM all_hours GROUP BY coalesce(id, CAST(uuid() AS VARCHAR)), event
), fields AS (
    SELECT
        to_unixtime(received_at) * 1000 AS received,
        json_extract_scalar(event, '$.e') AS e,
        json_extract_scalar(event, '$.sid') AS sid,
        json_extract_scalar(event, '$.sta') AS sta,
        json_extract_scalar(event, '$.ts') AS ts,
        json_extract_scalar(event, '$.sn') AS sn,
        json_extract_scalar(event, '$.xid') AS xid,
        json_extract_scalar(event, '$.uti') AS uti,
        json_extract_scalar(event, '$.xsqno') AS xsqno,
        -- The names that the template's PromotedFields have, too.
        coalesce(json_extract_scalar(event, '$.type'), json_extract_scalar(event, '$.event'), json_extract_scalar(event, '$.e')) AS type,
        coalesce(json_extract_scalar(event, '$.session_id'), json_extract_scalar(event, '$.sessionId'),
            json_extract_scalar(event, '$.viewer_id'), json_extract_scalar(event, '$.viewerId')) AS session_id,
        json_extract_scalar(event, '$.time') AS client_time,
        json_extract_scalar(event, '$.sequence') AS client_sequence
    FROM events_columnar
), spoken AS (
    -- `xid` and `sid` are mux-embed's and CMCD's beside an `e`, and our own players' without one.
    SELECT *, CASE
        WHEN xid IS NOT NULL AND e IS NOT NULL THEN 'mux-embed'
        WHEN sid IS NOT NULL AND e IN ('ps', 't', 'e') THEN 'CMCD'
        WHEN sta IS NULL AND (session_id IS NOT NULL OR e IS NULL) THEN 'our own'
    END AS vocabulary
    FROM fields
), said AS (
    SELECT received,
        CASE vocabulary WHEN 'mux-embed' THEN xid WHEN 'CMCD' THEN sid ELSE coalesce(session_id, xid, sid) END AS session,
        CASE vocabulary WHEN 'mux-embed' THEN uti WHEN 'CMCD' THEN ts ELSE client_time END AS said_at,
        TRY_CAST(CASE vocabulary WHEN 'mux-embed' THEN xsqno WHEN 'CMCD' THEN sn ELSE client_sequence END AS DOUBLE) AS sequence,
        CASE vocabulary
            -- A player that waits while it seeks does not rebuffer; mux says apart when it does.
            WHEN 'mux-embed' THEN CASE e
                WHEN 'play' THEN 'starting' WHEN 'playing' THEN 'playing' WHEN 'rebufferend' THEN 'playing'
                WHEN 'rebufferstart' THEN 'rebuffering' WHEN 'seeking' THEN 'seeking' WHEN 'pause' THEN 'paused'
                WHEN 'ended' THEN 'ended' WHEN 'viewend' THEN 'ended' WHEN 'error' THEN 'failed' WHEN 'hb' THEN 'heartbeat'
            END
            -- Version 2 (CTA-5004-B): changes of the play state, and what it still is at each interval and at an error.
            WHEN 'CMCD' THEN CASE coalesce(sta, CASE WHEN e IN ('t', 'e') THEN 'none' END)
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
        CASE WHEN vocabulary = 'CMCD' THEN e = 'e' OR sta = 'f' WHEN vocabulary = 'mux-embed' THEN e = 'error' ELSE type = 'error' END AS is_error,
        CASE vocabulary WHEN 'mux-embed' THEN e = 'hb' WHEN 'CMCD' THEN e = 't' ELSE type = 'heartbeat' END AS is_heartbeat
    FROM spoken WHERE vocabulary IS NOT NULL
), clocks AS (
    SELECT session, state, is_error, is_heartbeat, sequence, received,
        CASE WHEN TRY_CAST(said_at AS DOUBLE) BETWEEN 946684800000 AND 4102444800000 THEN TRY_CAST(said_at AS DOUBLE) END AS clock
    FROM said WHERE session IS NOT NULL AND state IS NOT NULL
), corrected AS (
    -- A player's clock may be wrong, and its events may wait to be sent: the one that waited least tells by how much.
    SELECT session, state, is_error, is_heartbeat, sequence, received,
        clock + coalesce(min(received - clock) OVER (PARTITION BY session), 0) AS clock
    FROM clocks
), timed AS (
    SELECT session, state, is_error, is_heartbeat, sequence,
        CASE WHEN received IS NULL OR abs(clock - received) < 86400000 THEN clock ELSE received END AS moment
    FROM corrected
), placed AS (
    -- Many events share a millisecond, and those of a request their time of receipt. Then the player's own numbers tell the order, or else what is likely.
    -- Whole milliseconds are added up without an error, in whatever order.
    SELECT session, state, is_error, is_heartbeat, round(moment) AS begins,
        row_number() OVER (PARTITION BY session ORDER BY moment, sequence NULLS LAST, CASE state
            WHEN 'starting' THEN 1 WHEN 'seeking' THEN 2 WHEN 'rebuffering' THEN 3 WHEN 'playing' THEN 4 WHEN 'heartbeat' THEN 5
            WHEN 'none' THEN 6 WHEN 'paused' THEN 7 WHEN 'failed' THEN 8 ELSE 9 END) AS place
    FROM timed WHERE moment IS NOT NULL
), known AS (
    -- The last state before it that is one, and the session's first error, which may be all that an event says.
    SELECT session, state, begins, place,
        max_by(state, CASE WHEN state NOT IN ('heartbeat', 'none') THEN place END) OVER (PARTITION BY session ORDER BY place) AS last_state,
        min(CASE WHEN is_error THEN begins END) OVER (PARTITION BY session) AS failed_at,
        -- A first event does not tell yet that more will come.
        count(CASE WHEN is_heartbeat AND place > 1 THEN 1 END) OVER (PARTITION BY session) AS heartbeats
    FROM placed
), states AS (
    -- Players send heartbeats in stalls too, before the first picture and after the last: one says that what was last said goes on.
    SELECT session, CASE state WHEN 'heartbeat' THEN coalesce(last_state, 'playing') WHEN 'none' THEN last_state ELSE state END AS state,
        failed_at, heartbeats, begins, place
    FROM known WHERE state <> 'none' OR last_state IS NOT NULL
), followed AS (
    -- What happens before the first picture is starting, whatever the player calls it.
    SELECT session, state, begins, place,
        -- A player that sends heartbeats, and then nothing for so long, is asleep. Others are believed for a day, so that a wrong clock makes no years.
        CASE WHEN heartbeats > 0 THEN 120000 ELSE 86400000 END AS longest,
        lead(begins) OVER (PARTITION BY session ORDER BY place) AS next_begins,
        lag(state) OVER (PARTITION BY session ORDER BY place) AS previous_state,
        min(CASE WHEN state = 'playing' THEN place END) OVER (PARTITION BY session) AS started_place
    FROM states
), intervals AS (
    -- Each state with when it ends; NULL for a playback's last.
    SELECT session, state, previous_state, begins, place, started_place,
        CASE WHEN next_begins - begins > longest THEN begins + longest ELSE next_begins END AS ends
    FROM followed
), plays AS (
    -- A line a playback that was asked for. One that plays before it is asked for began before the data, and what it asks for later is no start.
    SELECT session, asked_at, started_at, failed_at
    FROM (
        SELECT session,
            min(CASE WHEN state = 'starting' THEN begins END) AS asked_at,
            min(CASE WHEN state = 'starting' THEN place END) AS asked_place,
            min(CASE WHEN state = 'playing' THEN begins END) AS started_at,
            min(CASE WHEN state = 'playing' THEN place END) AS started_place,
            min(failed_at) AS failed_at
        FROM states GROUP BY session
    ) AS sessions
    WHERE asked_place <= coalesce(started_place, asked_place)
)
