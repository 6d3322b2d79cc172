//! What players are made of: devices and titles, as traffic has them.

/// A device with its player.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) user_agent: &'static str,
    pub(super) os: &'static str,
    pub(super) player: &'static str,
    pub(super) player_version: &'static str,
    pub(super) form: Form,
}

/// How a player packs its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON array, or the object alone when there is one.
    Array,
    /// An object with the list as its `events`, sent as text/plain, which needs no preflight.
    Wrapped,
    /// An object a line.
    Lines,
}

impl Form {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Array => "application/json",
            Self::Wrapped => "text/plain;charset=UTF-8",
            Self::Lines => "application/x-ndjson",
        }
    }
}

const fn device(
    user_agent: &'static str,
    os: &'static str,
    player: &'static str,
    player_version: &'static str,
    form: Form,
) -> Device {
    Device { user_agent, os, player, player_version, form }
}

/// Each is as frequent as the next.
pub(super) const DEVICES: [Device; 10] = [
    device(
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Safari/537.36",
        "Windows",
        "web-player",
        "5.19.0",
        Form::Array,
    ),
    device(
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 \
         Safari/605.1.15",
        "macOS",
        "web-player",
        "5.19.0",
        Form::Array,
    ),
    device(
        "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
        "Linux",
        "web-player",
        "5.18.2",
        Form::Wrapped,
    ),
    device(
        "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.1 \
         Mobile/15E148 Safari/604.1",
        "iOS",
        "web-player",
        "5.19.0",
        Form::Wrapped,
    ),
    device(
        "Mozilla/5.0 (Linux; Android 16; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/148.0.0.0 Mobile Safari/537.36",
        "Android",
        "web-player",
        "5.19.0",
        Form::Wrapped,
    ),
    device("PlayerApp/9.3.1 (Android 16; Pixel 9)", "Android", "android-player", "9.3.1", Form::Array),
    device("PlayerApp/9.3.0 CFNetwork/3860 Darwin/25.1.0", "iOS", "ios-player", "9.3.0", Form::Array),
    device("PlayerTV/4.2 (tvOS 26.1; AppleTV14,1)", "tvOS", "tv-player", "4.2.0", Form::Array),
    device(
        "Mozilla/5.0 (SMART-TV; Linux; Tizen 9.0) AppleWebKit/537.36 (KHTML, like Gecko) 130.0.6723.58/9.0 TV \
         Safari/537.36",
        "Tizen",
        "tv-player",
        "4.1.7",
        Form::Array,
    ),
    device("Roku/DVP-15.0 (15.0.4.4160)", "Roku OS", "tv-player", "4.2.0", Form::Lines),
];

/// Something to watch.
#[derive(Debug)]
pub(super) struct Title {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) duration_ms: u32,
}

pub(super) const TITLES: [Title; 6] = [
    Title { id: "bread-101", name: "How to make bread", duration_ms: 1_260_000 },
    Title { id: "bread-102", name: "パンの作り方", duration_ms: 1_255_000 },
    Title { id: "night-trains-s02e04", name: "Night trains: \"The last platform\"", duration_ms: 2_703_000 },
    Title { id: "evening-news", name: "Evening news – 20:00", duration_ms: 1_800_000 },
    Title { id: "kürzeste-wege", name: "Kürzeste Wege", duration_ms: 5_412_000 },
    Title { id: "clip-88213", name: "Goal of the week", duration_ms: 94_000 },
];

/// A rendition of a title.
#[derive(Debug)]
pub(super) struct Quality {
    pub(super) bitrate_kbps: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// From the lowest to the highest.
pub(super) const QUALITIES: [Quality; 5] = [
    Quality { bitrate_kbps: 365, width: 640, height: 360 },
    Quality { bitrate_kbps: 1_100, width: 960, height: 540 },
    Quality { bitrate_kbps: 2_400, width: 1_280, height: 720 },
    Quality { bitrate_kbps: 4_500, width: 1_920, height: 1_080 },
    Quality { bitrate_kbps: 11_600, width: 3_840, height: 2_160 },
];

pub(super) const AD_SYSTEMS: [&str; 3] = ["house", "exchange-a", "exchange-b"];
