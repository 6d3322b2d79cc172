//! Numbers, units, durations and comparisons as a person reads them.

use std::time::Duration;

use shared::metric::{Metric, NAMESPACE, Unit};
use shared::timestamp::UnixMillis;

/// The unit of one of our metrics, or of AWS's that the template's alarms watch.
pub(crate) fn unit(namespace: &str, metric: &str) -> Option<Unit> {
    if namespace == NAMESPACE {
        return Metric::all().find(|known| known.as_str() == metric).map(Metric::unit);
    }
    match metric {
        "Duration" | "IteratorAge" | "GetRecords.IteratorAgeMilliseconds" => Some(Unit::Milliseconds),
        "Errors"
        | "Throttles"
        | "Invocations"
        | "WriteProvisionedThroughputExceeded"
        | "OnFailureDestinationDeliveredEventCount"
        | "DroppedEventCount"
        | "NumberOfObjects" => Some(Unit::Count),
        _ => None,
    }
}

/// `3`, `1,234.5`, with the unit: `60,000 ms`.
pub(crate) fn value(number: f64, unit: Option<Unit>) -> String {
    let text = grouped(number);
    match unit {
        Some(Unit::Count) => format!("{text} (count)"),
        Some(Unit::Bytes) => format!("{text} bytes"),
        Some(Unit::Microseconds) => format!("{text} µs"),
        Some(Unit::Milliseconds) => format!("{text} ms"),
        Some(Unit::Seconds) => format!("{text} s"),
        Some(Unit::Percent) => format!("{text} %"),
        Some(Unit::None) | None => text,
    }
}

/// With commas between thousands, and at most two decimals.
pub(crate) fn grouped(number: f64) -> String {
    let text = format!("{:.2}", number.abs());
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let mut out = String::new();
    if number < 0.0 && text != "0.00" {
        out.push('-');
    }
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    let decimals = decimals.trim_end_matches('0');
    if !decimals.is_empty() {
        out.push('.');
        out.push_str(decimals);
    }
    out
}

/// The expected value: the opposite of the alarm's condition.
pub(crate) fn expected(comparison: &str, threshold: f64, unit: Option<Unit>) -> String {
    let threshold = value(threshold, unit);
    match comparison {
        "GreaterThanThreshold" => format!("at most {threshold}"),
        "GreaterThanOrEqualToThreshold" => format!("less than {threshold}"),
        "LessThanThreshold" => format!("at least {threshold}"),
        "LessThanOrEqualToThreshold" => format!("more than {threshold}"),
        _ => "within its usual range".into(),
    }
}

/// `45 s`, `23 min`, `2 h 5 min`, `3 d 4 h`: at most two units.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    let two = |first: String, rest: u64, unit: &str| if rest == 0 { first } else { format!("{first} {rest} {unit}") };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => two(format!("{hours} h"), minutes, "min"),
        (days, hours, _) => two(format!("{days} d"), hours, "h"),
    }
}

/// The time from one to the other; zero if it is negative.
pub(crate) fn between(from: UnixMillis, to: UnixMillis) -> Duration {
    Duration::from_millis(u64::try_from(to.0.saturating_sub(from.0)).unwrap_or(0))
}

/// `2026-11-21 09:40:12 UTC`
pub(crate) fn moment(time: UnixMillis) -> String {
    let text = time.rfc3339();
    format!("{} {} UTC", &text[..10], &text[11..19])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(0.0, "0")]
    #[case(-0.001, "0")]
    #[case(3.0, "3")]
    #[case(999.5, "999.5")]
    #[case(1_000.0, "1,000")]
    #[case(-1_234_567.891, "-1,234,567.89")]
    fn numbers_are_grouped(#[case] number: f64, #[case] text: &str) {
        assert_eq!(grouped(number), text);
    }

    #[rstest]
    #[case(0, "0 s")]
    #[case(59, "59 s")]
    #[case(60, "1 min")]
    #[case(3_599, "59 min")]
    #[case(3_600, "1 h")]
    #[case(7_500, "2 h 5 min")]
    #[case(86_400, "1 d")]
    #[case(273_600, "3 d 4 h")]
    fn durations_are_short(#[case] seconds: u64, #[case] text: &str) {
        assert_eq!(duration(Duration::from_secs(seconds)), text);
    }

    #[rstest]
    #[case("GreaterThanThreshold", "at most 60 s")]
    #[case("GreaterThanOrEqualToThreshold", "less than 60 s")]
    #[case("LessThanThreshold", "at least 60 s")]
    #[case("LessThanOrEqualToThreshold", "more than 60 s")]
    #[case("GreaterThanUpperThreshold", "within its usual range")]
    fn the_expected_value_is_the_opposite_of_the_condition(#[case] comparison: &str, #[case] text: &str) {
        assert_eq!(expected(comparison, 60.0, Some(Unit::Seconds)), text);
    }

    #[test]
    fn units_are_known_by_name() {
        assert_eq!(unit("Playhead", "DataFreshness"), Some(Unit::Seconds));
        assert_eq!(unit("Playhead", "NoSuchMetric"), None);
        assert_eq!(unit("AWS/Lambda", "Duration"), Some(Unit::Milliseconds));
        assert_eq!(value(0.5, Some(Unit::Percent)), "0.5 %");
    }
}
