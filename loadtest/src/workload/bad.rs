//! POSTs that are bad on purpose, each in one of four ways that players in the field are.

use super::Bad;
use super::random::Random;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    NotJson,
    /// Something that is no object among good events.
    NoObject,
    WrongContentType,
    /// Broken off in the last event.
    Truncated,
}

const SORTS: [Sort; 4] = [Sort::NotJson, Sort::NoObject, Sort::WrongContentType, Sort::Truncated];

/// Bytes of a truncated event after its id: enough to see that one has begun, and fewer than any event has.
pub(super) const BYTES_AFTER_ID: usize = 16;

impl Sort {
    pub(super) fn pick(random: &mut Random) -> Self {
        *random.pick(&SORTS)
    }

    /// What is to be answered; `place` is where among the good events the bad one is.
    pub(super) fn answer(self, place: u64) -> Bad {
        match self {
            Self::NotJson | Self::Truncated => Bad::Whole(400),
            Self::WrongContentType => Bad::Whole(415),
            Self::NoObject => Bad::Piece(place),
        }
    }
}

pub(super) const WRONG_CONTENT_TYPE: &str = "application/xml";

pub(super) fn not_json(id: &str) -> Vec<u8> {
    format!("type=heartbeat&id={id}&position_ms=NaN").into_bytes()
}

pub(super) fn xml(id: &str) -> Vec<u8> {
    format!("<event id=\"{id}\" type=\"heartbeat\"/>").into_bytes()
}
