use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn schedule(rate: &str, seconds: u64) -> Schedule {
    Schedule::new(&rate.parse().unwrap(), Duration::from_secs(seconds)).unwrap()
}

/// How many are due by a time from the start.
fn due_by(schedule: &Schedule, time: Duration) -> u64 {
    let seconds = time.as_secs_f64();
    let place = schedule.segments.partition_point(|segment| segment.starts <= seconds).saturating_sub(1);
    let segment = schedule.segments[place];
    let within = (seconds - segment.starts).clamp(0.0, segment.seconds);
    whole(segment.before + sum_after(&segment, within)).min(schedule.total)
}

/// The inverse of [`Segment::seconds_to`].
fn sum_after(segment: &Segment, seconds: f64) -> f64 {
    (segment.from + segment.slope() * seconds / 2.0) * seconds
}

#[rstest]
#[case("1000", &[(1.0, 1_000.0, 1_000.0)])]
#[case("0.5", &[(1.0, 0.5, 0.5)])]
#[case("1000000", &[(1.0, 1_000_000.0, 1_000_000.0)])]
#[case("100..2000", &[(1.0, 100.0, 2_000.0)])]
#[case("0..10", &[(1.0, 0.0, 10.0)])]
#[case("10..0", &[(1.0, 10.0, 0.0)])]
#[case("100,500, 1000,50", &[(0.25, 100.0, 100.0), (0.25, 500.0, 500.0), (0.25, 1_000.0, 1_000.0), (0.25, 50.0, 50.0)])]
#[case("100^2000", &[(0.4, 100.0, 100.0), (0.2, 2_000.0, 2_000.0), (0.4, 100.0, 100.0)])]
fn rates_are_read(#[case] text: &str, #[case] expected: &[(f64, f64, f64)]) {
    let rate: Rate = text.parse().unwrap();
    let parts: Vec<_> = rate.parts.iter().map(|part| (part.share, part.from, part.to)).collect();
    assert_eq!((rate.text.as_str(), &parts[..]), (text, expected));
}

#[rstest]
#[case("", RateError::NotANumber(String::new()))]
#[case("fast", RateError::NotANumber("fast".into()))]
#[case("100,", RateError::NotANumber(String::new()))]
#[case("1..2..3", RateError::NotANumber("2..3".into()))]
#[case("inf", RateError::NotANumber("inf".into()))]
#[case("0", RateError::OutOfRange(0.0))]
#[case("-5", RateError::OutOfRange(-5.0))]
#[case("1000000.5", RateError::OutOfRange(1_000_000.5))]
#[case("5,0", RateError::OutOfRange(0.0))]
#[case("0^5", RateError::OutOfRange(0.0))]
#[case("-1..5", RateError::OutOfRange(-1.0))]
#[case("0..0", RateError::NothingToRamp)]
fn an_error_names_what_is_wrong(#[case] text: &str, #[case] expected: RateError) {
    assert_eq!(text.parse::<Rate>(), Err(expected));
}

#[test]
fn a_constant_rate_is_even() {
    let schedule = schedule("1000", 60);
    assert_eq!(schedule.total, 60_000);
    assert_eq!(schedule.time_of(0), Some(Duration::from_micros(500)));
    assert_eq!(schedule.time_of(59_999).unwrap().as_micros(), 59_999_500);
    assert_eq!(schedule.time_of(60_000), None);
}

#[rstest]
#[case::ramp("100..300", 10, &[(5, 750), (10, 2_000)])]
#[case::ramp_from_nothing("0..100", 10, &[(1, 5), (5, 125), (10, 500)])]
#[case::ramp_down("100..0", 10, &[(5, 375), (10, 500)])]
#[case::steps("10,20,30", 30, &[(10, 100), (20, 300), (30, 600)])]
#[case::spike("10^100", 10, &[(4, 40), (5, 140), (6, 240), (10, 280)])]
fn each_shape_of_a_rate_has_its_posts_due_by_each_second(
    #[case] rate: &str,
    #[case] seconds: u64,
    #[case] due: &[(u64, u64)],
) {
    let schedule = schedule(rate, seconds);
    for (second, expected) in due {
        assert_eq!(due_by(&schedule, Duration::from_secs(*second)), *expected, "by second {second}");
    }
    assert_eq!(schedule.total, due.last().unwrap().1);
}

#[test]
fn a_plan_of_no_post_or_too_many_is_refused() {
    let plan = |rate: &str, seconds: u64| Schedule::new(&rate.parse().unwrap(), Duration::from_secs(seconds));
    assert_eq!(plan("0.5", 1).unwrap().total, 1);
    assert_eq!(plan("0.49", 1).unwrap_err(), RateError::TooFew);
    assert_eq!(plan("1000000", 1_000).unwrap().total, 1_000_000_000);
    assert_eq!(plan("1000000", 1_001).unwrap_err(), RateError::TooMany);
}

fn rates() -> impl Strategy<Value = Rate> {
    let rate = 0.5f64..5_000.0;
    let text = prop_oneof![
        rate.clone().prop_map(|rate| rate.to_string()),
        (prop_oneof![Just(0.0), rate.clone()], rate.clone()).prop_map(|(from, to)| format!("{from}..{to}")),
        (rate.clone(), prop_oneof![Just(0.0), rate.clone()]).prop_map(|(from, to)| format!("{from}..{to}")),
        prop::collection::vec(rate.clone().prop_map(|rate| rate.to_string()), 1..6).prop_map(|rates| rates.join(",")),
        (rate.clone(), rate).prop_map(|(usual, spike)| format!("{usual}^{spike}")),
    ];
    text.prop_map(|text| text.parse().unwrap())
}

proptest! {
    #[test]
    fn times_are_in_order_and_within_the_run(rate in rates(), seconds in 5u64..100) {
        let schedule = Schedule::new(&rate, Duration::from_secs(seconds)).unwrap();
        let step = (schedule.total / 500).max(1);
        let numbers = (0..schedule.total).step_by(usize::try_from(step).unwrap());
        let times: Vec<Duration> = numbers.map(|number| schedule.time_of(number).unwrap()).collect();
        prop_assert!(times.is_sorted());
        prop_assert!(*times.last().unwrap() <= Duration::from_secs(seconds));
        prop_assert_eq!(schedule.time_of(schedule.total), None);
    }

    #[test]
    fn a_request_is_due_at_its_time_and_not_before(rate in rates(), seconds in 5u64..100, share in 0.0f64..1.0) {
        let schedule = Schedule::new(&rate, Duration::from_secs(seconds)).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let number = (share * (schedule.total - 1) as f64) as u64;
        let time = schedule.time_of(number).unwrap();
        // A microsecond for rounding: the shortest interval is 200 of them.
        prop_assert!(due_by(&schedule, time + Duration::from_micros(1)) > number);
        prop_assert!(due_by(&schedule, time.saturating_sub(Duration::from_micros(1))) <= number);
    }
}
