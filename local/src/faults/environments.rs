//! The running execution environments by name, so that one can be killed from outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The environments of all functions.
#[derive(Clone, Default)]
pub struct Environments(Arc<Mutex<HashMap<String, Arc<Notify>>>>);

/// An environment's entry, gone when it is dropped.
pub struct Registered {
    environments: Environments,
    name: String,
}

impl Environments {
    /// Registers an environment; the `Notify` fires when it is to be killed.
    #[must_use]
    pub fn register(&self, name: &str) -> (Registered, Arc<Notify>) {
        let killed = Arc::new(Notify::new());
        self.lock().insert(name.to_owned(), killed.clone());
        (Registered { environments: self.clone(), name: name.to_owned() }, killed)
    }

    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }

    /// Kills an environment if it is still running.
    pub fn kill(&self, name: &str) {
        if let Some(killed) = self.lock().get(name) {
            killed.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.environments.lock().remove(&self.name);
    }
}
