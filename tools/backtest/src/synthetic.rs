//! A synthetic history with what real ones have: a daily and a weekly rhythm, growth, noise of hours and of days, a
//! holiday, and evenings with a big match. The same seed gives the same history.
//!
//! It uses only sums, products and a fixed generator: nothing that another platform or version may round differently.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use shared::timestamp::{UnixMillis, UtcHour};

use crate::history::{History, Hour};

/// A Monday.
const FIRST: UnixMillis = UnixMillis(1_785_715_200_000);

/// Compressed bytes of a mean hour at the start, and of an event.
const MEAN_BYTES: f64 = 200_000_000.0;
const BYTES_PER_EVENT: u64 = 48;

/// Parts of the mean by the hour of the day: few watch at night, most in the evening.
const DAY: [f64; 24] = [
    0.65, 0.45, 0.32, 0.25, 0.22, 0.25, 0.35, 0.50, 0.62, 0.70, 0.78, 0.88, 1.00, 1.02, 1.00, 1.02, 1.12, 1.32, 1.62,
    2.05, 2.45, 2.40, 1.83, 1.20,
];
/// From Monday on.
const WEEK: [f64; 7] = [0.92, 0.90, 0.92, 0.95, 1.05, 1.15, 1.11];

const GROWTH_A_WEEK: f64 = 1.015;
/// Standard deviations, of the mean.
const NOISE_OF_HOURS: f64 = 0.06;
const NOISE_OF_DAYS: f64 = 0.04;
const HOLIDAY: f64 = 0.70;
/// Each history has it at another place.
const HOLIDAY_WEEK: usize = 11;
const MATCH: f64 = 1.6;
const WEEKS_BETWEEN_MATCHES: usize = 3;
const HOURS_OF_MATCH: std::ops::Range<usize> = 19..22;
/// The share of hours whose seal takes a second run, and how long it then takes, in minutes.
const SLOW_SEALS: f64 = 0.02;
const SEAL_MINUTES: f64 = 20.0;
const SLOW_SEAL_MINUTES: f64 = 19.0;

/// A history of so many weeks.
pub(crate) fn history(weeks: usize, seed: u64) -> History {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut hours = Vec::with_capacity(weeks * 7 * 24);
    let mut growth = 1.0;
    let holiday = (HOLIDAY_WEEK, (random.random::<f64>() * 5.0) as usize);
    for week in 0..weeks {
        let match_day = (random.random::<f64>() * 7.0) as usize;
        for (day, of_week) in WEEK.iter().enumerate() {
            let of_day = of_week * growth * noise(&mut random, NOISE_OF_DAYS);
            let is_match = week % WEEKS_BETWEEN_MATCHES == WEEKS_BETWEEN_MATCHES - 1 && day == match_day;
            for (hour, of_hour) in DAY.iter().enumerate() {
                let mut size = MEAN_BYTES * of_day * of_hour * noise(&mut random, NOISE_OF_HOURS);
                if (week, day) == holiday {
                    size *= HOLIDAY;
                }
                if is_match && HOURS_OF_MATCH.contains(&hour) {
                    size *= MATCH;
                }
                hours.push(sealed(size, &mut random));
            }
        }
        growth *= GROWTH_A_WEEK;
    }
    History { first: first(), hours }
}

fn first() -> UtcHour {
    FIRST.hour()
}

fn sealed(size: f64, random: &mut Xoshiro256PlusPlus) -> Hour {
    let slow = random.random::<f64>() < SLOW_SEALS;
    let minutes = SEAL_MINUTES + if slow { random.random::<f64>() * SLOW_SEAL_MINUTES } else { 0.0 };
    let bytes = size as u64;
    Hour { bytes, events: bytes / BYTES_PER_EVENT, sealed_minutes_after: Some(minutes as i64) }
}

/// A factor around 1. Twelve equal chances are nearly normal, and never farther than six deviations.
fn noise(random: &mut Xoshiro256PlusPlus, deviation: f64) -> f64 {
    let sum: f64 = (0..12).map(|_| random.random::<f64>()).sum();
    1.0 + deviation * (sum - 6.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_history_and_another_another() {
        assert_eq!(history(16, 1), history(16, 1));
        assert_ne!(history(16, 1), history(16, 2));
        assert_eq!(history(16, 1).hours.len(), 16 * 168);
    }

    #[test]
    fn it_begins_on_a_monday_and_the_days_mean_is_one() {
        assert_eq!(first().partition(), "dt=2026-08-03/hour=00");
        for (parts, count) in [(&DAY[..], 24.0), (&WEEK[..], 7.0)] {
            assert!((parts.iter().sum::<f64>() / count - 1.0).abs() < 0.01);
        }
    }

    #[test]
    fn no_hour_is_empty_or_unsealed() {
        for hour in history(16, 7).hours {
            assert!(hour.bytes > 10_000_000 && hour.sealed_minutes_after.is_some_and(|at| (20..39).contains(&at)));
        }
    }
}
