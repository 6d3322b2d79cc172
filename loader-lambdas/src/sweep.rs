//! Which hours a loader's schedule, each quarter of an hour, looks at: those that a notification did not bring to an end.

use std::ops::Range;

use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis, UtcHour};

/// Hours back, each time and once an hour: as far as an hour can be sealed, which the stream's seven days bound.
const SWEPT_HOURS: i64 = 48;
const SWEPT_HOURLY: i64 = 8 * 24;

/// The time between two runs of the schedule.
pub(crate) const QUARTER_MILLIS: i64 = 15 * MILLIS_PER_MINUTE;

/// Whether no later run of the schedule looks at the hour.
pub(crate) fn is_past(hour: UtcHour, at: UnixMillis) -> bool {
    hour <= at.hour().plus(-SWEPT_HOURLY)
}

/// The hours to look at, counted from that of the event.
pub(crate) fn swept(at: UnixMillis) -> Range<i64> {
    let is_first_of_hour = at.0 < at.hour().start().0 + QUARTER_MILLIS;
    if is_first_of_hour { -SWEPT_HOURLY..0 } else { -SWEPT_HOURS..0 }
}
