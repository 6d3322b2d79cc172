//! A viewer: one session after the other, each with a start, mostly ads, heartbeats between what viewers do and suffer, and
//! an end. A viewer lives as fast as the rate of POSTs has it: each heartbeat is ten seconds of the title.

use std::collections::VecDeque;

use super::catalog::{CATALOG, Device, Title};
use super::random::Random;

/// What a heartbeat takes of the title.
const HEARTBEAT_MS: u32 = 10_000;
/// Of a million heartbeats, after how many something else happens.
const SEEKS: u32 = 25_000;
const REBUFFERS: u32 = 20_000;
const QUALITY_CHANGES: u32 = 60_000;
const PAUSES: u32 = 20_000;
const MID_ROLLS: u32 = 15_000;
const LEAVES: u32 = 15_000;
/// Of a million sessions, how many begin with ads.
const PRE_ROLLS: u32 = 600_000;
const LANGUAGES: [&str; 5] = ["en-US", "de-DE", "ja-JP", "pt-BR", "fr-FR"];
const AD_SYSTEMS: [&str; 3] = ["house", "exchange-a", "exchange-b"];

/// What is to come of a session, one event each; an event's `type` is its name.
#[derive(Debug, Clone, Copy, strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
enum Step {
    PlayerSetup,
    LoadStart,
    AdBreakStart(u32),
    AdImpression(u32),
    AdComplete(u32),
    AdBreakEnd,
    Playing,
    Heartbeat,
    Seeking(u32),
    Seeked,
    RebufferStart,
    RebufferEnd,
    QualityChange(usize),
    Pause,
    Resume,
    Ended(&'static str),
}

#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) id: String,
    pub(super) session_id: String,
    pub(super) device: usize,
    /// Of the session, of its next event.
    sequence: u32,
    title: &'static Title<'static>,
    position_ms: u32,
    watched_ms: u32,
    rebuffers: u32,
    quality: usize,
    steps: VecDeque<Step>,
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
            steps: VecDeque::new(),
        };
        for _ in 0..random.below(60) {
            viewer.next(true, random);
        }
        viewer
    }

    pub(super) fn device(&self) -> &'static Device<'static> {
        &CATALOG.devices[self.device]
    }

    /// The members of the next event, as JSON without the braces. A session ends only with an event that `may_end` it, so that
    /// a POST is full and of one session.
    pub(super) fn next(&mut self, may_end: bool, random: &mut Random) -> String {
        if self.steps.is_empty() {
            self.begin_session(random);
        }
        let step = match self.steps.front() {
            Some(Step::Ended(_)) if !may_end => Step::Heartbeat,
            _ => self.steps.pop_front().unwrap_or(Step::Heartbeat),
        };
        let (sequence, kind) = (self.sequence, <&str>::from(step));
        let details = self.take(step, random);
        if self.steps.is_empty() && !matches!(step, Step::Ended(_)) {
            self.plan(random);
        }
        self.sequence += 1;
        let (session_id, id) = (&self.session_id, &self.id);
        format!(r#""session_id":"{session_id}","viewer_id":"{id}","sequence":{sequence},"type":"{kind}",{details}"#)
    }

    fn begin_session(&mut self, random: &mut Random) {
        self.session_id = random.uuid();
        self.title = random.pick(&CATALOG.titles);
        (self.sequence, self.position_ms, self.watched_ms, self.rebuffers) = (0, 0, 0, 0);
        self.quality = random.between(0, 3) as usize;
        self.steps.extend([Step::PlayerSetup, Step::LoadStart]);
        if random.is_one_of_a_million(PRE_ROLLS) {
            self.plan_ads(random);
        }
        self.steps.push_back(Step::Playing);
    }

    fn plan_ads(&mut self, random: &mut Random) {
        let ads = random.between(1, 3);
        self.steps.push_back(Step::AdBreakStart(ads));
        for _ in 0..ads {
            let ad = random.between(10_000, 99_999);
            self.steps.extend([Step::AdImpression(ad), Step::AdComplete(ad)]);
        }
        self.steps.push_back(Step::AdBreakEnd);
    }

    fn plan(&mut self, random: &mut Random) {
        if self.position_ms + HEARTBEAT_MS > self.title.duration_ms {
            return self.steps.push_back(Step::Ended("completed"));
        }
        self.steps.push_back(Step::Heartbeat);
        let mut chance = random.below(1_000_000);
        let mut is_one_of = |chances: u32| {
            let hit = chance < chances;
            chance = chance.wrapping_sub(chances);
            hit
        };
        if is_one_of(SEEKS) {
            self.steps.extend([Step::Seeking(random.below(self.title.duration_ms)), Step::Seeked]);
        } else if is_one_of(REBUFFERS) {
            self.steps.extend([Step::RebufferStart, Step::RebufferEnd]);
        } else if is_one_of(QUALITY_CHANGES) {
            self.steps.push_back(Step::QualityChange(random.between(0, 4) as usize));
        } else if is_one_of(PAUSES) {
            self.steps.extend([Step::Pause, Step::Resume]);
        } else if is_one_of(MID_ROLLS) {
            self.plan_ads(random);
        } else if is_one_of(LEAVES) {
            self.steps.push_back(Step::Ended("left"));
        }
    }

    /// The members that are the step's own. Times are milliseconds, and positions those in the title.
    fn take(&mut self, step: Step, random: &mut Random) -> String {
        let at = format!(r#""position_ms":{}"#, self.position_ms);
        match step {
            Step::PlayerSetup => self.setup(random),
            Step::LoadStart => {
                let cdn = if random.below(4) == 0 { "cdn-b" } else { "cdn-a" };
                let startup = random.between(20, 900);
                format!(r#""video_id":"{}","cdn":"{cdn}","startup_ms":{startup}"#, self.title.id)
            }
            Step::AdBreakStart(ads) => format!(r#"{at},"ads":{ads}"#),
            Step::AdImpression(ad) => {
                let (system, duration) = (random.pick::<&str>(&AD_SYSTEMS), random.between(1, 6) * 5_000);
                format!(r#"{at},"ad_id":{ad},"ad_system":"{system}","ad_duration_ms":{duration}"#)
            }
            Step::AdComplete(ad) => format!(r#"{at},"ad_id":{ad},"skipped":{}"#, random.below(5) == 0),
            Step::AdBreakEnd | Step::Pause => at,
            Step::Playing => format!(r#"{at},"time_to_first_frame_ms":{}"#, random.between(150, 4_000)),
            Step::Heartbeat => self.heartbeat(random),
            Step::Seeking(to) => {
                self.position_ms = to;
                format!(r#"{at},"to_ms":{to}"#)
            }
            Step::Seeked => format!(r#"{at},"seek_ms":{}"#, random.between(20, 1_500)),
            Step::RebufferStart => format!(r#"{at},"buffer_ms":{}"#, random.below(200)),
            Step::RebufferEnd => {
                self.rebuffers += 1;
                format!(r#"{at},"rebuffer_ms":{},"rebuffers":{}"#, random.between(100, 8_000), self.rebuffers)
            }
            Step::QualityChange(to) => format!("{at},{}", self.change_quality(to)),
            Step::Resume => format!(r#"{at},"paused_ms":{}"#, random.between(500, 120_000)),
            Step::Ended(reason) => {
                let (watched, rebuffers) = (self.watched_ms, self.rebuffers);
                format!(r#"{at},"watched_ms":{watched},"rebuffers":{rebuffers},"reason":"{reason}""#)
            }
        }
    }

    fn setup(&self, random: &mut Random) -> String {
        let Device { user_agent, os, player, player_version, .. } = self.device();
        let Title { id, name, duration_ms } = self.title;
        let screen = random.pick(&CATALOG.qualities);
        let (autoplay, muted) = (random.below(2) == 0, random.below(4) == 0);
        let language = random.pick::<&str>(&LANGUAGES);
        let connection = if random.below(3) == 0 { "cellular" } else { "wifi" };
        [
            format!(r#""user_agent":"{user_agent}","os":"{os}","player":"{player}","player_version":"{player_version}""#),
            format!(r#""video_id":"{id}","video_title":{name},"video_duration_ms":{duration_ms}"#),
            format!(r#""page_url":"https://videos.example/watch","autoplay":{autoplay},"muted":{muted},"preload":"metadata""#),
            format!(r#""viewport_width":{},"viewport_height":{}"#, screen.width, screen.height),
            format!(r#""language":"{language}","connection":"{connection}""#),
        ]
        .join(",")
    }

    fn heartbeat(&mut self, random: &mut Random) -> String {
        self.position_ms = (self.position_ms + HEARTBEAT_MS).min(self.title.duration_ms);
        self.watched_ms += HEARTBEAT_MS;
        let (position, watched) = (self.position_ms, self.watched_ms);
        let bitrate = CATALOG.qualities[self.quality].bitrate_kbps;
        let (bandwidth, buffer) = (bitrate + random.below(40_000), random.between(400, 30_000));
        let (dropped, volume, fullscreen) = (random.below(12), random.below(101), random.below(3) > 0);
        format!(
            r#""position_ms":{position},"watched_ms":{watched},"bitrate_kbps":{bitrate},"bandwidth_kbps":{bandwidth},"#
        ) + &format!(
            r#""buffer_ms":{buffer},"dropped_frames":{dropped},"volume_percent":{volume},"fullscreen":{fullscreen}"#
        )
    }

    fn change_quality(&mut self, to: usize) -> String {
        let (before, after) = (&CATALOG.qualities[self.quality], &CATALOG.qualities[to]);
        let reason = if to < self.quality { "bandwidth_down" } else { "bandwidth_up" };
        self.quality = to;
        let (from_kbps, to_kbps) = (before.bitrate_kbps, after.bitrate_kbps);
        let (width, height) = (after.width, after.height);
        format!(r#""from_kbps":{from_kbps},"to_kbps":{to_kbps},"width":{width},"height":{height},"reason":"{reason}""#)
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
    fn what_begins_ends_and_everything_happens() {
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
