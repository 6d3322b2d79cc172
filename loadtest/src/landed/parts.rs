//! Rejected bodies that were too large for one line: numbered parts with one id, in any files.
//!
//! A part's bytes are not kept. What counts is known without them: the numbers inside of it, and its two ends, because an
//! id may have been cut between one part and the next.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::scan::Scanner;

/// One part, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The same in all parts of a body.
    pub(super) id: String,
    /// From 1 to `of`.
    pub(super) number: u32,
    pub(super) of: u32,
    /// The events' numbers inside of it.
    numbers: BTreeSet<u64>,
    /// Its first and its last bytes: fewer than an id has at most, and all of a part that is shorter.
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Part {
    pub(super) fn new(id: String, number: u32, of: u32, body: &[u8], scanner: &Scanner) -> Self {
        let end = body.len().min(scanner.longest_id() - 1);
        Self {
            id,
            number,
            of,
            numbers: scanner.numbers(body).collect(),
            head: body[..end].to_vec(),
            tail: body[body.len() - end..].to_vec(),
        }
    }
}

/// A body all of whose parts are there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) numbers: BTreeSet<u64>,
    /// How often it is there: as often as its most frequent part.
    pub(super) copies: u32,
    /// When its last part came, each at its first time.
    pub(super) landed_ms: u64,
}

/// Joins parts, each with the time at which its file was stored. A body with a part missing is not there.
pub(super) fn join<'p>(parts: impl Iterator<Item = (&'p Part, u64)>, scanner: &Scanner) -> Vec<Whole> {
    let mut bodies: HashMap<(&str, u32), BTreeMap<u32, Copies<'_>>> = HashMap::new();
    for (part, landed_ms) in parts {
        let same = bodies.entry((&part.id, part.of)).or_default();
        let copies = same.entry(part.number).or_insert(Copies { part, count: 0, landed_ms });
        copies.count += 1;
        copies.landed_ms = copies.landed_ms.min(landed_ms);
    }
    let complete = bodies.into_iter().filter(|((_, of), parts)| parts.keys().copied().eq(1..=*of));
    complete.map(|(_, parts)| whole(&parts.into_values().collect::<Vec<_>>(), scanner)).collect()
}

struct Copies<'p> {
    part: &'p Part,
    count: u32,
    landed_ms: u64,
}

/// Of at least one part, in order.
fn whole(parts: &[Copies<'_>], scanner: &Scanner) -> Whole {
    let mut numbers: BTreeSet<u64> = parts.iter().flat_map(|copies| &copies.part.numbers).copied().collect();
    for place in 1..parts.len() {
        numbers.extend(scanner.numbers(&seam(&parts[place - 1..], scanner.longest_id())));
    }
    Whole {
        numbers,
        copies: parts.iter().map(|copies| copies.count).max().unwrap_or_default(),
        landed_ms: parts.iter().map(|copies| copies.landed_ms).max().unwrap_or_default(),
    }
}

/// The end of the first part, and what follows it, as far as an id can reach.
fn seam(parts: &[Copies<'_>], longest_id: usize) -> Vec<u8> {
    let mut bytes = parts[0].part.tail.clone();
    let enough = bytes.len() + longest_id - 1;
    for copies in &parts[1..] {
        bytes.extend_from_slice(&copies.part.head);
        // A shorter head is a whole part, and the next one's follows it.
        if bytes.len() >= enough {
            break;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::id;
    use proptest::prelude::*;

    const PREFIX: &str = "lt-r-";

    fn cut(body: &[u8], places: &[usize], scanner: &Scanner) -> Vec<Part> {
        let mut places: Vec<usize> =
            places.iter().map(|place| place % (body.len() + 1)).chain([0, body.len()]).collect();
        places.sort_unstable();
        places.dedup();
        let of = u32::try_from(places.len() - 1).unwrap();
        let part =
            |(number, ends): (u32, &[usize])| Part::new("x".into(), number, of, &body[ends[0]..ends[1]], scanner);
        (1..).zip(places.windows(2)).map(part).collect()
    }

    fn body(numbers: &[u64]) -> Vec<u8> {
        numbers.iter().flat_map(|number| format!("{{\"id\":\"{}\"}},", id(PREFIX, *number)).into_bytes()).collect()
    }

    #[test]
    fn a_body_without_one_of_its_parts_is_not_there() {
        let scanner = Scanner::new(PREFIX);
        let parts = cut(&body(&[1, 2, 3]), &[20, 40], &scanner);
        assert_eq!(join(parts.iter().map(|part| (part, 0)), &scanner).len(), 1);
        for missing in 0..parts.len() {
            let rest = parts.iter().enumerate().filter(|(place, _)| *place != missing);
            assert_eq!(join(rest.map(|(_, part)| (part, 0)), &scanner), []);
        }
    }

    #[test]
    fn a_body_is_there_as_often_as_a_part_of_it_and_since_its_last_part_came() {
        let scanner = Scanner::new(PREFIX);
        let parts = cut(&body(&[1, 2]), &[20], &scanner);
        let stored = [(&parts[0], 5), (&parts[1], 9), (&parts[0], 7), (&parts[1], 8)];
        let expected = |copies, landed_ms| [Whole { numbers: BTreeSet::from([1, 2]), copies, landed_ms }];
        assert_eq!(join(stored.into_iter(), &scanner), expected(2, 8));
        assert_eq!(join(stored.into_iter().take(3), &scanner), expected(2, 9));
        assert_eq!(join(stored.into_iter().take(2), &scanner), expected(1, 9));
    }

    proptest! {
        #[test]
        fn wherever_a_body_is_cut_the_same_numbers_are_found(
            numbers in prop::collection::vec(0u64..1_000_000, 1..20),
            places in prop::collection::vec(any::<usize>(), 0..60),
        ) {
            let (scanner, body) = (Scanner::new(PREFIX), body(&numbers));
            let parts = cut(&body, &places, &scanner);
            let joined = join(parts.iter().rev().map(|part| (part, 0)), &scanner);
            prop_assert_eq!(&joined[0].numbers, &scanner.numbers(&body).collect::<BTreeSet<_>>());
            prop_assert_eq!(joined.len(), 1);
        }
    }
}
