//! One connection, opened anew when it has ended.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::Mutex;

use crate::send_error::SendError;
use crate::target::{Body, Sender, Target};

/// Fails with the request itself if none of it was sent.
type Sent = Result<Response<Incoming>, TrySendError<Request<Body>>>;

#[derive(Default)]
pub(crate) struct Connection {
    sender: RefCell<Option<Sender>>,
    /// Held by the POST that opens it, while others of HTTP/2 wait.
    opening: Mutex<()>,
}

impl Connection {
    fn is_open(&self) -> bool {
        match &*self.sender.borrow() {
            Some(Sender::Http1(sender)) => !sender.is_closed(),
            Some(Sender::Http2(sender)) => !sender.is_closed(),
            None => false,
        }
    }

    /// Opens it unless it is open.
    pub(crate) async fn open(&self, target: &Target) -> Result<(), SendError> {
        if self.is_open() {
            return Ok(());
        }
        let _guard = self.opening.lock().await;
        if !self.is_open() {
            let sender = target.connect().await?;
            self.sender.replace(Some(sender));
        }
        Ok(())
    }

    /// `None` if it is not open.
    pub(crate) async fn send(&self, request: Request<Body>) -> Option<Sent> {
        // The request is taken at once: the borrow ends before anything is awaited.
        let answer: Pin<Box<dyn Future<Output = Sent>>> = match self.sender.borrow_mut().as_mut()? {
            Sender::Http1(sender) => Box::pin(sender.try_send_request(request)),
            Sender::Http2(sender) => Box::pin(sender.try_send_request(request)),
        };
        Some(answer.await)
    }

    /// Until it takes another request, or has ended.
    pub(crate) async fn ready(&self) {
        let ready = poll_fn(|context| match self.sender.borrow_mut().as_mut() {
            Some(Sender::Http1(sender)) => sender.poll_ready(context).map(|ready| ready.is_ok()),
            _ => true.into(),
        });
        if !ready.await {
            self.abandon();
        }
    }

    /// After a POST failed on it. One of HTTP/2 goes on while it is open: its other POSTs need not fail.
    pub(crate) fn abandon(&self) {
        let mut sender = self.sender.borrow_mut();
        if !matches!(&*sender, Some(Sender::Http2(sender)) if !sender.is_closed()) {
            *sender = None;
        }
    }
}
