//! Checks whether the times of receipt in the metadata can be those of the lines.

use shared::object::{ObjectKey, ObjectName};
use shared::timestamp::{MILLIS_PER_HOUR, UnixMillis, UtcHour};

/// The times that the metadata may have.
///
/// Landing takes a line's own time of receipt if that is at most an hour from the record's arrival, else the arrival. Ingest
/// does so when it spills, with the time of writing as the arrival. The arrival is not kept, but lies in the object's hour. So a time within the hour is certainly taken, one in the hours beside
/// it perhaps, and of any other line, or one without an envelope, all that is known is the hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Times {
    hour: UtcHour,
    /// Redriven objects have the times of the objects that they were made of, whatever their lines say.
    redriven: bool,
    /// The bounds of the earliest and of the latest time.
    earliest: Option<(i64, i64)>,
    latest: Option<(i64, i64)>,
}

impl Times {
    pub(super) fn new(key: &ObjectKey) -> Self {
        let redriven = match key.name {
            ObjectName::Landed(_) | ObjectName::Spilled(_) => false,
            ObjectName::Redriven(_) => true,
        };
        let any = redriven.then_some((i64::MIN, i64::MAX));
        Self { hour: key.hour, redriven, earliest: any, latest: any }
    }

    pub(super) fn add(&mut self, received_at: Option<UnixMillis>) {
        let (low, high) = self.bounds(received_at);
        let (earliest, latest) = (self.earliest.unwrap_or((low, high)), self.latest.unwrap_or((low, high)));
        self.earliest = Some((earliest.0.min(low), earliest.1.min(high)));
        self.latest = Some((latest.0.max(low), latest.1.max(high)));
    }

    /// The bounds of a line's time in the metadata.
    fn bounds(&self, received_at: Option<UnixMillis>) -> (i64, i64) {
        let (start, end) = (self.hour.start().0, self.hour.end().0 - 1);
        match received_at {
            None if self.redriven => (i64::MIN, i64::MAX),
            Some(UnixMillis(time)) if self.redriven || (start..=end).contains(&time) => (time, time),
            Some(UnixMillis(time)) if (start - MILLIS_PER_HOUR..=end + MILLIS_PER_HOUR).contains(&time) => {
                (time.min(start), time.max(end))
            }
            _ => (start, end),
        }
    }

    /// The bounds that a time is not within, as text.
    pub(super) fn check(&self, earliest: UnixMillis, latest: UnixMillis) -> [Option<String>; 2] {
        let outside = |time: UnixMillis, bounds: Option<(i64, i64)>| {
            let (low, high) = bounds.filter(|(low, high)| !(*low..=*high).contains(&time.0))?;
            let (low, high) = (UnixMillis(low).rfc3339(), UnixMillis(high).rfc3339());
            Some(if low == high { low } else { format!("between {low} and {high}") })
        };
        [outside(earliest, self.earliest), outside(latest, self.latest)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use shared::line::Kind;
    use shared::object::SpillId;

    const MINUTE: i64 = 60_000;

    fn hour() -> UtcHour {
        UtcHour::parse("dt=2026-11-21/hour=09").unwrap()
    }

    fn minute(minute: i64) -> UnixMillis {
        UnixMillis(hour().start().0 + minute * MINUTE)
    }

    /// Whether the metadata may say these minutes of these lines.
    fn may_be(lines: &[Option<i64>], redriven: bool, earliest: i64, latest: i64) -> [bool; 2] {
        let key = ObjectKey::spilled(Kind::Event, hour(), SpillId(1));
        let mut times = Times::new(&if redriven { key.redriven() } else { key });
        lines.iter().for_each(|line| times.add(line.map(minute)));
        times.check(minute(earliest), minute(latest)).map(|wrong| wrong.is_none())
    }

    #[rstest]
    #[case::exact(&[Some(5), Some(3), Some(9)], 3, 9, [true, true])]
    #[case::one_off(&[Some(5), Some(3), Some(9)], 4, 8, [false, false])]
    #[case::wider(&[Some(5), Some(3), Some(9)], 2, 10, [false, false])]
    #[case::raw_lines_are_of_the_hour(&[None], 0, 59, [true, true])]
    #[case::and_of_no_other(&[None], -1, 60, [false, false])]
    #[case::raw_beside_ours(&[None, Some(30)], 10, 40, [true, true])]
    #[case::ours_bounds_raw(&[None, Some(30)], 31, 29, [false, false])]
    #[case::before_the_hour(&[Some(-1), Some(30)], -1, 30, [true, true])]
    #[case::or_the_arrival_of_it(&[Some(-60), Some(30)], 20, 30, [true, true])]
    #[case::not_before_that(&[Some(-1), Some(30)], -2, 30, [false, true])]
    #[case::after_the_hour(&[Some(60)], 60, 60, [true, true])]
    #[case::made_up(&[Some(-61), Some(30)], -61, 30, [false, true])]
    fn times_fit_or_not(
        #[case] lines: &[Option<i64>],
        #[case] earliest: i64,
        #[case] latest: i64,
        #[case] fit: [bool; 2],
    ) {
        assert_eq!(may_be(lines, false, earliest, latest), fit);
    }

    #[test]
    fn redriven_lines_may_be_of_any_time() {
        assert_eq!(may_be(&[Some(-500), None], true, -700, 3), [true, true]);
        assert_eq!(may_be(&[Some(-500), None], true, -400, 3), [false, true]);
        assert_eq!(may_be(&[Some(-500), Some(3)], true, -500, 2), [true, false]);
    }
}
