//! Requests that are much work are read on threads of their own, so that others need not wait for them: neither those that are
//! little work, nor much longer those of other clients.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinError;

/// Threads for this beside each that serves connections.
pub(super) const THREADS: usize = 2;

/// The work aside of one thread's connections. Of each client it does one piece at a time: each piece waits for its client's earlier
/// ones and for one of each other client. Who comes through a proxy that is not trusted is one client with all others.
#[derive(Debug, Default)]
pub(super) struct Aside {
    clients: Mutex<HashMap<IpAddr, Queue>>,
}

#[derive(Debug)]
struct Queue {
    turn: Arc<Semaphore>,
    /// Waiting or under way; without any, the client is forgotten.
    pieces: usize,
}

/// A client's piece of work, until it is dropped.
struct Piece<'a> {
    aside: &'a Aside,
    client: IpAddr,
}

impl Aside {
    /// Does a client's work on another thread, after what the client has there.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        client: IpAddr,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let (_piece, turn) = self.begin(client);
        // The semaphore is never closed.
        let _turn = turn.acquire().await.ok();
        tokio::task::spawn_blocking(work).await
    }

    fn begin(&self, client: IpAddr) -> (Piece<'_>, Arc<Semaphore>) {
        let client = network(client);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = clients.entry(client).or_insert_with(|| Queue { turn: Arc::new(Semaphore::new(1)), pieces: 0 });
        queue.pieces += 1;
        (Piece { aside: self, client }, queue.turn.clone())
    }
}

/// An IPv6 client has a network of addresses: <https://www.rfc-editor.org/rfc/rfc4291#section-2.5.4>
fn network(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl Drop for Piece<'_> {
    fn drop(&mut self) {
        let mut clients = self.aside.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = clients.get_mut(&self.client) {
            queue.pieces -= 1;
            if queue.pieces == 0 {
                clients.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::mpsc;
    use std::time::Duration;

    const BUSY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    /// Runs on a runtime as a worker has it.
    fn on_a_worker(test: impl Future<Output = ()>) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(THREADS).build().unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn one_client_with_much_work_keeps_no_other_waiting() {
        on_a_worker(async {
            let aside = Arc::new(Aside::default());
            let (release, wait) = mpsc::channel::<()>();
            let wait = Arc::new(Mutex::new(wait));
            let busy: Vec<_> = (0..60)
                .map(|_| {
                    let (aside, wait) = (aside.clone(), wait.clone());
                    let work = move || wait.lock().unwrap().recv().unwrap();
                    tokio::spawn(async move { aside.run(BUSY, work).await.unwrap() })
                })
                .collect();
            tokio::task::yield_now().await;
            // While all of the client's work stands still.
            let other = tokio::time::timeout(Duration::from_secs(30), aside.run(OTHER, || 7)).await;
            assert_eq!(other.unwrap().unwrap(), 7);
            for _ in 0..60 {
                release.send(()).unwrap();
            }
            for work in busy {
                work.await.unwrap();
            }
            assert!(aside.clients.lock().unwrap().is_empty());
        });
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::9"));
        assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn work_that_panics_leaves_the_client_its_turn() {
        on_a_worker(async {
            let aside = Aside::default();
            let work = || -> u8 { std::panic::resume_unwind(Box::new("on purpose")) };
            assert!(aside.run(BUSY, work).await.unwrap_err().is_panic());
            assert_eq!(aside.run(BUSY, || 7).await.unwrap(), 7);
            assert!(aside.clients.lock().unwrap().is_empty());
        });
    }
}
