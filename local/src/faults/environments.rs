//! The running execution environments by name, so that one can be killed from outside.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::mutex::Mutex;

#[derive(Clone, Default)]
pub struct Environments(Arc<Mutex<HashMap<String, Arc<Notify>>>>);

/// An environment's entry, gone when it is dropped.
pub struct Registered {
    environments: Environments,
    name: String,
}

impl Environments {
    /// Registers an environment; the `Notify` fires when it is to be killed.
    pub fn register(&self, name: &str) -> (Registered, Arc<Notify>) {
        let killed = Arc::new(Notify::new());
        self.0.lock().insert(name.to_owned(), killed.clone());
        (Registered { environments: self.clone(), name: name.to_owned() }, killed)
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.lock().contains_key(name)
    }

    pub fn kill(&self, name: &str) {
        if let Some(killed) = self.0.lock().get(name) {
            killed.notify_waiters();
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.environments.0.lock().remove(&self.name);
    }
}
