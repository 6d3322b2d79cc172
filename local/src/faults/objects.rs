//! Faults of S3, and of functions while they write to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;

use super::plan::Fault;
use super::{Faults, NoAnswer};
use crate::s3::S3;

const OF_A_WRITE: [Fault; 9] = [
    Fault::S3SlowDown,
    Fault::S3Error,
    Fault::S3Conflict,
    Fault::S3Slow,
    Fault::S3Unanswered,
    Fault::S3Late,
    Fault::S3KillBefore,
    Fault::S3KillDuring,
    Fault::S3KillAfter,
];
const OF_A_LOOK: [Fault; 4] = [Fault::S3SlowDown, Fault::S3Error, Fault::S3Slow, Fault::S3Unanswered];

/// Longer than the landing function waits for an answer.
const SLOWEST: Duration = Duration::from_secs(6);
/// Long after the landing function gave up on a write, and mostly after the batch was sent again.
const LATEST: Duration = Duration::from_secs(15);

/// Answers a function's request, unless a fault does.
pub async fn answer(
    faults: &Arc<Faults>,
    environment: &str,
    request: Request<Bytes>,
    s3: S3,
) -> Result<Response<Body>, NoAnswer> {
    let among = match *request.method() {
        Method::PUT => &OF_A_WRITE[..],
        Method::HEAD => &OF_A_LOOK[..],
        _ => &[],
    };
    let hits = format!("{environment} {} {}", request.method(), request.uri().path());
    let Some(fault) = faults.draw(among, &hits) else { return Ok(s3.call(request).await) };
    match fault {
        Fault::S3SlowDown => return Ok(error(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")),
        Fault::S3Conflict => return Ok(error(StatusCode::CONFLICT, "ConditionalRequestConflict")),
        Fault::S3Slow => return answer_after(faults.up_to(SLOWEST), request, s3).await,
        Fault::S3Unanswered => drop(s3.call(request).await),
        Fault::S3Late => hold(faults, request, s3),
        Fault::S3KillBefore => faults.environments.kill(environment),
        Fault::S3KillDuring => {
            faults.environments.kill(environment);
            hold(faults, request, s3);
        }
        Fault::S3KillAfter => {
            drop(s3.call(request).await);
            faults.environments.kill(environment);
        }
        _ => return Ok(error(StatusCode::INTERNAL_SERVER_ERROR, "InternalError")),
    }
    Err(NoAnswer)
}

/// Answers late. A sender that stops waiting does not stop its write.
async fn answer_after(delay: Duration, request: Request<Bytes>, s3: S3) -> Result<Response<Body>, NoAnswer> {
    let answer = tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        s3.call(request).await
    });
    answer.await.map_err(|_| NoAnswer)
}

/// Lets a write take place later, whatever has become of its sender.
fn hold(faults: &Arc<Faults>, request: Request<Bytes>, s3: S3) {
    let (faults, late) = (faults.clone(), faults.up_to(LATEST));
    faults.held_writes.fetch_add(1, Ordering::SeqCst);
    tokio::spawn(async move {
        tokio::time::sleep(late).await;
        let key = request.uri().path().to_owned();
        let answer = s3.call(request).await;
        let status = answer.status().as_u16();
        faults.journal.write(serde_json::json!({"held_write": key, "answered": status}));
        faults.held_writes.fetch_sub(1, Ordering::SeqCst);
    });
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
    let body = format!("{xml}<Error><Code>{code}</Code><Message>injected</Message></Error>");
    (status, [(CONTENT_TYPE, "application/xml")], body).into_response()
}
