//! Which hours are to be sealed at a given time.

use std::collections::BTreeSet;

use shared::timestamp::{UnixMillis, UtcHour};

/// Hours before now that are looked at.
pub(super) const LOOKBACK_HOURS: i64 = crate::rules::recency::LOOKBACK_HOURS;

/// The time by which nothing more is expected of an hour.
pub(crate) const fn closes_at(hour: UtcHour, grace_millis: i64) -> UnixMillis {
    UnixMillis(hour.end().0 + grace_millis)
}

pub(super) fn is_closed(hour: UtcHour, at: UnixMillis, grace_millis: i64) -> bool {
    closes_at(hour, grace_millis) <= at
}

/// The closed hours, of the last [`LOOKBACK_HOURS`] and not before the first one that there is. In an empty bucket the last
/// closed hour is sealed as empty: from then on none is left out.
pub(super) fn closed_hours(at: UnixMillis, grace_millis: i64, first: Option<UtcHour>) -> BTreeSet<UtcHour> {
    let last = UnixMillis(at.0 - grace_millis).hour().plus(-1);
    let hours = (0..LOOKBACK_HOURS).map(|back| last.plus(-back));
    match first {
        Some(first) => hours.filter(|hour| *hour >= first).collect(),
        None => BTreeSet::from([last]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: i64 = 15 * 60_000;

    fn hour(text: &str) -> UtcHour {
        UtcHour::parse(text).unwrap()
    }

    fn at(text: &str) -> UnixMillis {
        UnixMillis::parse(&format!("2026-11-21T{text}.000Z")).unwrap()
    }

    #[test]
    fn an_hour_closes_when_its_grace_is_over() {
        let nine = hour("dt=2026-11-21/hour=09");
        let last = |time| closed_hours(at(time), GRACE, None).pop_first().unwrap();
        assert_eq!(last("10:15:00"), nine);
        assert_eq!(last("10:14:59"), nine.plus(-1));
        assert!(is_closed(nine, at("10:15:00"), GRACE) && !is_closed(nine, at("10:14:59"), GRACE));
    }

    #[test]
    fn hours_go_back_to_the_first_and_no_further_than_two_days() {
        let nine = hour("dt=2026-11-21/hour=09");
        let from = |first| closed_hours(at("10:20:00"), GRACE, Some(first));
        assert_eq!(from(nine.plus(-2)), BTreeSet::from([nine.plus(-2), nine.plus(-1), nine]));
        assert!(from(nine.plus(1)).is_empty());
        let all = from(nine.plus(-1000));
        assert_eq!((all.len(), all.first().copied()), (48, Some(nine.plus(-47))));
    }
}
