//! Kinesis and S3 that say yes at once.

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Serves both on a free port.
pub(crate) async fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable());
    tokio::spawn(async move {
        if let Err(problem) = axum::serve(listener, router).await {
            eprintln!("the stand-ins ended: {problem}");
        }
    });
    Ok(address)
}

async fn answer(method: Method, headers: HeaderMap, body: Bytes) -> Response {
    match headers.get("x-amz-target").and_then(|target| target.to_str().ok()) {
        Some(target) if target.ends_with(".PutRecords") => put_records(&body),
        None if method == Method::PUT => {
            (StatusCode::OK, [(header::ETAG, "\"9b2cf535f27731c974343645a3985328\"")]).into_response()
        }
        _ => StatusCode::NOT_IMPLEMENTED.into_response(),
    }
}

fn put_records(body: &[u8]) -> Response {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let count = request["Records"].as_array().map_or(0, Vec::len);
    let stored = json!({
        "SequenceNumber": "49590338271490256608559692538361571095921575989136588898",
        "ShardId": "shardId-000000000000",
    });
    let answer = json!({"FailedRecordCount": 0, "Records": vec![stored; count]});
    ([(header::CONTENT_TYPE, "application/x-amz-json-1.1")], answer.to_string()).into_response()
}
