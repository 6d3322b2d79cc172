use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout};

use super::*;
use crate::target::Trust;

/// A server that takes connections and says nothing.
struct Silent {
    listener: TcpListener,
    taken: Vec<TcpStream>,
}

impl Silent {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), taken: Vec::new() }
    }

    async fn connections(&self, limit: usize) -> Connections {
        self.connections_by("http", limit).await
    }

    async fn connections_by(&self, scheme: &str, limit: usize) -> Connections {
        let url = format!("{scheme}://{}/events", self.listener.local_addr().unwrap());
        Connections::new(Target::new(&url, Protocol::Http1, &Trust::Anyone).await.unwrap(), limit)
    }

    async fn take(&mut self, count: usize) {
        for _ in 0..count {
            self.taken.push(self.listener.accept().await.unwrap().0);
        }
    }
}

fn ready(turn: Turn) -> Rc<Connection> {
    match turn {
        Turn::Ready(connection) => connection,
        Turn::Open => panic!("not ready: to be opened"),
        Turn::Wait(_) => panic!("not ready: waits"),
    }
}

fn waits(turn: Turn) -> oneshot::Receiver<Turn> {
    match turn {
        Turn::Wait(receiver) => receiver,
        _ => panic!("it does not wait"),
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), what).await.unwrap()
}

#[tokio::test]
async fn those_that_are_open_come_first_then_new_ones_and_then_one_waits() {
    LocalSet::new()
        .run_until(async {
            let server = Silent::new().await;
            let connections = server.connections(2).await;
            connections.open_some(1).await.unwrap();
            let first = ready(connections.turn());
            assert!(matches!(connections.turn(), Turn::Open));
            let second = connections.open().await.unwrap();
            let (one, other) = (waits(connections.turn()), waits(connections.turn()));
            connections.release(first.clone()).await;
            assert!(Rc::ptr_eq(&ready(soon(one).await.unwrap()), &first));
            connections.release(second.clone()).await;
            assert!(Rc::ptr_eq(&ready(soon(other).await.unwrap()), &second));
            assert_eq!(connections.opened(), 2);
        })
        .await;
}

#[tokio::test]
async fn a_place_is_free_again_when_opening_fails_or_is_given_up() {
    LocalSet::new()
        .run_until(async {
            let server = Silent::new().await;
            // It never answers the first words of TLS.
            let connections = server.connections_by("https", 1).await;
            assert!(matches!(connections.turn(), Turn::Open));
            let waiting = waits(connections.turn());
            assert!(timeout(Duration::from_millis(10), connections.open()).await.is_err());
            assert!(matches!(soon(waiting).await.unwrap(), Turn::Open));
            drop(server);
            assert!(connections.open().await.is_err());
            assert!(matches!(connections.turn(), Turn::Open));
        })
        .await;
}

#[tokio::test]
async fn who_waits_opens_another_in_place_of_one_that_broke() {
    LocalSet::new()
        .run_until(async {
            let server = Silent::new().await;
            let connections = server.connections(1).await;
            connections.open_some(1).await.unwrap();
            let broken = ready(connections.turn());
            let waiting = waits(connections.turn());
            connections.discard(broken);
            assert!(matches!(soon(waiting).await.unwrap(), Turn::Open));
            assert!(matches!(connections.turn(), Turn::Wait(_)));
        })
        .await;
}

#[tokio::test]
async fn what_the_server_closed_is_not_used() {
    LocalSet::new()
        .run_until(async {
            let mut server = Silent::new().await;
            let connections = server.connections(2).await;
            connections.open_some(2).await.unwrap();
            server.take(2).await;
            server.taken.clear();
            let all_closed = || connections.state.borrow().ready.iter().all(|connection| connection.is_closed());
            soon(async {
                while !all_closed() {
                    sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            assert!(matches!(connections.turn(), Turn::Open) && matches!(connections.turn(), Turn::Open));
            assert!(matches!(connections.turn(), Turn::Wait(_)));
        })
        .await;
}

#[tokio::test]
async fn nobody_waits_for_ever() {
    LocalSet::new()
        .run_until(async {
            let server = Silent::new().await;
            let connections = server.connections(1).await;
            connections.open_some(1).await.unwrap();
            let busy = ready(connections.turn());
            let (gone, waiting) = (waits(connections.turn()), waits(connections.turn()));
            drop(gone);
            connections.stop_waiting();
            assert!(soon(waiting).await.is_err());
            connections.release(busy).await;
            assert!(matches!(connections.turn(), Turn::Ready(_)));
        })
        .await;
}
