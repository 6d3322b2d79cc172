//! What those ask who look after the server, on a port of its own: clients that take all connections don't keep them out.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::metric::Metric;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Server;
use crate::answer::Reply;

pub(super) const METRICS_PATH: &str = "/metrics";
pub(super) const READY_PATH: &str = "/ready";
/// Those of a few scrapers and of people.
const MAX_CONNECTIONS: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Serves for as long as the process lives.
pub(super) async fn serve(listener: TcpListener, server: Arc<Server>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection(stream, server.clone());
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "a connection for metrics ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics can't be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(&server, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(TIMEOUT).serve_connection(TokioIo::new(stream), service).await
}

fn respond(server: &Server, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = HeaderValue::from_static("text/plain; version=0.0.4");
    let (status, content_type, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, METRICS_PATH) => (200, text, metrics(server)),
        (&Method::GET, READY_PATH) => {
            let Reply { status, body, .. } = server.readiness();
            (status, HeaderValue::from_static("application/json"), body)
        }
        (_, METRICS_PATH | READY_PATH) => (405, text, "it takes GET\n".into()),
        _ => (404, text, format!("there are {METRICS_PATH} and {READY_PATH}\n")),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn metrics(server: &Server) -> String {
    let mut text = String::new();
    for (metric, value) in server.tally.counts().totals() {
        match metric {
            Metric::LargestRequest | Metric::PeakMemory => write_sample(&mut text, &name(metric), "gauge", value),
            _ => write_sample(&mut text, &format!("{}_total", name(metric)), "counter", value),
        }
    }
    write_apps(&mut text, &server.tally.counts().totals_by_app());
    if let Some(schema) = server.tally.schema() {
        write_violations(&mut text, &schema.totals());
    }
    let gauges = [
        ("connections", server.connections()),
        ("in_flight_bytes", server.commit.bytes()),
        ("body_bytes", server.bodies.used()),
    ];
    gauges
        .iter()
        .for_each(|(name, value)| write_sample(&mut text, &format!("playhead_{name}"), "gauge", *value as u64));
    text
}

/// `playhead_app_accepted_events_total{app="web"}`: by a name of its own, so that a sum over what has one name counts nothing twice.
fn write_apps(text: &mut String, apps: &BTreeMap<String, BTreeMap<Metric, u64>>) {
    let metrics: BTreeSet<Metric> = apps.values().flat_map(|sums| sums.keys().copied()).collect();
    for metric in metrics {
        let name = format!("{}_total", name(metric).replacen("playhead", "playhead_app", 1));
        let samples = apps.iter().filter_map(|(app, sums)| Some((format!("{{app=\"{app}\"}}"), *sums.get(&metric)?)));
        write_samples(text, &name, "counter", samples);
    }
}

fn write_sample(text: &mut String, name: &str, kind: &str, value: u64) {
    write_samples(text, name, kind, [(String::new(), value)].into_iter());
}

/// With the labels of each.
fn write_samples(text: &mut String, name: &str, kind: &str, samples: impl Iterator<Item = (String, u64)>) {
    text.push_str(&format!("# TYPE {name} {kind}\n"));
    samples.for_each(|(labels, value)| text.push_str(&format!("{name}{labels} {value}\n")));
}

/// Violations by rule, and events that were not validated.
fn write_violations(text: &mut String, (violations, unvalidated): &(Vec<(String, u64)>, u64)) {
    let labels = |rule: &str| format!("{{rule=\"{}\"}}", rule.replace('\\', r"\\").replace('"', "\\\""));
    let samples = violations.iter().map(|(rule, count)| (labels(rule), *count));
    if !violations.is_empty() {
        write_samples(text, &format!("{}_total", name(Metric::SchemaViolations)), "counter", samples);
    }
    write_sample(text, &format!("{}_total", name(Metric::SchemaUnavailable)), "counter", *unvalidated);
}

/// `AcceptedEvents` is `playhead_accepted_events`.
fn name(metric: Metric) -> String {
    let mut name = String::from("playhead");
    for letter in metric.as_str().chars() {
        if letter.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_a_metric_by_app_stand_together() {
        let sums = |events| BTreeMap::from([(Metric::AcceptedEvents, events)]);
        let mut text = String::new();
        write_apps(&mut text, &BTreeMap::from([("web".into(), sums(3)), ("ios".into(), sums(4))]));
        let name = "playhead_app_accepted_events_total";
        assert_eq!(text, format!("# TYPE {name} counter\n{name}{{app=\"ios\"}} 4\n{name}{{app=\"web\"}} 3\n"));
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        assert_eq!(name(Metric::AcceptedEvents), "playhead_accepted_events");
        let is_fine = |name: String| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        assert!(Metric::all().map(name).all(is_fine));
    }
}
