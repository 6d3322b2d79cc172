use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::report::sample;

/// The sample has 100 POSTs in two seconds: 99 as expected, one 503; p99 9 ms, the largest 20 ms; one event missing.
fn judge(text: &str) -> (Option<String>, bool) {
    let outcome = text.parse::<Threshold>().unwrap().judge(&sample());
    assert_eq!(outcome.threshold, text);
    (outcome.found, outcome.holds)
}

#[rstest]
#[case("p99<9ms", "9.00ms", false)]
#[case("p99<=9ms", "9.00ms", true)]
#[case("p99<9001us", "9.00ms", true)]
#[case("p99>=9ms", "9.00ms", true)]
#[case("p99>9ms", "9.00ms", false)]
#[case("p99=9ms", "9.00ms", true)]
#[case("p50<1s", "1.00ms", true)]
#[case("max<20ms", "20.00ms", false)]
#[case("mean<2ms", "2.00ms", false)]
#[case("p99.99<=20ms", "20.00ms", true)]
#[case("service_p90<4ms", "4.00ms", false)]
#[case("landed_max<=20ms", "20.00ms", true)]
#[case("errors<1%", "1.0000%", false)]
#[case("errors<=0.01", "1.0000%", true)]
#[case("missing=0", "1", false)]
#[case("missing<2", "1", true)]
#[case("doubled=0", "0", true)]
#[case("rate>=49.5", "49.5/s", true)]
#[case("rate>49.5/s", "49.5/s", false)]
#[case("events_rate>49", "49.5/s", true)]
fn limits_hold_on_one_side(#[case] text: &str, #[case] found: &str, #[case] holds: bool) {
    assert_eq!(judge(text), (Some(found.to_owned()), holds));
}

#[test]
fn what_is_answered_after_the_end_is_not_carried() {
    let mut result = sample();
    result.seconds[1].answered = 0;
    result.seconds.push(Second { answered: 50, ..Second::default() });
    let outcome = "rate>25".parse::<Threshold>().unwrap().judge(&result);
    assert_eq!((outcome.found.as_deref(), outcome.holds), (Some("24.8/s"), false));
}

#[rstest]
#[case("missing=0")]
#[case("doubled<=5")]
#[case("landed_p99<1h")]
#[case("misplaced=0")]
fn what_can_t_be_known_does_not_hold(#[case] text: &str) {
    let mut result = sample();
    result.truth = None;
    let outcome = text.parse::<Threshold>().unwrap().judge(&result);
    assert_eq!((outcome.found, outcome.holds), (None, false));
}

#[test]
fn times_of_nothing_are_not_known() {
    let mut result = sample();
    result.latency = Distribution::default();
    for text in ["p99<1s", "mean<1s", "max<1s"] {
        assert!(!text.parse::<Threshold>().unwrap().judge(&result).holds);
    }
}

#[rstest]
#[case("p99", "is no threshold")]
#[case("", "is no threshold")]
#[case("p98<5ms", "nothing that is measured")]
#[case("service_errors<1%", "nothing that is measured")]
#[case("<5ms", "nothing that is measured")]
#[case("p99<50", "a time has a unit")]
#[case("p99<fast", "a time has a unit")]
#[case("p99==5ms", "a time has a unit")]
#[case("errors<101%", "a share is from 0 to 1")]
#[case("errors<5ms", "a share is from 0 to 1")]
#[case("errors<-1%", "a share is from 0 to 1")]
#[case("missing=0.5", "a count is a whole number")]
#[case("missing=1%", "a count is a whole number")]
#[case("rate>10ms", "a rate is a number")]
fn what_is_wrong_is_said(#[case] text: &str, #[case] expected: &str) {
    let error = text.parse::<Threshold>().unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn lists_have_commas_or_lines_and_comments() {
    let texts = |list: &str| parse(list).map(|found| found.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(texts("p99<50ms, errors<0.1%"), Ok(vec!["p99<50ms".into(), "errors<0.1%".into()]));
    assert_eq!(texts("# ours\np99<50ms # soft\n\nmissing=0\n"), Ok(vec!["p99<50ms".into(), "missing=0".into()]));
    assert!(texts("p99<50ms\nnothing").is_err());
    assert_eq!(usual(true).unwrap().len(), 4);
    assert_eq!(usual(false).unwrap().len(), 1);
}

proptest! {
    #[test]
    fn any_text_is_a_threshold_or_an_error(text in "[a-z0-9_.<>= %]{0,20}|\\PC{0,10}") {
        if let Ok(threshold) = text.parse::<Threshold>() {
            prop_assert_eq!(threshold.to_string(), text.trim());
        }
    }
}
