//! Server-sent events: the overview each time that it is read, with the versions of the rest.
//! <https://html.spec.whatwg.org/multipage/server-sent-events.html>

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, Response};
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use crate::api::FRESH;
use crate::observer::Watch;
use crate::snapshot::About;

/// Half of the time after which the server closes a connection that is idle.
const HEARTBEAT: Duration = Duration::from_secs(10);

struct Follows {
    watch: Watch,
    about: Arc<About>,
    is_first: bool,
    _place: OwnedSemaphorePermit,
}

/// A stream until the client goes away. One that reads too slowly misses snapshots: it gets the newest.
pub(crate) fn response(watch: Watch, about: Arc<About>, place: OwnedSemaphorePermit) -> Response<Body> {
    let follows = Follows { watch, about, is_first: true, _place: place };
    let events = stream::unfold(follows, |mut follows| async move {
        let event = follows.next().await?;
        Some((Ok::<_, Infallible>(event), follows))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

impl Follows {
    /// The next overview, or after a while a comment: a connection that is silent for longer is closed as idle.
    async fn next(&mut self) -> Option<Bytes> {
        match tokio::time::timeout(HEARTBEAT, self.overview()).await {
            Ok(overview) => overview,
            Err(_) => Some(Bytes::from_static(b": waits for S3 or CloudWatch\n\n")),
        }
    }

    async fn overview(&mut self) -> Option<Bytes> {
        // What was read long ago would look as if it were so now.
        let snapshot = if self.is_first {
            let fresh = self.watch.fresh(FRESH).await?;
            self.is_first = false;
            fresh
        } else {
            self.watch.look();
            self.watch.snapshots.changed().await.ok()?;
            self.watch.snapshots.borrow_and_update().clone()?
        };
        Some(format!("event: overview\ndata: {}\n\n", snapshot.overview(&self.about)).into())
    }
}
