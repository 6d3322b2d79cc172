//! A viewer: one session after the other, each with a start, mostly ads, heartbeats between what viewers do and suffer, and
//! an end. A viewer lives as fast as the rate of POSTs wants it: each heartbeat is ten seconds of the title.

use std::collections::VecDeque;

use super::catalog::{AD_SYSTEMS, DEVICES, Device, QUALITIES, TITLES, Title};
use super::event::Details;
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

/// What is to come of a session, one event each.
#[derive(Debug, Clone, Copy)]
enum Step {
    Setup,
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
    /// Of the session, of its next event.
    pub(super) sequence: u32,
    /// The place of its device in [`DEVICES`].
    pub(super) device: usize,
    title: &'static Title,
    position_ms: u32,
    watched_ms: u32,
    rebuffers: u32,
    quality: usize,
    steps: VecDeque<Step>,
}

impl Viewer {
    /// A viewer in the middle of a session, so that a run has the mix of real traffic from its first POST on.
    pub(super) fn new(random: &mut Random) -> Self {
        let devices = u32::try_from(DEVICES.len()).unwrap_or(u32::MAX);
        let mut viewer = Self {
            id: random.uuid(),
            session_id: String::new(),
            sequence: 0,
            device: random.below(devices) as usize,
            title: &TITLES[0],
            position_ms: 0,
            watched_ms: 0,
            rebuffers: 0,
            quality: 0,
            steps: VecDeque::new(),
        };
        viewer.begin_session(random);
        for _ in 0..random.below(60) {
            viewer.next(true, random);
        }
        viewer
    }

    pub(super) fn device(&self) -> &'static Device {
        &DEVICES[self.device]
    }

    /// Begins another session if the last one has ended, and says whether it did.
    pub(super) fn begins_session(&mut self, random: &mut Random) -> bool {
        let begins = self.steps.is_empty();
        if begins {
            self.begin_session(random);
        }
        begins
    }

    /// What happens next. A session does not end before an event that `may_end` it, so that a POST is full and of one session.
    pub(super) fn next(&mut self, may_end: bool, random: &mut Random) -> Details {
        self.begins_session(random);
        let step = match self.steps.front() {
            Some(Step::Ended(_)) if !may_end => Step::Heartbeat,
            _ => self.steps.pop_front().unwrap_or(Step::Heartbeat),
        };
        let details = self.take(step, random);
        if self.steps.is_empty() && !matches!(step, Step::Ended(_)) {
            self.plan(random);
        }
        self.sequence += 1;
        details
    }

    fn begin_session(&mut self, random: &mut Random) {
        self.session_id = random.uuid();
        self.title = random.pick(&TITLES);
        (self.sequence, self.position_ms, self.watched_ms, self.rebuffers) = (0, 0, 0, 0);
        self.quality = random.between(0, 3) as usize;
        self.steps.extend([Step::Setup, Step::LoadStart]);
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
            let to = random.below(self.title.duration_ms);
            self.steps.extend([Step::Seeking(to), Step::Seeked]);
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

    fn take(&mut self, step: Step, random: &mut Random) -> Details {
        let position_ms = self.position_ms;
        match step {
            Step::Setup => self.setup(random),
            Step::LoadStart => {
                let cdn = if random.below(4) == 0 { "cdn-b" } else { "cdn-a" };
                Details::LoadStart { video_id: self.title.id, cdn, startup_ms: random.between(20, 900) }
            }
            Step::AdBreakStart(ads) => Details::AdBreakStart { position_ms, ads },
            Step::AdImpression(ad_id) => Details::AdImpression {
                position_ms,
                ad_id,
                ad_system: random.pick::<&str>(&AD_SYSTEMS),
                ad_duration_ms: random.between(1, 6) * 5_000,
            },
            Step::AdComplete(ad_id) => Details::AdComplete { position_ms, ad_id, skipped: random.below(5) == 0 },
            Step::AdBreakEnd => Details::AdBreakEnd { position_ms },
            Step::Playing => Details::Playing { position_ms, time_to_first_frame_ms: random.between(150, 4_000) },
            Step::Heartbeat => self.heartbeat(random),
            Step::Seeking(to_ms) => {
                self.position_ms = to_ms;
                Details::Seeking { position_ms, to_ms }
            }
            Step::Seeked => Details::Seeked { position_ms, seek_ms: random.between(20, 1_500) },
            Step::RebufferStart => Details::RebufferStart { position_ms, buffer_ms: random.below(200) },
            Step::RebufferEnd => {
                self.rebuffers += 1;
                Details::RebufferEnd { position_ms, rebuffer_ms: random.between(100, 8_000), rebuffers: self.rebuffers }
            }
            Step::QualityChange(to) => self.change_quality(to),
            Step::Pause => Details::Pause { position_ms },
            Step::Resume => Details::Resume { position_ms, paused_ms: random.between(500, 120_000) },
            Step::Ended(reason) => {
                Details::Ended { position_ms, watched_ms: self.watched_ms, rebuffers: self.rebuffers, reason }
            }
        }
    }

    fn setup(&self, random: &mut Random) -> Details {
        let device = self.device();
        let screen = random.pick(&QUALITIES);
        Details::PlayerSetup {
            user_agent: device.user_agent,
            os: device.os,
            player: device.player,
            player_version: device.player_version,
            video_id: self.title.id,
            video_title: self.title.name,
            video_duration_ms: self.title.duration_ms,
            page_url: "https://videos.example/watch",
            autoplay: random.below(2) == 0,
            muted: random.below(4) == 0,
            preload: "metadata",
            viewport_width: screen.width,
            viewport_height: screen.height,
            language: random.pick::<&str>(&LANGUAGES),
            connection: if random.below(3) == 0 { "cellular" } else { "wifi" },
        }
    }

    fn heartbeat(&mut self, random: &mut Random) -> Details {
        self.position_ms = (self.position_ms + HEARTBEAT_MS).min(self.title.duration_ms);
        self.watched_ms += HEARTBEAT_MS;
        let bitrate_kbps = QUALITIES[self.quality].bitrate_kbps;
        Details::Heartbeat {
            position_ms: self.position_ms,
            watched_ms: self.watched_ms,
            bitrate_kbps,
            bandwidth_kbps: bitrate_kbps + random.below(40_000),
            buffer_ms: random.between(400, 30_000),
            dropped_frames: random.below(12),
            volume_percent: random.below(101),
            fullscreen: random.below(3) > 0,
        }
    }

    fn change_quality(&mut self, to: usize) -> Details {
        let (from, to_quality) = (&QUALITIES[self.quality], &QUALITIES[to]);
        let reason = if to < self.quality { "bandwidth_down" } else { "bandwidth_up" };
        self.quality = to;
        Details::QualityChange {
            position_ms: self.position_ms,
            from_kbps: from.bitrate_kbps,
            to_kbps: to_quality.bitrate_kbps,
            width: to_quality.width,
            height: to_quality.height,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn word(details: &Details) -> String {
        serde_json::to_value(details).unwrap()["type"].as_str().unwrap().to_owned()
    }

    /// The words of whole sessions; the first, which was joined in its middle, is left out.
    fn sessions(events: usize) -> Vec<Vec<String>> {
        let mut random = Random::new(7);
        let mut viewer = Viewer::new(&mut random);
        let mut sessions = vec![Vec::new()];
        for _ in 0..events {
            if viewer.begins_session(&mut random) {
                sessions.push(Vec::new());
            }
            sessions.last_mut().unwrap().push(word(&viewer.next(true, &mut random)));
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
        sessions(50_000).into_iter().flatten().for_each(|word| *counts.entry(word).or_insert(0) += 1);
        let count = |word: &str| counts.get(word).copied().unwrap_or(0);
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
