//! Which records of a shard's hour are in objects, or in batches that are yet to be redriven.

use std::collections::HashSet;

use shared::line::Kind;

use shared::sequence_number::compare;

/// Runs of sequence numbers that do not touch, in order.
#[derive(Debug, Default)]
struct Spans(Vec<(String, String)>);

impl Spans {
    /// Of runs from a first number to a last one, which may overlap.
    fn new(mut runs: Vec<(String, String)>) -> Self {
        runs.sort_by(|(one, _), (other, _)| compare(one, other));
        let mut spans: Vec<(String, String)> = Vec::with_capacity(runs.len());
        for (first, last) in runs {
            match spans.last_mut() {
                Some((_, end)) if compare(&first, end).is_le() => {
                    if compare(&last, end).is_gt() {
                        *end = last;
                    }
                }
                _ => spans.push((first, last)),
            }
        }
        Self(spans)
    }

    fn contains(&self, number: &str) -> bool {
        let after = self.0.partition_point(|(first, _)| compare(first, number).is_le());
        self.0[..after].last().is_some_and(|(_, last)| compare(number, last).is_le())
    }
}

/// Objects by the kind of their lines.
#[derive(Debug, Default)]
struct Objects {
    events: Spans,
    rejected: Spans,
}

impl Objects {
    fn new(objects: &[Reach]) -> Self {
        let spans = |kind| {
            let of_kind = objects.iter().filter(|reach| reach.kind == kind);
            Spans::new(of_kind.map(|reach| (reach.first.clone(), reach.last.clone())).collect())
        };
        Self { events: spans(Kind::Event), rejected: spans(Kind::Rejected) }
    }

    fn contain(&self, kind: Kind, number: &str) -> bool {
        match kind {
            Kind::Event => self.events.contains(number),
            Kind::Rejected => self.rejected.contains(number),
        }
    }
}

/// The first and the last record of an object.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    pub(crate) kind: Kind,
    pub(crate) first: String,
    pub(crate) last: String,
}

/// Where a record's lines of one kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In an object.
    Landed,
    /// In a failed batch, which lands when it is redriven.
    FailedBatch,
    /// On the stream alone.
    Nowhere,
}

/// What is known of a shard's hour.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    landed: Objects,
    failed: Spans,
    /// Those of the manifest, lost or not.
    named: Objects,
    /// Where objects that were lost began and ended: an object that is made again has the same name and the same records, and
    /// if the old one is restored after all, it takes its place.
    starts: HashSet<(Kind, String)>,
    ends: HashSet<(Kind, String)>,
}

impl Coverage {
    /// Of the objects that there are, the failed batches from their first to their last record, and the objects that the
    /// hour's manifest names.
    pub(crate) fn new(landed: Vec<Reach>, failed: Vec<(String, String)>, named: Vec<Reach>) -> Self {
        Self {
            landed: Objects::new(&landed),
            failed: Spans::new(failed),
            named: Objects::new(&named),
            starts: named.iter().map(|reach| (reach.kind, reach.first.clone())).collect(),
            ends: named.into_iter().map(|reach| (reach.kind, reach.last)).collect(),
        }
    }

    pub(crate) fn place(&self, kind: Kind, number: &str) -> Place {
        match (self.landed.contain(kind, number), self.failed.contains(number)) {
            (true, _) => Place::Landed,
            (false, true) => Place::FailedBatch,
            (false, false) => Place::Nowhere,
        }
    }

    /// Whether an object of the manifest had this record's lines.
    pub(crate) fn is_named(&self, kind: Kind, number: &str) -> bool {
        self.named.contain(kind, number)
    }

    /// Whether an object that was lost began with this record.
    pub(crate) fn starts(&self, kind: Kind, number: &str) -> bool {
        self.starts.contains(&(kind, number.to_owned()))
    }

    /// Whether an object that was lost ended with this record.
    pub(crate) fn ends(&self, kind: Kind, number: &str) -> bool {
        self.ends.contains(&(kind, number.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn spans_contain_what_a_run_contains(runs in prop::collection::vec((0u32..120, 0u32..20), 0..12), number in 0u32..150) {
            let texts = runs.iter().map(|(first, more)| (first.to_string(), (first + more).to_string())).collect();
            let expected = runs.iter().any(|(first, more)| (*first..=first + more).contains(&number));
            prop_assert_eq!(Spans::new(texts).contains(&number.to_string()), expected);
        }
    }
}
