//! Whether a group of a failed batch may be landed, from what has landed around it.
//!
//! A batch that was given up is not always the last word on its records. An attempt at it may have stored more of them
//! than it holds, without being heard. And a mapping that restarted before it noted that it gave the batch up has sent
//! the same records again, cut at another place, and those may have landed.

use shared::sequence_number::compare;

/// What to do with a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Write its object, or replace it. `is_there`: it ends with the same record, so all of the group is in it.
    Land { is_there: bool },
    /// Its records have landed, cut into batches at another place.
    Covered,
    /// What comes after it on the shard has to land first; only then is it known which records the object should hold.
    Wait,
}

/// A group's records, as sequence numbers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range<'a> {
    pub(crate) first: &'a str,
    pub(crate) last: &'a str,
}

/// Decides for a group. `found_last` is the last record in the object that is there under its name. `beginnings` are the
/// first records of other objects of the same kind, hour and shard, and of other failed batches of the shard.
pub(crate) fn decide<'a>(
    group: Range<'_>,
    found_last: Option<&str>,
    beginnings: impl IntoIterator<Item = &'a str> + Clone,
) -> Decision {
    let begins_after = |record: &str| beginnings.clone().into_iter().any(|first| compare(first, record).is_gt());
    let begins_in = |after: &str, up_to: &str| {
        beginnings.clone().into_iter().any(|first| compare(first, after).is_gt() && compare(first, up_to).is_le())
    };
    let cut_elsewhere = begins_in(group.first, group.last);
    match found_last {
        Some(_) if cut_elsewhere => Decision::Covered,
        None if cut_elsewhere => Decision::Wait,
        Some(last) if compare(last, group.last).is_le() || begins_in(group.last, last) => {
            Decision::Land { is_there: compare(last, group.last).is_eq() }
        }
        // Batches come in order: had this one been the last word, the next would have begun before that object's end.
        Some(last) if begins_after(last) => Decision::Covered,
        Some(_) => Decision::Wait,
        None => Decision::Land { is_there: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const LAND: Decision = Decision::Land { is_there: false };

    #[rstest]
    #[case::the_usual_case(None, &["61", "101"], LAND)]
    #[case::an_attempt_stored_it_unheard(Some("60"), &["61"], Decision::Land { is_there: true })]
    #[case::an_attempt_stored_less_unheard(Some("40"), &["61"], LAND)]
    #[case::an_attempt_stored_more_and_the_rest_landed_since(Some("100"), &["61", "101"], LAND)]
    #[case::an_attempt_stored_more_and_the_rest_is_yet_to_land(Some("100"), &["1"], Decision::Wait)]
    #[case::cut_longer_after_a_restart(Some("100"), &["1", "101"], Decision::Covered)]
    #[case::cut_shorter_after_a_restart(Some("40"), &["41", "101"], Decision::Covered)]
    #[case::cut_shorter_and_its_own_object_is_gone(None, &["41"], Decision::Wait)]
    fn a_batch_of_1_to_60(#[case] found: Option<&str>, #[case] beginnings: &[&str], #[case] expected: Decision) {
        let group = Range { first: "1", last: "60" };
        assert_eq!(decide(group, found, beginnings.iter().copied()), expected);
    }
}
