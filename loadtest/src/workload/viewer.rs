//! A viewer plays one session after another: a start, usually ads, heartbeats mixed with seeks, pauses, rebuffering and the
//! like, and an end. Its time passes with its POSTs, not with the clock: each heartbeat is ten seconds of the title.

use std::collections::VecDeque;

use super::catalog::{CATALOG, Device, Title};
use super::random::Random;

const HEARTBEAT_MS: u32 = 10_000;
/// How many of a million heartbeats are followed by something else.
const SEEKS: u32 = 25_000;
const REBUFFERS: u32 = 20_000;
const QUALITY_CHANGES: u32 = 60_000;
const PAUSES: u32 = 20_000;
const MID_ROLLS: u32 = 15_000;
const LEAVES: u32 = 15_000;
/// How many of a million sessions begin with ads.
const PRE_ROLLS: u32 = 600_000;
const LANGUAGES: [&str; 5] = ["en-US", "de-DE", "ja-JP", "pt-BR", "fr-FR"];
const AD_SYSTEMS: [&str; 3] = ["house", "exchange-a", "exchange-b"];
const CDNS: [&str; 4] = ["cdn-a", "cdn-a", "cdn-a", "cdn-b"];
/// The type of a session's last event.
const ENDED: &str = "ended";

#[derive(Debug)]
pub(super) struct Viewer {
    id: String,
    session_id: String,
    pub(super) device: usize,
    /// Of the session, of its next event.
    sequence: u32,
    title: &'static Title,
    position_ms: u32,
    watched_ms: u32,
    rebuffers: u32,
    quality: usize,
    /// The next events of the session: the type, the position and the members of each, or the reason of the end.
    next: VecDeque<(&'static str, u32, String)>,
}

impl Viewer {
    /// A viewer in the middle of a session, so that a run has the mix of real traffic from its first POST on.
    pub(super) fn new(random: &mut Random) -> Self {
        let mut viewer = Self {
            id: random.uuid(),
            session_id: String::new(),
            device: random.below(CATALOG.devices.len() as u32) as usize,
            sequence: 0,
            title: &CATALOG.titles[0],
            position_ms: 0,
            watched_ms: 0,
            rebuffers: 0,
            quality: 0,
            next: VecDeque::new(),
        };
        for _ in 0..random.below(60) {
            viewer.next(true, random);
        }
        viewer
    }

    /// The members of the next event, as JSON without the braces. A session ends only with an event that `may_end` it, so that
    /// a POST is full and of one session.
    pub(super) fn next(&mut self, may_end: bool, random: &mut Random) -> String {
        if self.next.is_empty() {
            self.begin_session(random);
        }
        if !may_end && self.next.front().is_some_and(|(kind, ..)| *kind == ENDED) {
            // The end comes after another heartbeat.
            self.heartbeat(random);
            self.next.rotate_left(1);
        }
        let (kind, mut at, mut members) = self.next.pop_front().unwrap_or_default();
        if kind == ENDED {
            at = self.position_ms;
            let (watched, rebuffers) = (self.watched_ms, self.rebuffers);
            members = format!(r#","watched_ms":{watched},"rebuffers":{rebuffers},"reason":"{members}""#);
        } else if self.next.is_empty() {
            self.go_on(random);
        }
        let (session, id, number) = (&self.session_id, &self.id, self.sequence);
        self.sequence += 1;
        format!(
            r#""session_id":"{session}","viewer_id":"{id}","sequence":{number},"type":"{kind}","position_ms":{at}{members}"#
        )
    }

    /// Appends an event; its members begin with a comma. Times are milliseconds, and positions those in the title.
    fn push(&mut self, kind: &'static str, members: String) {
        self.next.push_back((kind, self.position_ms, members));
    }

    fn begin_session(&mut self, random: &mut Random) {
        self.session_id = random.uuid();
        self.title = random.pick(&CATALOG.titles);
        (self.sequence, self.position_ms, self.watched_ms, self.rebuffers) = (0, 0, 0, 0);
        self.quality = random.between(0, 3) as usize;
        let setup = self.setup(random);
        self.push("player_setup", setup);
        let (video, cdn, startup) = (&self.title.id, random.pick::<&str>(&CDNS), random.between(20, 900));
        self.push("load_start", format!(r#","video_id":"{video}","cdn":"{cdn}","startup_ms":{startup}"#));
        if random.is_one_of_a_million(PRE_ROLLS) {
            self.ads(random);
        }
        self.push("playing", format!(r#","time_to_first_frame_ms":{}"#, random.between(150, 4_000)));
    }

    fn ads(&mut self, random: &mut Random) {
        let ads = random.between(1, 3);
        self.push("ad_break_start", format!(r#","ads":{ads}"#));
        for _ in 0..ads {
            let (ad, system) = (random.between(10_000, 99_999), random.pick::<&str>(&AD_SYSTEMS));
            let duration = random.between(1, 6) * 5_000;
            self.push("ad_impression", format!(r#","ad_id":{ad},"ad_system":"{system}","ad_duration_ms":{duration}"#));
            self.push("ad_complete", format!(r#","ad_id":{ad},"skipped":{}"#, random.below(5) == 0));
        }
        self.push("ad_break_end", String::new());
    }

    fn go_on(&mut self, random: &mut Random) {
        if self.position_ms + HEARTBEAT_MS > self.title.duration_ms {
            return self.push(ENDED, "completed".to_owned());
        }
        self.heartbeat(random);
        let mut chance = random.below(1_000_000);
        let mut is_one_of = |chances: u32| {
            let hit = chance < chances;
            chance = chance.wrapping_sub(chances);
            hit
        };
        if is_one_of(SEEKS) {
            let to = random.below(self.title.duration_ms);
            self.push("seeking", format!(r#","to_ms":{to}"#));
            self.position_ms = to;
            self.push("seeked", format!(r#","seek_ms":{}"#, random.between(20, 1_500)));
        } else if is_one_of(REBUFFERS) {
            self.push("rebuffer_start", format!(r#","buffer_ms":{}"#, random.below(200)));
            self.rebuffers += 1;
            let (took, rebuffers) = (random.between(100, 8_000), self.rebuffers);
            self.push("rebuffer_end", format!(r#","rebuffer_ms":{took},"rebuffers":{rebuffers}"#));
        } else if is_one_of(QUALITY_CHANGES) {
            self.change_quality(random.between(0, 4) as usize);
        } else if is_one_of(PAUSES) {
            self.push("pause", String::new());
            self.push("resume", format!(r#","paused_ms":{}"#, random.between(500, 120_000)));
        } else if is_one_of(MID_ROLLS) {
            self.ads(random);
        } else if is_one_of(LEAVES) {
            self.push(ENDED, "left".to_owned());
        }
    }

    fn setup(&self, random: &mut Random) -> String {
        let Device { user_agent, os, player, player_version, .. } = &CATALOG.devices[self.device];
        let Title { id, name, duration_ms } = self.title;
        let screen = random.pick(&CATALOG.qualities);
        let (autoplay, muted) = (random.below(2) == 0, random.below(4) == 0);
        let language = random.pick::<&str>(&LANGUAGES);
        let connection = if random.below(3) == 0 { "cellular" } else { "wifi" };
        [
            format!(r#","user_agent":"{user_agent}","os":"{os}","player":"{player}","player_version":"{player_version}""#),
            format!(r#""video_id":"{id}","video_title":{name},"video_duration_ms":{duration_ms}"#),
            format!(r#""page_url":"https://videos.example/watch","autoplay":{autoplay},"muted":{muted},"preload":"metadata""#),
            format!(r#""viewport_width":{},"viewport_height":{}"#, screen.width, screen.height),
            format!(r#""language":"{language}","connection":"{connection}""#),
        ]
        .join(",")
    }

    fn heartbeat(&mut self, random: &mut Random) {
        self.position_ms = (self.position_ms + HEARTBEAT_MS).min(self.title.duration_ms);
        self.watched_ms += HEARTBEAT_MS;
        let (watched, bitrate) = (self.watched_ms, CATALOG.qualities[self.quality].bitrate_kbps);
        let (bandwidth, buffer) = (bitrate + random.below(40_000), random.between(400, 30_000));
        let (dropped, volume, fullscreen) = (random.below(12), random.below(101), random.below(3) > 0);
        let network = format!(r#","watched_ms":{watched},"bitrate_kbps":{bitrate},"bandwidth_kbps":{bandwidth},"#);
        let player = format!(
            r#""buffer_ms":{buffer},"dropped_frames":{dropped},"volume_percent":{volume},"fullscreen":{fullscreen}"#
        );
        self.push("heartbeat", network + &player);
    }

    fn change_quality(&mut self, to: usize) {
        let (before, after) = (&CATALOG.qualities[self.quality], &CATALOG.qualities[to]);
        let reason = if to < self.quality { "bandwidth_down" } else { "bandwidth_up" };
        self.quality = to;
        let (from_kbps, to_kbps) = (before.bitrate_kbps, after.bitrate_kbps);
        let (width, height) = (after.width, after.height);
        let kbps = format!(r#","from_kbps":{from_kbps},"to_kbps":{to_kbps}"#);
        self.push("quality_change", kbps + &format!(r#","width":{width},"height":{height},"reason":"{reason}""#));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The types of the events of whole sessions; the first, which was joined in its middle, is left out.
    fn sessions(events: usize) -> Vec<Vec<String>> {
        let mut random = Random::new(7);
        let mut viewer = Viewer::new(&mut random);
        let mut sessions = vec![Vec::new()];
        for _ in 0..events {
            let json = format!("{{{}}}", viewer.next(true, &mut random));
            let event: serde_json::Value =
                serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
            if event["sequence"] == 0 {
                sessions.push(Vec::new());
            }
            sessions.last_mut().unwrap().push(event["type"].as_str().unwrap().to_owned());
        }
        sessions.pop();
        sessions.remove(0);
        sessions
    }

    #[test]
    fn a_session_begins_with_the_player_and_ends_with_its_end() {
        let sessions = sessions(50_000);
        assert!(sessions.len() > 100);
        for session in &sessions {
            assert_eq!(session[..2], ["player_setup", "load_start"]);
            assert_eq!(session.last().unwrap(), "ended");
            assert!(session.contains(&"playing".to_owned()) && session.len() < 1_500);
        }
    }

    #[test]
    fn everything_that_begins_ends_and_each_type_of_event_occurs() {
        let mut counts = BTreeMap::new();
        sessions(50_000).into_iter().flatten().for_each(|kind| *counts.entry(kind).or_insert(0) += 1);
        let count = |kind: &str| counts.get(kind).copied().unwrap_or(0);
        for (begin, end) in [
            ("player_setup", "ended"),
            ("ad_break_start", "ad_break_end"),
            ("ad_impression", "ad_complete"),
            ("seeking", "seeked"),
            ("rebuffer_start", "rebuffer_end"),
            ("pause", "resume"),
        ] {
            assert!(count(begin) > 0 && count(begin) == count(end), "{begin}: {counts:?}");
        }
        assert!(count("quality_change") > 0 && count("heartbeat") > 25_000, "{counts:?}");
    }
}
