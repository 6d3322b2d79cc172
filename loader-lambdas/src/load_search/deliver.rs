//! Delivers a batch of documents: what the cluster does not take for now is sent again, and what is refused is named.

use std::collections::VecDeque;

use super::answer::{self, Item, Reason};
use super::batch::Batch;
use super::cluster::{Answer, CallError, SearchCluster};
use super::retry::{ClusterError, Retries};

/// What became of a batch, whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Documents that are new.
    pub(super) loaded: u64,
    /// Documents that were there.
    pub(super) present: u64,
    /// Documents that were sent again, each time counted.
    pub(super) retried: u64,
    /// Documents that the cluster will never take, in the order of their lines.
    pub(super) refused: Vec<(usize, Reason)>,
}

/// What to do with an answer to a request.
enum Next {
    Read(Vec<Item>),
    Halve,
    Retry(ClusterError),
}

/// How often the cluster must fail at a document before it counts as the document's fault.
pub(super) const MIN_FAILURES: u32 = 5;

/// Delivers all documents, or fails: then some may have been taken, and to send all again does no harm.
pub(super) async fn deliver<C: SearchCluster>(
    cluster: &C,
    batch: &Batch,
    retries: &mut Retries,
) -> Result<Delivered, ClusterError> {
    let mut bench = Workbench { documents: batch.len() as u64, ..Workbench::default() };
    // Halves of halves at most: each piece has a document, and each retry is counted. What is retried waits for the others.
    let mut waiting = VecDeque::from([(0..batch.len()).collect::<Vec<_>>()]);
    while let Some(numbers) = waiting.pop_front() {
        let answer = retries.attempt(cluster.bulk(batch.body(&numbers))).await;
        let (again, problem) = match decide(answer, numbers.len()) {
            Next::Read(items) => match bench.take(&numbers, items)? {
                Some(left) => left,
                None => continue,
            },
            Next::Halve => {
                waiting.extend(bench.halves(numbers));
                continue;
            }
            Next::Retry(problem) => (numbers, problem),
        };
        if matches!(problem, ClusterError::Failed(_)) && retries.are_used_up() && bench.refuse_lone() {
            continue;
        }
        retries.wait(problem).await?;
        bench.delivered.retried += again.len() as u64;
        waiting.push_back(again);
    }
    bench.delivered.refused.sort_by_key(|(number, _)| *number);
    Ok(bench.delivered)
}

fn decide(answer: Result<Answer, CallError>, documents: usize) -> Next {
    match answer {
        Ok(answer) if answer.status == 200 => match answer::read(&answer.body, documents) {
            Ok(items) => Next::Read(items),
            Err(error) => Next::Retry(error.into()),
        },
        Ok(answer) if answer.status == 413 => Next::Halve,
        Ok(answer) => Next::Retry(ClusterError::status(&answer)),
        Err(error) => Next::Retry(error.into()),
    }
}

/// What is known of a batch so far.
#[derive(Default)]
struct Workbench {
    documents: u64,
    delivered: Delivered,
    lone: Option<Lone>,
}

/// The only document that an answer left, when the cluster failed at it.
struct Lone {
    number: usize,
    reason: Reason,
    /// In how many answers one after the other.
    failures: u32,
}

impl Workbench {
    /// Documents whose outcome is known.
    fn done(&self) -> u64 {
        self.delivered.loaded + self.delivered.present + self.delivered.refused.len() as u64
    }

    /// Notes what became of each document. Those that may be taken later, with why the first of them was not.
    fn take(
        &mut self,
        numbers: &[usize],
        items: Vec<Item>,
    ) -> Result<Option<(Vec<usize>, ClusterError)>, ClusterError> {
        let (mut again, mut busy, mut failed, mut blocked) = (Vec::new(), None, None, None);
        for (&number, item) in numbers.iter().zip(items) {
            match item {
                Item::Loaded => self.delivered.loaded += 1,
                Item::Present => self.delivered.present += 1,
                Item::Refused(reason) => self.delivered.refused.push((number, reason)),
                Item::Blocked(reason) => blocked = blocked.or(Some(reason)),
                Item::Later(reason) => {
                    busy = busy.or(Some(reason));
                    again.push(number);
                }
                Item::Failed(reason) => {
                    failed = failed.or(Some(reason));
                    again.push(number);
                }
            }
        }
        let others_are_done = self.done() > 0;
        match (blocked, busy, failed) {
            (Some(reason), _, _) => Err(ClusterError::Blocked { reason, others_are_done }),
            (None, Some(reason), _) => {
                self.lone = None;
                Ok(Some((again, ClusterError::Busy { reason, others_are_done })))
            }
            (None, None, Some(reason)) => {
                self.note_failure(&again, &reason);
                Ok(Some((again, ClusterError::Failed(reason))))
            }
            (None, None, None) => Ok(None),
        }
    }

    fn note_failure(&mut self, numbers: &[usize], reason: &Reason) {
        let before = self.lone.take();
        if let [number] = *numbers {
            let failures = before.filter(|lone| lone.number == number).map_or(0, |lone| lone.failures) + 1;
            self.lone = Some(Lone { number, reason: reason.clone(), failures });
        }
    }

    /// Refuses the document that alone is left, when the cluster kept failing at it and took or refused all others: so it works,
    /// and will never take this one. Of a document that came alone nobody can tell.
    fn refuse_lone(&mut self) -> bool {
        let is_left_of_several = self.documents > 1 && self.done() + 1 == self.documents;
        let lone = self.lone.take_if(|lone| is_left_of_several && lone.failures >= MIN_FAILURES);
        lone.map(|lone| self.delivered.refused.push((lone.number, lone.reason))).is_some()
    }

    /// Both halves of a request that is too large; a single document is refused.
    fn halves(&mut self, mut numbers: Vec<usize>) -> Vec<Vec<usize>> {
        if let [number] = numbers[..] {
            let reason = Reason::new("request_too_large", "the cluster takes no request with this document alone");
            self.delivered.refused.push((number, reason));
            return Vec::new();
        }
        let second = numbers.split_off(numbers.len() / 2);
        vec![numbers, second]
    }
}
