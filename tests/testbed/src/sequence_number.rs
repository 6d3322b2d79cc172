//! Sequence numbers: 56 decimal digits, which grow with each record of a shard.

use std::fmt;
use std::str::FromStr;

/// The number of a record, unique in its stream and greater than those of all earlier records.
///
/// Like Kinesis' it has the time in its upper digits: a stream that is recreated does not repeat the numbers of the one
/// before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber {
    /// When it was given, in milliseconds since 1970.
    pub(crate) millis: u64,
    /// How many the stream gave before.
    pub(crate) count: u64,
}

/// A text that is not a sequence number of this model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sequence number has 56 digits")]
pub struct SequenceNumberError;

/// What Kinesis' numbers begin with.
const VERSION: &str = "49";
const DIGITS: usize = 56;
const MILLIS: std::ops::Range<usize> = 2..22;
const COUNT: std::ops::RangeFrom<usize> = 22..;

impl SequenceNumber {
    /// The one after it, given at a time that may be earlier.
    pub(crate) fn next(self, now: i64) -> Self {
        Self { millis: self.millis.max(u64::try_from(now).unwrap_or(0)), count: self.count + 1 }
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{VERSION}{:020}{:034}", self.millis, self.count)
    }
}

impl FromStr for SequenceNumber {
    type Err = SequenceNumberError;

    fn from_str(text: &str) -> Result<Self, SequenceNumberError> {
        let is_number = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number || !text.starts_with(VERSION) {
            return Err(SequenceNumberError);
        }
        let number = |digits: &str| digits.parse().map_err(|_| SequenceNumberError);
        Ok(Self { millis: number(&text[MILLIS])?, count: number(&text[COUNT])? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_are_read_back_and_sort_as_their_digits(
            one: (u64, u64), other: (u64, u64),
        ) {
            let [one, other] = [one, other].map(|(millis, count)| SequenceNumber { millis, count });
            prop_assert_eq!(one.to_string().len(), DIGITS);
            prop_assert_eq!(one.to_string().parse(), Ok(one));
            prop_assert_eq!(one.cmp(&other), one.to_string().cmp(&other.to_string()));
        }

        #[test]
        fn a_number_is_greater_than_the_one_before_whatever_the_clock_does(times in prop::collection::vec(any::<i64>(), 1..20)) {
            let mut last = SequenceNumber { millis: 0, count: 0 };
            for time in times {
                let next = last.next(time);
                prop_assert!(next > last);
                last = next;
            }
        }
    }

    #[test]
    fn other_texts_are_no_numbers() {
        for text in ["", "49", &"9".repeat(56), &"4".repeat(55), &format!("49{}", "9".repeat(54)), &"é".repeat(28)] {
            assert_eq!(text.parse::<SequenceNumber>(), Err(SequenceNumberError), "{text}");
        }
    }
}
