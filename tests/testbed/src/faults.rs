//! What goes wrong with calls. A fault is either side of the call's effect, which is what makes retries hard: the caller
//! of one that took effect can't tell it from one that did not.

use std::collections::VecDeque;
use std::time::Duration;

/// What goes wrong with one call. `E` is the error of whoever calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault<E> {
    /// It has no effect and fails.
    Fails(E),
    /// It takes effect and fails.
    DoneButFails(E),
    /// It takes effect and is never answered.
    AnswerLost,
    /// It has no effect and is never answered.
    Lost,
    /// It is answered that much later.
    Slow(Duration),
}

/// When and how a call is answered. Waiting is the caller's, who has a clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T, E> {
    Now(Result<T, E>),
    After(Duration, Result<T, E>),
    Never,
}

impl<T, E> Answer<T, E> {
    /// Waits as the answer says; for ever where there is none.
    ///
    /// # Errors
    ///
    /// Those of the answer.
    pub async fn arrives<S: Future>(self, sleep: impl FnOnce(Duration) -> S) -> Result<T, E> {
        match self {
            Self::Now(result) => result,
            Self::After(late, result) => {
                sleep(late).await;
                result
            }
            Self::Never => std::future::pending().await,
        }
    }
}

type Plan<E> = Box<dyn FnMut(usize) -> Option<Fault<E>>>;

/// Decides what goes wrong with each call.
pub struct Faults<E> {
    plan: Plan<E>,
    calls: usize,
}

impl<E> Default for Faults<E> {
    fn default() -> Self {
        Self::planned(|_| None)
    }
}

impl<E> Faults<E> {
    /// The plan gets the number of each call, from 1.
    pub fn planned(plan: impl FnMut(usize) -> Option<Fault<E>> + 'static) -> Self {
        Self { plan: Box::new(plan), calls: 0 }
    }

    /// The first calls have these faults, all after them none.
    pub fn script(faults: impl IntoIterator<Item = Fault<E>>) -> Self
    where
        E: 'static,
    {
        let mut faults: VecDeque<_> = faults.into_iter().collect();
        Self::planned(move |_| faults.pop_front())
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Makes a call, whose effect takes place or not.
    pub fn call<T>(&mut self, effect: impl FnOnce() -> Result<T, E>) -> Answer<T, E> {
        self.calls += 1;
        match (self.plan)(self.calls) {
            None => Answer::Now(effect()),
            Some(Fault::Fails(error)) => Answer::Now(Err(error)),
            Some(Fault::DoneButFails(error)) => Answer::Now(effect().and(Err(error))),
            Some(Fault::AnswerLost) => {
                drop(effect());
                Answer::Never
            }
            Some(Fault::Lost) => Answer::Never,
            Some(Fault::Slow(late)) => Answer::After(late, effect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_on_its_side_of_the_effect() {
        let (mut effects, later) = (0, Duration::from_secs(1));
        let script =
            [Fault::Fails("no"), Fault::DoneButFails("no"), Fault::AnswerLost, Fault::Lost, Fault::Slow(later)];
        let mut faults = Faults::script(script);
        let mut call = || {
            let answer = faults.call(|| {
                effects += 1;
                Ok(effects)
            });
            (effects, answer)
        };
        assert_eq!(call(), (0, Answer::Now(Err("no"))));
        assert_eq!(call(), (1, Answer::Now(Err("no"))));
        assert_eq!(call(), (2, Answer::Never));
        assert_eq!(call(), (2, Answer::Never));
        assert_eq!(call(), (3, Answer::After(later, Ok(3))));
        assert_eq!(call(), (4, Answer::Now(Ok(4))));
        assert_eq!(faults.calls(), 6);
    }

    #[test]
    fn an_effect_that_fails_by_itself_keeps_its_error() {
        let mut faults = Faults::script([Fault::DoneButFails("injected")]);
        assert_eq!(faults.call(|| Err::<(), _>("its own")), Answer::Now(Err("its own")));
    }

    #[test]
    fn a_plan_goes_by_the_number_of_the_call() {
        let mut faults = Faults::planned(|call| (call >= 3).then_some(Fault::Fails(call)));
        let answers: Vec<_> = (0..4).map(|_| faults.call(|| Ok(()))).collect();
        assert_eq!(answers, [Answer::Now(Ok(())), Answer::Now(Ok(())), Answer::Now(Err(3)), Answer::Now(Err(4))]);
    }
}
