//! Promises broken on purpose: how `tests/test_promises.py` sees that a test fails when it must.

use std::env;
use std::fmt::Debug;

/// The one of `known` that the variable `SABOTAGE` names; none when it is not set.
///
/// # Panics
///
/// When `SABOTAGE` names none of them.
pub fn asked_for<T: Debug>(known: impl IntoIterator<Item = T>) -> Option<T> {
    let name = env::var("SABOTAGE").ok()?;
    let found = known.into_iter().find(|sabotage| format!("{sabotage:?}") == name);
    Some(found.unwrap_or_else(|| panic!("this test knows no sabotage {name}")))
}

/// How many steps a failing case is simplified by: none where the failure was asked for.
#[must_use]
pub fn shrink_steps(usual: u32) -> u32 {
    if env::var_os("SABOTAGE").is_some() { 0 } else { usual }
}
