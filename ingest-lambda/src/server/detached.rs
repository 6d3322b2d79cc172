//! Work that is done to its end, whether someone waits for it or not.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use tokio::runtime::Handle;

/// Runs where it is awaited. Dropped before its end, it goes on as a task of its own: most requests are waited for, and a task
/// for each costs them an allocation and two more wake-ups.
pub(super) struct Detached<T: Send + 'static>(Option<Work<T>>);

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<T: Send + 'static> Detached<T> {
    pub(super) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Some(Box::pin(work)))
    }
}

/// A panic ends this work alone, as it would end a task.
impl<T: Send + 'static> Future for Detached<T> {
    type Output = thread::Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        let result = match polled {
            Ok(poll) => Ok(ready!(poll)),
            Err(panic) => Err(panic),
        };
        self.0 = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        // Without a runtime, the process is at its end.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    fn doubled() -> (oneshot::Sender<u32>, oneshot::Receiver<u32>, Detached<u32>) {
        let ((begin, begun), (end, ended)) = (oneshot::channel(), oneshot::channel());
        let work = Detached::new(async move {
            let number = begun.await.unwrap();
            end.send(2 * number).unwrap();
            number
        });
        (begin, ended, work)
    }

    #[tokio::test]
    async fn who_waits_gets_the_result() {
        let (begin, ended, work) = doubled();
        begin.send(3).unwrap();
        assert_eq!((work.await.unwrap(), ended.await), (3, Ok(6)));
    }

    #[tokio::test]
    async fn dropped_before_or_after_its_begin_it_is_done_all_the_same() {
        let (begin, ended, work) = doubled();
        drop(work);
        begin.send(3).unwrap();
        assert_eq!(ended.await, Ok(6));

        let (begin, ended, mut work) = doubled();
        assert!(futures_util::poll!(&mut work).is_pending());
        drop(work);
        begin.send(4).unwrap();
        assert_eq!(ended.await, Ok(8));
    }

    #[tokio::test]
    async fn a_panic_is_the_result_of_whoever_waits() {
        let work = Detached::new(async { assert_eq!(1, 2) });
        assert!(work.await.is_err());
    }
}
