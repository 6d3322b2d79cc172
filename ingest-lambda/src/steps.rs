//! Counts work in tests, step by step: time on a shared machine says little. Outside of tests it costs nothing.
//!
//! A step is a byte that is looked at or written, or a call whose cost has a bound.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Counts so many steps.
#[cfg(test)]
pub(crate) fn count(steps: usize) {
    STEPS.with(|total| total.set(total.get() + steps));
}

#[cfg(not(test))]
pub(crate) const fn count(_steps: usize) {}

/// The steps that some work takes.
#[cfg(test)]
pub(crate) fn steps_of(work: impl FnOnce()) -> usize {
    STEPS.set(0);
    work();
    STEPS.get()
}
