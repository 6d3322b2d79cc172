//! Schedule expressions: `rate(…)` and AWS's `cron(…)`, in UTC.
//! <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-scheduled-rule-pattern.html>

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use shared::timestamp::{MILLIS_PER_MINUTE, UnixMillis};

#[derive(Debug, Clone)]
pub struct Expression {
    text: String,
    times: Times,
}

#[derive(Debug, Clone)]
enum Times {
    EveryMs(i64),
    /// Boxed, as it is ten times the size of the other.
    Cron(Box<Cron>),
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ExpressionError {
    #[error("is {0:?}; it takes rate(5 minutes) or cron(20 * * * ? *)")]
    Form(String),
    #[error("is {0:?}; cron takes six fields: minutes, hours, day of month, month, day of week, year")]
    Fields(String),
    #[error("is {0:?}; either the day of month or the day of week must be ?, and not both")]
    Days(String),
    #[error("is {0:?}: {1}")]
    Cron(String, croner::errors::CronError),
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        let form = || ExpressionError::Form(text.to_owned());
        let (kind, fields) = text.trim().strip_suffix(')').and_then(|text| text.split_once('(')).ok_or_else(form)?;
        let times = match kind {
            "rate" => Times::EveryMs(rate(fields).ok_or_else(form)?),
            "cron" => Times::Cron(Box::new(cron(fields)?)),
            _ => return Err(form()),
        };
        Ok(Self { text: text.to_owned(), times })
    }
}

/// `5 minutes`, `1 hour`, `2 days`; `None` for any other text.
fn rate(fields: &str) -> Option<i64> {
    let (number, unit) = fields.trim().split_once(' ')?;
    let number: i64 = number.parse().ok().filter(|number| *number > 0)?;
    let minutes = match unit.trim() {
        "minute" | "minutes" => 1,
        "hour" | "hours" => 60,
        "day" | "days" => 24 * 60,
        _ => return None,
    };
    number.checked_mul(minutes * MILLIS_PER_MINUTE)
}

/// AWS's six fields as croner takes them: with seconds, `*` for `?`, and weeks that begin with Sunday as 1.
fn cron(text: &str) -> Result<Cron, ExpressionError> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minutes, hours, day, month, weekday, year] = fields[..] else {
        return Err(ExpressionError::Fields(text.to_owned()));
    };
    if (day == "?") == (weekday == "?") {
        return Err(ExpressionError::Days(text.to_owned()));
    }
    let fields = [(minutes, 59), (hours, 23), (day, 31), (month, 12), (weekday, 7), (year, 2199)];
    let fields = fields.map(|(field, last)| if field == "?" { "*".to_owned() } else { to_the_end(field, last) });
    let pattern = format!("0 {}", fields.join(" "));
    let parser =
        CronParser::builder().seconds(Seconds::Required).year(Year::Required).alternative_weekdays(true).build();
    parser.parse(&pattern).map_err(|problem| ExpressionError::Cron(text.to_owned(), problem))
}

/// AWS's `5/10` counts from 5 to the end of the field's range; croner needs that end.
fn to_the_end(field: &str, last: u32) -> String {
    let part = |part: &str| match part.split_once('/') {
        Some((first, step)) if first.parse::<u32>().is_ok() => format!("{first}-{last}/{step}"),
        _ => part.to_owned(),
    };
    field.split(',').map(part).collect::<Vec<_>>().join(",")
}

impl Expression {
    /// The first time after `after` at which it is due, if any. Rates count from `start`.
    pub fn next(&self, start: UnixMillis, after: UnixMillis) -> Option<UnixMillis> {
        match &self.times {
            Times::EveryMs(every_ms) => {
                let done = (after.0 - start.0).div_euclid(*every_ms);
                Some(UnixMillis(start.0 + (done + 1).max(1) * every_ms))
            }
            Times::Cron(cron) => cron.find_next_occurrence(&date_time(after)?, false).ok().map(millis),
        }
    }

    /// The last time at which it is due, up to and including `until`, if any.
    pub fn newest(&self, start: UnixMillis, until: UnixMillis) -> Option<UnixMillis> {
        match &self.times {
            Times::EveryMs(every_ms) => {
                let due = (until.0 - start.0).div_euclid(*every_ms);
                (due > 0).then_some(UnixMillis(start.0 + due * every_ms))
            }
            Times::Cron(cron) => {
                // croner's "previous" excludes the time itself, which has no fraction of a second.
                let past = date_time(UnixMillis(until.0.div_euclid(1000) * 1000 + 1000))?;
                cron.find_previous_occurrence(&past, false).ok().map(millis)
            }
        }
    }
}

fn date_time(time: UnixMillis) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(time.0)
}

fn millis(time: DateTime<Utc>) -> UnixMillis {
    UnixMillis(time.timestamp_millis())
}

impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn time(text: &str) -> UnixMillis {
        UnixMillis::parse(&format!("{text}.000Z")).unwrap()
    }

    // 2026-11-18 is a Wednesday.
    #[rstest]
    #[case("cron(20 * * * ? *)", "2026-11-18T00:00:00", "2026-11-18T00:20:00")]
    #[case("cron(20 * * * ? *)", "2026-11-18T00:20:00", "2026-11-18T01:20:00")]
    #[case("cron(* * * * ? *)", "2026-11-18T00:00:59", "2026-11-18T00:01:00")]
    #[case("cron(0/15 8-9 * * ? *)", "2026-11-18T09:45:00", "2026-11-19T08:00:00")]
    #[case("cron(0 10 ? * 1 *)", "2026-11-18T00:00:00", "2026-11-22T10:00:00")]
    #[case("cron(0 10 ? * MON-FRI *)", "2026-11-20T10:00:00", "2026-11-23T10:00:00")]
    #[case("cron(0 0 L * ? *)", "2026-11-18T00:00:00", "2026-11-30T00:00:00")]
    #[case("cron(0 0 1 1 ? 2028)", "2026-11-18T00:00:00", "2028-01-01T00:00:00")]
    #[case("rate(5 minutes)", "2026-11-18T00:04:59", "2026-11-18T00:05:00")]
    #[case("rate(5 minutes)", "2026-11-18T00:05:00", "2026-11-18T00:10:00")]
    #[case("rate(1 hour)", "2026-11-18T00:00:00", "2026-11-18T01:00:00")]
    #[case("rate(2 days)", "2026-11-18T00:00:00", "2026-11-20T00:00:00")]
    fn the_next_time_is_found_and_is_the_newest_when_it_comes(
        #[case] text: &str,
        #[case] after: &str,
        #[case] next: &str,
    ) {
        let (expression, start): (Expression, _) = (text.parse().unwrap(), time("2026-11-18T00:00:00"));
        let due = expression.next(start, time(after)).unwrap();
        assert_eq!(due.rfc3339(), time(next).rfc3339());
        assert_eq!(expression.newest(start, due), Some(due));
        assert_eq!(expression.newest(start, UnixMillis(due.0 + 999)), Some(due));
        assert_ne!(expression.newest(start, UnixMillis(due.0 - 1)), Some(due));
    }

    #[test]
    fn a_rate_is_not_due_at_its_start() {
        let (expression, start): (Expression, _) = ("rate(1 minute)".parse().unwrap(), time("2026-11-18T00:00:00"));
        assert_eq!(expression.newest(start, UnixMillis(start.0 + 59_999)), None);
    }

    #[test]
    fn a_year_that_is_over_is_never_due() {
        let expression: Expression = "cron(0 0 1 1 ? 2020)".parse().unwrap();
        let now = time("2026-11-18T00:00:00");
        assert_eq!(expression.next(now, now), None);
    }

    #[rstest]
    #[case("")]
    #[case("20 * * * ? *")]
    #[case("at(2026-11-18T00:00:00)")]
    #[case("rate(0 minutes)")]
    #[case("rate(5)")]
    #[case("rate(5 weeks)")]
    #[case("cron(20 * * * *)")]
    #[case("cron(20 * * * * *)")]
    #[case("cron(20 * ? * ? *)")]
    #[case("cron(61 * * * ? *)")]
    fn invalid_expressions_are_errors(#[case] text: &str) {
        assert!(text.parse::<Expression>().is_err());
    }
}
