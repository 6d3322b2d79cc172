//! An event as JSON.

use serde::Serialize;

use super::random::Random;

/// What all events have, and what is theirs alone.
#[derive(Debug, Serialize)]
pub(super) struct Event<'e> {
    /// First, so that what is cut off still says whose it is.
    pub(super) id: &'e str,
    pub(super) session_id: &'e str,
    pub(super) viewer_id: &'e str,
    /// In the session, from 0.
    pub(super) sequence: u32,
    /// From the start of the run.
    pub(super) run_ms: u32,
    #[serde(flatten)]
    pub(super) details: Details,
}

/// What happened. Times are milliseconds, and positions those in the title.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Details {
    PlayerSetup {
        user_agent: &'static str,
        os: &'static str,
        player: &'static str,
        player_version: &'static str,
        video_id: &'static str,
        video_title: &'static str,
        video_duration_ms: u32,
        page_url: &'static str,
        autoplay: bool,
        muted: bool,
        preload: &'static str,
        viewport_width: u32,
        viewport_height: u32,
        language: &'static str,
        connection: &'static str,
    },
    LoadStart {
        video_id: &'static str,
        cdn: &'static str,
        startup_ms: u32,
    },
    AdBreakStart {
        position_ms: u32,
        ads: u32,
    },
    AdImpression {
        position_ms: u32,
        ad_id: u32,
        ad_system: &'static str,
        ad_duration_ms: u32,
    },
    AdComplete {
        position_ms: u32,
        ad_id: u32,
        skipped: bool,
    },
    AdBreakEnd {
        position_ms: u32,
    },
    Playing {
        position_ms: u32,
        time_to_first_frame_ms: u32,
    },
    Heartbeat {
        position_ms: u32,
        watched_ms: u32,
        bitrate_kbps: u32,
        bandwidth_kbps: u32,
        buffer_ms: u32,
        dropped_frames: u32,
        volume_percent: u32,
        fullscreen: bool,
    },
    Seeking {
        position_ms: u32,
        to_ms: u32,
    },
    Seeked {
        position_ms: u32,
        seek_ms: u32,
    },
    RebufferStart {
        position_ms: u32,
        buffer_ms: u32,
    },
    RebufferEnd {
        position_ms: u32,
        rebuffer_ms: u32,
        rebuffers: u32,
    },
    QualityChange {
        position_ms: u32,
        from_kbps: u32,
        to_kbps: u32,
        width: u32,
        height: u32,
        reason: &'static str,
    },
    Pause {
        position_ms: u32,
    },
    Resume {
        position_ms: u32,
        paused_ms: u32,
    },
    Ended {
        position_ms: u32,
        watched_ms: u32,
        rebuffers: u32,
        reason: &'static str,
    },
}

/// What stands around padding.
const PAD_MEMBER: &[u8] = b",\"pad\":\"";
const PAD_END: &[u8] = b"\"}";

/// Appends the event, padded with letters of chance until it is `bytes` long if it is shorter by enough.
pub(super) fn write(out: &mut Vec<u8>, event: &Event<'_>, bytes: usize, random: &mut Random) {
    let start = out.len();
    #[allow(clippy::expect_used)]
    serde_json::to_writer(&mut *out, event).expect("numbers and text have a JSON form, and memory takes it");
    let padded = out.len() - start + PAD_MEMBER.len() + PAD_END.len() - 1;
    if padded >= bytes {
        return;
    }
    out.pop();
    out.extend_from_slice(PAD_MEMBER);
    random.write_letters(out, bytes - padded);
    out.extend_from_slice(PAD_END);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: usize) -> String {
        let details = Details::AdBreakEnd { position_ms: 7 };
        let event = Event { id: "a", session_id: "s", viewer_id: "v", sequence: 1, run_ms: 2, details };
        let mut out = Vec::new();
        write(&mut out, &event, bytes, &mut Random::new(1));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_is_an_object_whose_id_comes_first() {
        let expected = r#"{"id":"a","session_id":"s","viewer_id":"v","sequence":1,"run_ms":2,"type":"ad_break_end","position_ms":7}"#;
        assert_eq!(written(0), expected);
    }

    #[test]
    fn an_event_is_padded_to_the_byte_where_there_is_room_for_a_letter() {
        let bare = written(0).len();
        let least = bare + PAD_MEMBER.len() + PAD_END.len();
        assert_eq!(written(least - 1).len(), bare);
        for bytes in [least, least + 1, least + 11, least + 12, 5_000] {
            let text = written(bytes);
            assert_eq!(text.len(), bytes);
            assert!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["pad"].is_string());
        }
    }
}
