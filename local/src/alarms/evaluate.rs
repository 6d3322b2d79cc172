//! The state of an alarm, from the values of its periods: CloudWatch's rules for M out of N and for missing data.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html>
//!
//! Pure. CloudWatch looks at some more periods than it evaluates and does not say at how many; its example looks at five and
//! evaluates three. Here the range is what the caller hands over.

use strum::{EnumString, IntoStaticStr};

use crate::template::MissingData;

#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr)]
pub enum State {
    #[strum(serialize = "OK")]
    Ok,
    #[strum(serialize = "ALARM")]
    Alarm,
    #[strum(serialize = "INSUFFICIENT_DATA")]
    InsufficientData,
}

impl State {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// M out of N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    /// N
    pub(crate) evaluation_periods: usize,
    /// M
    pub(crate) datapoints_to_alarm: usize,
    pub(crate) missing_data: MissingData,
}

impl Rule {
    /// The state by periods, oldest first, of which each breaches, does not, or has no data.
    pub(crate) fn state(self, periods: &[Option<bool>], current: State) -> State {
        let real: Vec<bool> = periods.iter().copied().flatten().collect();
        let missing = self.evaluation_periods.saturating_sub(real.len());
        let evaluated = &real[real.len().saturating_sub(self.evaluation_periods)..];
        let breaching = evaluated.iter().filter(|breaches| **breaches).count();
        let alarm_from = |count: usize| if count >= self.datapoints_to_alarm { State::Alarm } else { State::Ok };
        match self.missing_data {
            _ if missing == 0 => alarm_from(breaching),
            MissingData::NotBreaching => alarm_from(breaching),
            MissingData::Breaching => alarm_from(breaching + missing),
            MissingData::Ignore if real.is_empty() || self.is_premature(periods) => current,
            MissingData::Missing if real.is_empty() => State::InsufficientData,
            MissingData::Missing if self.is_premature(periods) => State::Alarm,
            MissingData::Ignore | MissingData::Missing => alarm_from(breaching),
        }
    }

    /// Whether all that is known breaches, and began to so long ago that as many periods as are needed would have breached, had
    /// they had data.
    fn is_premature(self, periods: &[Option<bool>]) -> bool {
        let newest = &periods[periods.len().saturating_sub(self.evaluation_periods)..];
        let oldest = newest.iter().position(|period| *period == Some(true));
        let age = oldest.map(|position| newest.len() - position);
        age.is_some_and(|age| age >= self.datapoints_to_alarm) && periods.iter().flatten().all(|breaches| *breaches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const TREATMENTS: [MissingData; 4] =
        [MissingData::Missing, MissingData::Ignore, MissingData::Breaching, MissingData::NotBreaching];

    fn state(periods: &str, rule: Rule, current: State) -> State {
        let period = |character: &str| match character {
            "X" => Some(true),
            "0" => Some(false),
            _ => None,
        };
        rule.state(&periods.split(' ').map(period).collect::<Vec<_>>(), current)
    }

    /// The two tables of CloudWatch's page; `-` where the state stays.
    #[rstest]
    #[case(3, "0 - X - X", ["OK", "OK", "OK", "OK"])]
    #[case(3, "0 - - - -", ["OK", "OK", "OK", "OK"])]
    #[case(3, "- - - - -", ["INSUFFICIENT_DATA", "-", "ALARM", "OK"])]
    #[case(3, "0 X X - X", ["ALARM", "ALARM", "ALARM", "ALARM"])]
    #[case(3, "- - X - -", ["ALARM", "-", "ALARM", "OK"])]
    #[case(2, "0 - X - X", ["ALARM", "ALARM", "ALARM", "ALARM"])]
    #[case(2, "0 0 X 0 X", ["ALARM", "ALARM", "ALARM", "ALARM"])]
    #[case(2, "0 - X - -", ["OK", "OK", "ALARM", "OK"])]
    #[case(2, "- - - - 0", ["OK", "OK", "ALARM", "OK"])]
    #[case(2, "- - - X -", ["ALARM", "-", "ALARM", "OK"])]
    fn documented_examples(#[case] datapoints_to_alarm: usize, #[case] periods: &str, #[case] expected: [&str; 4]) {
        for (missing_data, expected) in TREATMENTS.into_iter().zip(expected) {
            let rule = Rule { evaluation_periods: 3, datapoints_to_alarm, missing_data };
            for current in [State::Ok, State::Alarm, State::InsufficientData] {
                let expected = expected.parse().unwrap_or(current);
                assert_eq!(state(periods, rule, current), expected, "{missing_data:?} from {current:?}");
            }
        }
    }

    #[rstest]
    #[case("- - - - X")]
    #[case("- - - X -")]
    fn a_value_that_may_be_followed_by_better_ones_is_no_alarm_yet(#[case] periods: &str) {
        let rule = Rule { evaluation_periods: 3, datapoints_to_alarm: 3, missing_data: MissingData::Missing };
        assert_eq!(state(periods, rule, State::Ok), State::Ok);
    }

    proptest! {
        #[test]
        fn without_missing_data_m_of_the_last_n_decide(
            periods in prop::collection::vec(any::<bool>(), 1..12),
            n in 1usize..12,
            m in 1usize..12,
            treatment in 0usize..4,
        ) {
            let n = n.min(periods.len());
            let rule =
                Rule { evaluation_periods: n, datapoints_to_alarm: m.min(n), missing_data: TREATMENTS[treatment] };
            let breaching = periods[periods.len() - n..].iter().filter(|one| **one).count();
            let expected = if breaching >= m.min(n) { State::Alarm } else { State::Ok };
            let all: Vec<_> = periods.iter().copied().map(Some).collect();
            prop_assert_eq!(rule.state(&all, State::InsufficientData), expected);
        }
    }
}
