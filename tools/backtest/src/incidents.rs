//! Incidents, and harmless histories that look a little like them.

use std::ops::Range;

use shared::timestamp::UnixMillis;

use crate::history::History;

/// Something that should raise an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Incident {
    OutageOfAnHour,
    OutageOfADate,
    HalfLostInSixHours,
    HalfLostInADate,
    DoubledInADate,
    LateSeal,
    NoSeal,
}

/// How late a late seal is, in minutes after the end of the hour.
const LATE_MINUTES: i64 = 95;

impl Incident {
    pub(crate) const ALL: [Self; 7] = [
        Self::OutageOfAnHour,
        Self::OutageOfADate,
        Self::HalfLostInSixHours,
        Self::HalfLostInADate,
        Self::DoubledInADate,
        Self::LateSeal,
        Self::NoSeal,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::OutageOfAnHour => "outage, 1 h",
            Self::OutageOfADate => "outage, a date",
            Self::HalfLostInSixHours => "half lost, 6 h",
            Self::HalfLostInADate => "half lost, a date",
            Self::DoubledInADate => "doubled, a date",
            Self::LateSeal => "sealed 95 min after",
            Self::NoSeal => "not sealed",
        }
    }

    /// Whether it changes sizes; otherwise it delays seals.
    pub(crate) const fn is_of_size(self) -> bool {
        !matches!(self, Self::LateSeal | Self::NoSeal)
    }

    /// The hours that it takes if it begins in or before the one at an index.
    pub(crate) fn hours(self, history: &History, at: usize) -> Range<usize> {
        let length = match self {
            Self::OutageOfAnHour | Self::LateSeal | Self::NoSeal => 1,
            Self::HalfLostInSixHours => 6,
            Self::OutageOfADate | Self::HalfLostInADate | Self::DoubledInADate => 24,
        };
        let of_day = usize::try_from(history.hour(at).of_day()).unwrap_or_default();
        let begin = if length == 24 { at.saturating_sub(of_day) } else { at };
        begin..(begin + length).min(history.hours.len())
    }

    /// When it could first be noticed: a seal is missed after its hour.
    pub(crate) fn begins(self, history: &History, hours: &Range<usize>) -> UnixMillis {
        let first = history.hour(hours.start);
        if self.is_of_size() { first.start() } else { first.end() }
    }

    /// Injects it.
    pub(crate) fn inject(self, history: &mut History, hours: Range<usize>) {
        for hour in &mut history.hours[hours] {
            let (numerator, denominator) = match self {
                Self::OutageOfAnHour | Self::OutageOfADate => (0, 1),
                Self::HalfLostInSixHours | Self::HalfLostInADate => (1, 2),
                Self::DoubledInADate => (2, 1),
                Self::LateSeal | Self::NoSeal => (1, 1),
            };
            hour.bytes = hour.bytes * numerator / denominator;
            hour.events = hour.events * numerator / denominator;
            match self {
                Self::LateSeal => hour.sealed_minutes_after = Some(LATE_MINUTES),
                Self::NoSeal => hour.sealed_minutes_after = None,
                _ => {}
            }
        }
    }
}

/// A history without incidents, in which every alarm is false.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Baseline {
    AsItIs,
    /// Only 55 % on each Saturday and Sunday.
    WeekendDip,
    /// Each week 5 % more than the week before.
    Growth,
}

impl Baseline {
    pub(crate) const ALL: [Self; 3] = [Self::AsItIs, Self::WeekendDip, Self::Growth];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AsItIs => "false alarms a week",
            Self::WeekendDip => "with a weekend dip",
            Self::Growth => "with growth",
        }
    }

    pub(crate) fn of(self, history: &History) -> History {
        let mut changed = history.clone();
        let mut growth = 1.0;
        for (at, hour) in changed.hours.iter_mut().enumerate() {
            if at > 0 && at % (7 * 24) == 0 {
                growth *= 1.05;
            }
            let factor = match self {
                Self::AsItIs => continue,
                Self::WeekendDip => {
                    if weekday(history.hour(at).start()) >= 5 {
                        0.55
                    } else {
                        1.0
                    }
                }
                Self::Growth => growth,
            };
            hour.bytes = (hour.bytes as f64 * factor) as u64;
            hour.events = (hour.events as f64 * factor) as u64;
        }
        changed
    }
}

/// From Monday, 0, to Sunday, 6. The first of January 1970 was a Thursday.
const fn weekday(time: UnixMillis) -> i64 {
    (time.0.div_euclid(86_400_000) + 3).rem_euclid(7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn dates_are_whole_and_hours_are_where_they_begin() {
        let history = synthetic::history(2, 1);
        assert_eq!(Incident::OutageOfADate.hours(&history, 30), 24..48);
        assert_eq!(Incident::HalfLostInSixHours.hours(&history, 30), 30..36);
        assert_eq!(Incident::NoSeal.hours(&history, 335), 335..336);
        assert_eq!(Incident::HalfLostInSixHours.hours(&history, 335), 335..336);
    }

    #[test]
    fn incidents_change_their_hours_and_no_others() {
        let history = synthetic::history(2, 1);
        for incident in Incident::ALL {
            let mut changed = history.clone();
            let hours = incident.hours(&history, 30);
            incident.inject(&mut changed, hours.clone());
            for at in 0..history.hours.len() {
                assert_eq!(changed.hours[at] != history.hours[at], hours.contains(&at), "{incident:?} {at}");
            }
        }
    }

    #[test]
    fn baselines_keep_their_rhythm() {
        let history = synthetic::history(2, 1);
        let part = |changed: &History, at: usize| changed.hours[at].bytes as f64 / history.hours[at].bytes as f64;
        let dip = Baseline::WeekendDip.of(&history);
        for (at, expected) in [(0, 1.0), (119, 1.0), (120, 0.55), (167, 0.55), (168, 1.0)] {
            assert!((part(&dip, at) - expected).abs() < 1e-6, "{at}");
        }
        let growth = Baseline::Growth.of(&history);
        for (at, expected) in [(0, 1.0), (167, 1.0), (168, 1.05), (335, 1.05)] {
            assert!((part(&growth, at) - expected).abs() < 1e-6, "{at}");
        }
    }
}
