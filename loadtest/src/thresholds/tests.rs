use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::result::Distribution;
use crate::result::tests::sample;

pub(crate) fn parsed(text: &str) -> Vec<Threshold> {
    parse(text, in_unit).unwrap()
}

fn one(text: &str) -> Threshold {
    Threshold::parse(text, in_unit).unwrap()
}

/// The sample has 100 POSTs in two seconds: 99 as expected, one 503; p99 9 ms, the largest 20 ms; one event missing.
fn judge(text: &str) -> (Option<String>, bool) {
    let outcome = one(text).judge(&sample());
    assert_eq!(outcome.threshold, text);
    (outcome.found, outcome.holds)
}

#[rstest]
#[case("p99<9ms", "9 ms", false)]
#[case("p99<=9ms", "9 ms", true)]
#[case("p99<9001us", "9 ms", true)]
#[case("p99>=9ms", "9 ms", true)]
#[case("p99>9ms", "9 ms", false)]
#[case("p99=9ms", "9 ms", true)]
#[case("p50<1s", "1 ms", true)]
#[case("max<20ms", "20 ms", false)]
#[case("mean<2ms", "2 ms", false)]
#[case("p99.99<=20ms", "20 ms", true)]
#[case("service_p90<4ms", "4 ms", false)]
#[case("landed_max<=20ms", "20 ms", true)]
#[case("errors<1%", "1 %", false)]
#[case("errors<=0.01", "1 %", true)]
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
fn answers_after_the_end_do_not_count_for_the_rate() {
    let mut result = sample();
    result.seconds[1].answered = 0;
    result.seconds.push(Second { answered: 50, ..Second::default() });
    let outcome = one("rate>25").judge(&result);
    assert_eq!((outcome.found.as_deref(), outcome.holds), (Some("24.8/s"), false));
}

#[rstest]
#[case("missing=0")]
#[case("doubled<=5")]
#[case("landed_p99<1h")]
#[case("misplaced=0")]
fn a_threshold_on_an_unknown_figure_does_not_hold(#[case] text: &str) {
    let mut result = sample();
    result.truth = None;
    let outcome = one(text).judge(&result);
    assert_eq!((outcome.found, outcome.holds), (None, false));
}

#[test]
fn times_are_unknown_without_posts() {
    let mut result = sample();
    result.latency = Distribution::default();
    for text in ["p99<1s", "mean<1s", "max<1s"] {
        assert!(!one(text).judge(&result).holds);
    }
}

#[rstest]
#[case("p99", "is not a threshold")]
#[case("", "is not a threshold")]
#[case("p98<5ms", "is not measured")]
#[case("service_errors<1%", "is not measured")]
#[case("<5ms", "is not measured")]
#[case("p99<50", "a time has a unit")]
#[case("p99<fast", "a time has a unit")]
#[case("p99==5ms", "a time has a unit")]
#[case("errors<101%", "a share is from 0 to 1")]
#[case("errors<5ms", "a share is from 0 to 1")]
#[case("errors<-1%", "a share is from 0 to 1")]
#[case("missing=0.5", "a count is a whole number")]
#[case("missing=1%", "a count is a whole number")]
#[case("rate>10ms", "a rate is a number")]
fn an_error_says_what_is_wrong(#[case] text: &str, #[case] expected: &str) {
    let error = Threshold::parse(text, in_unit).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn lists_have_commas_or_lines_and_comments() {
    let texts = |list: &str| parsed(list).into_iter().map(|threshold| threshold.text).collect::<Vec<_>>();
    assert_eq!(texts("p99<50ms, errors<0.1%"), ["p99<50ms", "errors<0.1%"]);
    assert_eq!(texts("# ours\np99<50ms # soft\n\nmissing=0\n"), ["p99<50ms", "missing=0"]);
    assert!(parse("p99<50ms\nnothing", in_unit).is_err());
}

#[rstest]
#[case(&[], false, &["errors<0.1%"])]
#[case(&[], true, &["errors<0.1%", "missing=0", "doubled=0", "misplaced=0"])]
#[case(&["errors<5%", "p99<1s,missing<9"], true, &["errors<5%", "p99<1s", "missing<9", "doubled=0", "misplaced=0"])]
fn defaults_apply_where_no_threshold_is_given(
    #[case] given: &[&str],
    #[case] reads_bucket: bool,
    #[case] expected: &[&str],
) {
    let found = with_defaults(parsed(&given.join("\n")), reads_bucket).unwrap();
    assert_eq!(found.iter().map(|threshold| threshold.text.as_str()).collect::<Vec<_>>(), expected);
}

#[rstest]
#[case("p99<1.1", true)]
#[case("p99<110%", true)]
#[case("rate>=0.95", true)]
#[case("errors<0.5", true)]
#[case("p99<50ms", false)]
#[case("p99<-1", false)]
#[case("nothing<1", false)]
fn limits_of_ratios_are_factors(#[case] text: &str, #[case] is_one: bool) {
    assert_eq!(parse(text, as_ratio).is_ok(), is_one);
}

proptest! {
    #[test]
    fn any_text_is_a_threshold_or_an_error(text in "[a-z0-9_.<>= %]{0,20}|\\PC{0,10}") {
        for value in [in_unit, as_ratio] {
            if let Ok(threshold) = Threshold::parse(&text, value) {
                prop_assert_eq!(threshold.text, text.clone());
            }
        }
    }
}
