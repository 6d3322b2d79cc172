//! The servers' results as a table.

use super::{Case, Server, ServerRow};
use crate::report::table;

pub(crate) fn costs(rows: &[ServerRow]) -> String {
    let heading = [
        "",
        "POSTs a second",
        "CPU a POST",
        "events a CPU second",
        "p99 at half",
        "peak memory",
        "answer",
        "stored bytes an event",
        "events a record",
        "records a call",
    ];
    table(&heading, rows.iter().map(cells))
}

pub(crate) fn title(case: &Case) -> String {
    let server = match case.server {
        Server::Ingest { commit_interval_ms } => format!("ingest-server, {commit_interval_ms} ms"),
        Server::NginxReturn => "nginx, return 200".into(),
        Server::NginxProxy { keeps_upstream: false } => "nginx, proxy and log".into(),
        Server::NginxProxy { keeps_upstream: true } => "nginx, proxy over kept connections and log".into(),
    };
    let events = if case.events == 1 { "1 event".into() } else { format!("{} events", case.events) };
    match case.rate {
        Some(rate) => format!("{events}: {server}, {rate} a second"),
        None => format!("{events}: {server}, {} connections", case.connections),
    }
}

fn cells(row: &ServerRow) -> Vec<String> {
    let cost = row.cost;
    let is_stored = matches!(row.case.server, Server::Ingest { .. });
    let of_stream = |text: String| if is_stored { text } else { "-".into() };
    vec![
        title(&row.case),
        format!("{:.0}", cost.posts_a_second),
        format!("{:.1} µs", cost.cpu_us),
        format!("{:.0}", row.events_a_cpu_second()),
        format!("{:.0} ms", cost.p99_ms),
        format!("{:.0} MiB", cost.peak_rss_mib),
        format!("{:.0} bytes", cost.answer_bytes),
        of_stream(format!("{:.0}", cost.stored_bytes_an_event)),
        of_stream(format!("{:.0}", cost.events_a_record)),
        of_stream(format!("{:.1}", cost.records_a_call)),
    ]
}
