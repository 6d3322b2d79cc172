//! Delivers a batch of documents: what the cluster does not take for now is sent again, and what is refused is named.

use super::answer::{self, Item, Reason};
use super::batch::Batch;
use super::cluster::{Answer, CallError, SearchCluster};
use super::retry::{ClusterError, Retries};

/// What became of a batch, whole.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    /// Documents that are new.
    pub(super) loaded: u64,
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

/// Delivers all documents, or fails: then some may have been taken, and to send all again does no harm.
pub(super) async fn deliver<C: SearchCluster>(
    cluster: &C,
    batch: &Batch,
    retries: &mut Retries,
) -> Result<Delivered, ClusterError> {
    let mut delivered = Delivered::default();
    // Halves of halves at most: each piece has a document, and each retry is counted.
    let mut waiting = vec![(0..batch.len()).collect::<Vec<_>>()];
    while let Some(numbers) = waiting.pop() {
        let answer = retries.attempt(cluster.bulk(batch.body(&numbers))).await;
        let (again, problem) = match decide(answer, numbers.len()) {
            Next::Read(items) => match delivered.take(&numbers, items)? {
                Some((later, reason)) => (later, ClusterError::Busy(reason)),
                None => continue,
            },
            Next::Halve => {
                waiting.extend(delivered.halves(numbers));
                continue;
            }
            Next::Retry(problem) => (numbers, problem),
        };
        retries.wait(problem).await?;
        delivered.retried += again.len() as u64;
        waiting.push(again);
    }
    delivered.refused.sort_by_key(|(number, _)| *number);
    Ok(delivered)
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

impl Delivered {
    /// Notes what became of each document. Those that may be taken later, with the first one's reason.
    fn take(&mut self, numbers: &[usize], items: Vec<Item>) -> Result<Option<(Vec<usize>, Reason)>, ClusterError> {
        let (mut later, mut why) = (Vec::new(), None);
        for (&number, item) in numbers.iter().zip(items) {
            match item {
                Item::Loaded => self.loaded += 1,
                Item::Present => {}
                Item::Refused(reason) => self.refused.push((number, reason)),
                Item::Blocked(reason) => return Err(ClusterError::Blocked(reason)),
                Item::Later(reason) => {
                    later.push(number);
                    why.get_or_insert(reason);
                }
            }
        }
        Ok(why.map(|reason| (later, reason)))
    }

    /// Both halves of a request that is too large; a single document is refused.
    fn halves(&mut self, mut numbers: Vec<usize>) -> Vec<Vec<usize>> {
        if let [number] = numbers[..] {
            let reason = Reason::new("request_too_large", "the cluster takes no request with this document alone");
            self.refused.push((number, reason));
            return Vec::new();
        }
        let second = numbers.split_off(numbers.len() / 2);
        vec![second, numbers]
    }
}
