//! A partition that is sealed and judged: an hour or a date.

use shared::object::success_key;
use shared::timestamp::{UnixMillis, UtcDate, UtcHour};

/// An hour, or a date with all of its hours. Hours sort before dates, and each kind by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Partition {
    Hour(UtcHour),
    Date(UtcDate),
}

impl Partition {
    /// The partition whose `_SUCCESS` has this key; `None` for any other key.
    pub fn of_success_key(key: &str) -> Option<Self> {
        Self::parse(key.strip_prefix("events/")?.strip_suffix("/_SUCCESS")?)
    }

    /// The inverse of [`Partition::text`]; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let hour = UtcHour::parse(text).map(Self::Hour);
        hour.or_else(|| UtcDate::parse(text).map(Self::Date)).filter(|partition| partition.text() == text)
    }

    /// `dt=2026-11-21/hour=09` or `dt=2026-11-21`
    pub fn text(self) -> String {
        match self {
            Self::Hour(hour) => hour.partition(),
            Self::Date(date) => date.partition(),
        }
    }

    /// The key of its `_SUCCESS`.
    pub fn success_key(self) -> String {
        success_key(&self.text())
    }

    /// The first millisecond after it.
    pub const fn end(self) -> UnixMillis {
        match self {
            Self::Hour(hour) => hour.end(),
            Self::Date(date) => date.end(),
        }
    }

    /// The same hour of an earlier day, or the earlier date.
    pub(crate) const fn days_before(self, days: i64) -> Self {
        match self {
            Self::Hour(hour) => Self::Hour(hour.plus(-24 * days)),
            Self::Date(date) => Self::Date(date.plus(-days)),
        }
    }

    /// The value of the metrics' dimension `Key`, the same for all partitions of a kind.
    pub const fn pattern(self) -> &'static str {
        match self {
            Self::Hour(_) => "events/dt=*/hour=*/",
            Self::Date(_) => "events/dt=*/",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("events/dt=2026-11-21/hour=09/_SUCCESS", "dt=2026-11-21/hour=09", "2026-11-21T10:00:00.000Z")]
    #[case("events/dt=2026-11-21/_SUCCESS", "dt=2026-11-21", "2026-11-22T00:00:00.000Z")]
    fn success_keys_are_read(#[case] key: &str, #[case] text: &str, #[case] end: &str) {
        let partition = Partition::of_success_key(key).unwrap();
        assert_eq!((&*partition.text(), &*partition.success_key()), (text, key));
        assert_eq!(partition.end().rfc3339(), end);
    }

    #[rstest]
    #[case("events/_SUCCESS")]
    #[case("events/dt=2026-11-21/hour=09/_MANIFEST.json")]
    #[case("events/dt=2026-11-21/hour=09/x/_SUCCESS")]
    #[case("rejected/dt=2026-11-21/_SUCCESS")]
    #[case("events/dt=2026-11-21/hour=09_SUCCESS")]
    #[case("events/dt=2026-02-30/_SUCCESS")]
    fn other_keys_are_not_success_keys(#[case] key: &str) {
        assert_eq!(Partition::of_success_key(key), None);
    }

    #[test]
    fn days_are_counted_back() {
        let hour = Partition::of_success_key("events/dt=2026-11-01/hour=09/_SUCCESS").unwrap();
        assert_eq!(hour.days_before(7).text(), "dt=2026-10-25/hour=09");
        let date = Partition::of_success_key("events/dt=2026-11-01/_SUCCESS").unwrap();
        assert_eq!(date.days_before(1).text(), "dt=2026-10-31");
    }
}
