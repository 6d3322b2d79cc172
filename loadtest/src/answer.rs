//! What an answer says of each piece of a POST, and whether it is the expected answer.

use serde::Deserialize;
use shared::line::Kind;

use crate::ledger::{Ledger, Reported};
use crate::workload::{Bad, Pieces};

/// Pieces of one POST by what was said of them, and whether that was right.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) not_stored: u64,
    pub(crate) unknown: u64,
    pub(crate) as_expected: bool,
}

/// As much of an answer's body as matters here.
#[derive(Debug, Deserialize)]
struct Body {
    accepted: u64,
    #[serde(default)]
    rejected: Vec<Rejected>,
    #[serde(default)]
    not_stored: Vec<u64>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    index: u64,
}

/// Reads an answer, and notes in the ledger what it says of each piece.
pub(crate) fn judge(pieces: Pieces, status: u16, body: &[u8], ledger: &mut Ledger) -> Account {
    if status == 200 && pieces.bad == Bad::Nothing && says_all_accepted(body, pieces.count) {
        all_stored(pieces, ledger);
        return Account { accepted: pieces.count, as_expected: true, ..Account::default() };
    }
    // Refused as a whole, as it should be: then it is kept under `rejected/`.
    if pieces.bad == Bad::Whole(status) {
        all_stored(pieces, ledger);
        return Account { rejected: pieces.count, as_expected: true, ..Account::default() };
    }
    let body = serde_json::from_slice::<Body>(body).ok();
    match body.and_then(|body| outcomes(&body, pieces.count)) {
        Some(outcomes) => account(pieces, status, &outcomes, ledger),
        None => unknown(pieces),
    }
}

/// Without an answer, or with one that says nothing of the pieces.
pub(crate) fn unknown(pieces: Pieces) -> Account {
    Account { unknown: pieces.count, ..Account::default() }
}

/// The answer of nearly every POST, without taking it apart.
fn says_all_accepted(body: &[u8], count: u64) -> bool {
    let rest = body.strip_prefix(b"{\"accepted\":").unwrap_or_default();
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let accepted = std::str::from_utf8(&rest[..digits]).ok().and_then(|digits| digits.parse().ok());
    accepted == Some(count) && &rest[digits..] == b",\"rejected\":[]}"
}

fn all_stored(pieces: Pieces, ledger: &mut Ledger) {
    (pieces.first..pieces.first + pieces.count).for_each(|number| ledger.report(number, Reported::Stored));
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Rejected,
    NotStored,
}

/// Of each piece; `None` unless the body names each of them in exactly one of the three.
fn outcomes(body: &Body, count: u64) -> Option<Vec<Outcome>> {
    let mut outcomes = vec![Outcome::Accepted; count as usize];
    let rejected = body.rejected.iter().map(|rejected| (rejected.index, Outcome::Rejected));
    let not_stored = body.not_stored.iter().map(|index| (*index, Outcome::NotStored));
    for (index, outcome) in rejected.chain(not_stored) {
        let place = outcomes.get_mut(usize::try_from(index).ok()?);
        *place.filter(|before| **before == Outcome::Accepted)? = outcome;
    }
    let accepted = outcomes.iter().filter(|outcome| **outcome == Outcome::Accepted).count() as u64;
    (accepted == body.accepted).then_some(outcomes)
}

fn account(pieces: Pieces, status: u16, outcomes: &[Outcome], ledger: &mut Ledger) -> Account {
    let mut account = Account { as_expected: status == 200, ..Account::default() };
    for (number, outcome) in (pieces.first..).zip(outcomes) {
        let is_bad = ledger.entries()[number as usize].kind == Kind::Rejected;
        let (count, reported, expected) = match outcome {
            Outcome::Accepted => (&mut account.accepted, Reported::Stored, !is_bad),
            Outcome::Rejected => (&mut account.rejected, Reported::Stored, is_bad),
            Outcome::NotStored => (&mut account.not_stored, Reported::NotStored, false),
        };
        *count += 1;
        account.as_expected &= expected;
        ledger.report(number, reported);
    }
    account
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    /// Three pieces after two of another POST.
    fn judged(bad: Bad, status: u16, body: &str) -> (Account, Vec<Reported>) {
        let mut ledger = Ledger::default();
        for place in 0..5 {
            let is_bad = match bad {
                Bad::Nothing => false,
                Bad::Piece(bad) => place == bad + 2,
                Bad::Whole(_) => true,
            };
            ledger.add(0, if is_bad { Kind::Rejected } else { Kind::Event });
        }
        let account = judge(Pieces { first: 2, count: 3, bad }, status, body.as_bytes(), &mut ledger);
        let reported: Vec<Reported> = ledger.entries().iter().map(|entry| entry.reported).collect();
        assert_eq!(reported[..2], [Reported::Nothing; 2]);
        (account, reported[2..].to_vec())
    }

    fn counted(counts: [u64; 4], as_expected: bool) -> Account {
        let [accepted, rejected, not_stored, unknown] = counts;
        Account { accepted, rejected, not_stored, unknown, as_expected }
    }

    use Reported::{NotStored, Nothing, Stored};

    #[rstest]
    #[case::all(Bad::Nothing, 200, r#"{"accepted":3,"rejected":[]}"#, [3, 0, 0, 0], true, [Stored; 3])]
    #[case::all_in_another_spelling(Bad::Nothing, 200, r#"{ "accepted": 3 }"#, [3, 0, 0, 0], true, [Stored; 3])]
    #[case::the_bad_one_rejected(Bad::Piece(1), 200, r#"{"accepted":2,"rejected":[{"index":1,"reason":"x"}]}"#, [2, 1, 0, 0], true, [Stored; 3])]
    #[case::another_one_rejected(Bad::Piece(1), 200, r#"{"accepted":2,"rejected":[{"index":0,"reason":"x"}]}"#, [2, 1, 0, 0], false, [Stored; 3])]
    #[case::the_bad_one_accepted(Bad::Piece(1), 200, r#"{"accepted":3,"rejected":[]}"#, [3, 0, 0, 0], false, [Stored; 3])]
    #[case::a_good_one_rejected(Bad::Nothing, 200, r#"{"accepted":2,"rejected":[{"index":2}]}"#, [2, 1, 0, 0], false, [Stored; 3])]
    #[case::in_part(Bad::Nothing, 503, r#"{"accepted":1,"not_stored":[0,2],"rejected":[],"error":{}}"#, [1, 0, 2, 0], false, [NotStored, Stored, NotStored])]
    #[case::bad_and_in_part(Bad::Piece(1), 503, r#"{"accepted":1,"not_stored":[0],"rejected":[{"index":1}]}"#, [1, 1, 1, 0], false, [NotStored, Stored, Stored])]
    #[case::refused(Bad::Whole(400), 400, r#"{"error":{}}"#, [0, 3, 0, 0], true, [Stored; 3])]
    #[case::refused_for_something_else(Bad::Whole(415), 400, r#"{"error":{}}"#, [0, 0, 0, 3], false, [Nothing; 3])]
    #[case::good_refused_whole(Bad::Nothing, 400, r#"{"error":{}}"#, [0, 0, 0, 3], false, [Nothing; 3])]
    #[case::too_many(Bad::Nothing, 200, r#"{"accepted":4,"rejected":[]}"#, [0, 0, 0, 3], false, [Nothing; 3])]
    #[case::too_few(Bad::Nothing, 200, r#"{"accepted":2,"rejected":[]}"#, [0, 0, 0, 3], false, [Nothing; 3])]
    #[case::an_index_past_the_end(Bad::Nothing, 200, r#"{"accepted":2,"rejected":[{"index":3}]}"#, [0, 0, 0, 3], false, [Nothing; 3])]
    #[case::an_index_twice(Bad::Nothing, 503, r#"{"accepted":1,"not_stored":[1,1],"rejected":[]}"#, [0, 0, 0, 3], false, [Nothing; 3])]
    #[case::an_index_in_both(Bad::Nothing, 503, r#"{"accepted":1,"not_stored":[1],"rejected":[{"index":1}]}"#, [0, 0, 0, 3], false, [Nothing; 3])]
    #[case::of_another_service(Bad::Nothing, 502, r#"{"message":"Internal Server Error"}"#, [0, 0, 0, 3], false, [Nothing; 3])]
    #[case::empty(Bad::Nothing, 200, "", [0, 0, 0, 3], false, [Nothing; 3])]
    #[case::no_number(Bad::Nothing, 200, r#"{"accepted":,"rejected":[]}"#, [0, 0, 0, 3], false, [Nothing; 3])]
    fn an_answer_accounts_for_each_piece_or_for_none(
        #[case] bad: Bad,
        #[case] status: u16,
        #[case] body: &str,
        #[case] counts: [u64; 4],
        #[case] as_expected: bool,
        #[case] reported: [Reported; 3],
    ) {
        assert_eq!(judged(bad, status, body), (counted(counts, as_expected), reported.to_vec()));
    }
}
