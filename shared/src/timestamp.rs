//! Times as they stand in lines, metadata and object keys: UTC, milliseconds.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

const RFC3339_MILLIS: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

/// The hour of a [`UnixMillis`] in UTC: the partition that an object lands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcHour {
    hours_since_epoch: i64,
}

/// 60,000.
pub const MILLIS_PER_MINUTE: i64 = 60_000;
/// 3,600,000.
pub const MILLIS_PER_HOUR: i64 = 60 * MILLIS_PER_MINUTE;

/// Years 0001 to 9999: what four digits hold.
const MILLIS_RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=UnixMillis::LATEST.0;

impl UnixMillis {
    /// The last millisecond of the year 9999.
    pub const LATEST: Self = Self(253_402_300_799_999);

    /// From a Kinesis `approximateArrivalTimestamp`: seconds with a fraction.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Self {
        // `as` saturates and takes NaN as 0, so that no record's timestamp can fail a batch.
        #[allow(clippy::cast_possible_truncation)]
        Self((seconds * 1000.0).round() as i64)
    }

    /// The hour that this time lies in.
    #[must_use]
    pub fn hour(self) -> UtcHour {
        UtcHour { hours_since_epoch: self.clamped().div_euclid(MILLIS_PER_HOUR) }
    }

    /// `2026-11-21T09:00:00.123Z`. Times outside the years 1 to 9999 are shown as the nearest end.
    #[must_use]
    pub fn rfc3339(self) -> String {
        self.date_time().format(RFC3339_MILLIS).unwrap_or_else(|_| String::from("1970-01-01T00:00:00.000Z"))
    }

    /// The inverse of [`UnixMillis::rfc3339`]; `None` for any other form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parsed = time::PrimitiveDateTime::parse(text, RFC3339_MILLIS).ok()?.assume_utc();
        i64::try_from(parsed.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Self)
    }

    /// A time as AWS services write it: RFC 3339 with any number of decimals (Kinesis and Lambda three or more, EventBridge
    /// none), and CloudWatch's `+0000` for the offset. What is less than a millisecond is cut off.
    #[must_use]
    pub fn parse_aws(text: &str) -> Option<Self> {
        let offset = text.strip_suffix("+0000").map(|local| format!("{local}Z"));
        let parsed = OffsetDateTime::parse(offset.as_deref().unwrap_or(text), &Rfc3339).ok()?;
        i64::try_from(parsed.unix_timestamp_nanos().div_euclid(1_000_000)).ok().map(Self)
    }

    fn clamped(self) -> i64 {
        self.0.clamp(*MILLIS_RANGE.start(), *MILLIS_RANGE.end())
    }

    fn date_time(self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.clamped()) * 1_000_000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

/// As [`UnixMillis::rfc3339`].
impl fmt::Display for UnixMillis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.rfc3339())
    }
}

/// As [`UnixMillis::rfc3339`].
impl Serialize for UnixMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.rfc3339())
    }
}

/// As [`UnixMillis::parse`].
impl<'de> Deserialize<'de> for UnixMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is not a time like 2026-11-21T09:00:00.123Z")))
    }
}

const HOURS_PER_DAY: i64 = 24;

impl UtcHour {
    /// `dt=2026-11-21/hour=09`: Hive's way of naming partitions, which Spark and Athena understand.
    #[must_use]
    pub fn partition(self) -> String {
        format!("{}/hour={:02}", self.date().partition(), self.of_day())
    }

    /// The inverse of [`UtcHour::partition`]; `None` for any other text.
    #[must_use]
    pub fn parse(partition: &str) -> Option<Self> {
        let (date, hour) = partition.split_once("/hour=")?;
        let date = date.strip_prefix("dt=")?;
        Some(UnixMillis::parse(&format!("{date}T{hour}:00:00.000Z"))?.hour())
    }

    /// 0 to 23.
    #[must_use]
    pub const fn of_day(self) -> i64 {
        self.hours_since_epoch.rem_euclid(HOURS_PER_DAY)
    }

    /// Its first millisecond.
    #[must_use]
    pub const fn start(self) -> UnixMillis {
        UnixMillis(self.hours_since_epoch * MILLIS_PER_HOUR)
    }

    /// The first millisecond after it.
    #[must_use]
    pub const fn end(self) -> UnixMillis {
        self.plus(1).start()
    }

    /// So many hours later, or earlier if negative.
    #[must_use]
    pub const fn plus(self, hours: i64) -> Self {
        Self { hours_since_epoch: self.hours_since_epoch + hours }
    }

    /// The date that it belongs to.
    #[must_use]
    pub const fn date(self) -> UtcDate {
        UtcDate { days_since_epoch: self.hours_since_epoch.div_euclid(HOURS_PER_DAY) }
    }
}

/// A date in UTC: the partition of its 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcDate {
    days_since_epoch: i64,
}

impl UtcDate {
    /// `dt=2026-11-21`
    #[must_use]
    pub fn partition(self) -> String {
        let start = self.hour(0).start().date_time();
        format!("dt={:04}-{:02}-{:02}", start.year(), u8::from(start.month()), start.day())
    }

    /// The inverse of [`UtcDate::partition`]; `None` for any other text.
    #[must_use]
    pub fn parse(partition: &str) -> Option<Self> {
        UtcHour::parse(&format!("{partition}/hour=00")).map(UtcHour::date)
    }

    /// One of its hours, 0 to 23.
    #[must_use]
    pub const fn hour(self, of_day: i64) -> UtcHour {
        UtcHour { hours_since_epoch: self.days_since_epoch * HOURS_PER_DAY + of_day }
    }

    /// All 24, in order.
    pub fn hours(self) -> impl Iterator<Item = UtcHour> {
        (0..HOURS_PER_DAY).map(move |of_day| self.hour(of_day))
    }

    /// So many days later, or earlier if negative.
    #[must_use]
    pub const fn plus(self, days: i64) -> Self {
        Self { days_since_epoch: self.days_since_epoch + days }
    }

    /// The first millisecond after it.
    #[must_use]
    pub const fn end(self) -> UnixMillis {
        self.plus(1).hour(0).start()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn formats_and_partitions() {
        let time = UnixMillis(1_795_253_528_006);
        assert_eq!(time.rfc3339(), "2026-11-21T09:32:08.006Z");
        assert_eq!(time.hour().partition(), "dt=2026-11-21/hour=09");
        assert_eq!(UnixMillis::LATEST.rfc3339(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn an_hour_ends_before_its_last_millisecond_is_over() {
        let last = UnixMillis(1_795_255_199_999);
        assert_eq!(last.rfc3339(), "2026-11-21T09:59:59.999Z");
        assert_eq!(last.hour().partition(), "dt=2026-11-21/hour=09");
        assert_eq!(UnixMillis(last.0 + 1).hour().partition(), "dt=2026-11-21/hour=10");
    }

    #[test]
    fn hostile_seconds_are_harmless() {
        for seconds in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, -1e300] {
            let time = UnixMillis::from_seconds(seconds);
            assert_eq!(time.rfc3339().len(), 24, "{seconds}");
            assert_eq!(time.hour().partition().len(), 21, "{seconds}");
        }
    }

    #[test]
    fn times_of_aws_have_any_number_of_decimals_and_offsets_of_zero() {
        let time = |text| UnixMillis::parse_aws(text).map(UnixMillis::rfc3339);
        for text in ["2026-11-21T09:40:12Z", "2026-11-21T09:40:12.0Z", "2026-11-21T09:40:12.000+0000"] {
            assert_eq!(time(text).as_deref(), Some("2026-11-21T09:40:12.000Z"), "{text}");
        }
        let fractions =
            ["2026-11-21T09:40:12.345Z", "2026-11-21T09:40:12.345678901Z", "2026-11-21T09:40:12.345999999999Z"];
        for text in fractions.into_iter().chain(["2026-11-21T10:40:12.345+01:00"]) {
            assert_eq!(time(text).as_deref(), Some("2026-11-21T09:40:12.345Z"), "{text}");
        }
        for other in ["", "2026-11-21", "2026-11-21T09:40:12", "2026-11-21T09:40:12.Z", "2026-02-30T09:40:12Z", "+0000"]
        {
            assert_eq!(time(other), None, "{other}");
        }
    }

    #[test]
    fn hours_and_dates_know_their_neighbours() {
        let hour = UtcHour::parse("dt=2026-11-21/hour=23").unwrap();
        assert_eq!(hour.plus(1).partition(), "dt=2026-11-22/hour=00");
        assert_eq!(hour.end(), hour.plus(1).start());
        assert_eq!(hour.of_day(), 23);
        let date = UtcDate::parse("dt=2026-11-21").unwrap();
        assert_eq!(hour.date(), date);
        assert_eq!(date.hours().count(), 24);
        assert_eq!(date.hours().last(), Some(hour));
        assert_eq!(date.end(), hour.end());
        assert_eq!(date.plus(-21).partition(), "dt=2026-10-31");
        for other in ["", "dt=2026-11-21", "dt=2026-11-21/hour=24", "dt=2026-11-21/hour=9", "2026-11-21/hour=09"] {
            assert_eq!(UtcHour::parse(other), None, "{other}");
        }
        assert_eq!(UtcDate::parse("dt=2026-02-30"), None);
    }

    proptest! {
        #[test]
        fn partitions_are_read_back(millis in MILLIS_RANGE) {
            let hour = UnixMillis(millis).hour();
            prop_assert_eq!(UtcHour::parse(&hour.partition()), Some(hour));
            prop_assert_eq!(UtcDate::parse(&hour.date().partition()), Some(hour.date()));
        }

        #[test]
        fn parse_inverts_rfc3339(millis in MILLIS_RANGE) {
            let time = UnixMillis(millis);
            prop_assert_eq!(UnixMillis::parse(&time.rfc3339()), Some(time));
            prop_assert_eq!(UnixMillis::parse_aws(&time.rfc3339()), Some(time));
            let json = serde_json::to_string(&time).unwrap();
            prop_assert_eq!(serde_json::from_str::<UnixMillis>(&json).unwrap(), time);
        }

        #[test]
        fn parse_takes_any_text(text in ".{0,40}") {
            let _parsed = (UnixMillis::parse(&text), UnixMillis::parse_aws(&text));
        }
    }
}
