//! What a rule expects of a partition, and what it found, for the log.

use crate::rules::rejected::MINIMUM_REJECTED;
use crate::rules::robust::Seasonal;
use crate::rules::size::{Limits, MINIMUM_WEEKS, Rule};

use super::Checked;

/// Expected and actual.
pub(super) fn explain(rule: Rule, checked: &Checked, limits: &Limits) -> (String, String) {
    match rule {
        Rule::Floor => {
            let minimum = limits.minimum_bytes(checked.partition);
            (format!("at least {minimum} bytes"), format!("{} bytes", checked.sizes.bytes))
        }
        Rule::Change => change(checked, limits.maximum_change_percent),
        Rule::SeasonalScore => score(checked, limits),
        Rule::RejectedShare => rejected(checked, limits.maximum_rejected_percent),
    }
}

fn change(checked: &Checked, maximum: f64) -> (String, String) {
    let sizes = &checked.sizes;
    let against = |name: &str, bytes: Option<u64>, percent: Option<f64>| match (bytes, percent) {
        (Some(bytes), Some(percent)) => format!("{percent:+.1} % against {bytes} bytes {name}"),
        (Some(_), None) => format!("nothing {name}, of which there is no percentage"),
        (None, _) => format!("insufficient_history: not sealed {name}"),
    };
    let measured = checked.measured.change;
    let day = against("the day before", sizes.day_before, measured.day_before);
    let week = against("the week before", sizes.weeks_before[0], measured.week_before);
    let expected = format!("at most {maximum} % up or down, against the day before or the week before");
    (expected, format!("{} bytes: {day}; {week}", sizes.bytes))
}

fn rejected(checked: &Checked, maximum: f64) -> (String, String) {
    let lines = checked.lines;
    let expected = format!("at most {maximum} % of the lines rejected, or fewer than {MINIMUM_REJECTED} lines");
    let percent = lines.percent(lines.rejected);
    (expected, format!("{percent:.1} %: {} rejected lines beside {} events", lines.rejected, lines.events))
}

fn score(checked: &Checked, limits: &Limits) -> (String, String) {
    let bytes = checked.sizes.bytes;
    let (maximum, percent) = (limits.maximum_seasonal_score, limits.minimum_seasonal_percent);
    let expected = format!(
        "a score from -{maximum} to {maximum} robust standard deviations, or at most {percent} % from the median or the week before"
    );
    let actual = match checked.measured.seasonal {
        Seasonal::Score { score, median, deviation, points } => {
            format!(
                "{bytes} bytes: score {score:+.1}, of {points} weeks with a median of {median:.0} bytes \
                 and a robust standard deviation of {deviation:.0} bytes"
            )
        }
        Seasonal::InsufficientHistory { points } => {
            format!("{bytes} bytes: insufficient_history: {points} earlier weeks; it takes {MINIMUM_WEEKS}")
        }
        Seasonal::NoSpread { median, points } => format!(
            "{bytes} bytes: insufficient_history: most of {points} earlier weeks have the same {median:.0} bytes, \
             which gives no measure"
        ),
    };
    (expected, actual)
}
