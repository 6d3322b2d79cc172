//! What ingest-server is held to.

use super::report::title;
use super::{Case, SLOW, Server, ServerRow};
use crate::targets::Bound::{AtLeast, AtMost};
use crate::targets::Target;

const DEFAULT: Server = Server::Ingest { commit_interval_ms: 200 };
const QUICK: Server = Server::Ingest { commit_interval_ms: 10 };

/// The targets of which the rows say something.
pub(crate) fn targets(rows: &[ServerRow]) -> Vec<Target> {
    let cpu_beside = |nginx| {
        move |row: &ServerRow| {
            let is_beside = |other: &&ServerRow| {
                (other.case.server, other.case.events, other.case.rate) == (nginx, row.case.events, row.case.rate)
            };
            let beside = rows.iter().find(is_beside)?;
            Some(row.cost.cpu_us / beside.cost.cpu_us)
        }
    };
    let is = |server, events, rate: Option<u32>| {
        move |case: &Case| (case.server, case.events, case.rate) == (server, events, rate)
    };
    let mut targets = Vec::new();
    let mut add = |is_meant: &dyn Fn(&Case) -> bool, what, bound, measured: &dyn Fn(&ServerRow) -> Option<f64>| {
        let meant = rows.iter().filter(|row| is_meant(&row.case));
        targets.extend(
            meant.filter_map(|row| Some(Target { of: title(&row.case), what, bound, measured: measured(row)? })),
        );
    };
    for (server, rate) in [(QUICK, None), (DEFAULT, None), (DEFAULT, Some(SLOW))] {
        let one = is(server, 1, rate);
        add(
            &one,
            "CPU a POST, divided by that of nginx that returns 200",
            AtMost(4.0),
            &cpu_beside(Server::NginxReturn),
        );
        add(
            &one,
            "CPU a POST, divided by that of nginx that proxies and logs",
            AtMost(0.4),
            &cpu_beside(Server::NginxProxy { keeps_upstream: false }),
        );
        add(&is(server, 20, rate), "events a CPU second", AtLeast(200_000.0), &|row| Some(row.events_a_cpu_second()));
    }
    let p99 = |row: &ServerRow| Some(row.cost.p99_ms);
    for events in [1, 20] {
        add(&is(QUICK, events, None), "p99 at half of the highest rate, ms", AtMost(30.0), &p99);
        add(&is(DEFAULT, events, None), "p99 at half of the highest rate, ms", AtMost(250.0), &p99);
    }
    let is_slow = is(DEFAULT, 1, Some(SLOW));
    add(&is_slow, "stored bytes an event", AtMost(120.0), &|row| Some(row.cost.stored_bytes_an_event));
    add(&is_slow, "bytes of an answer", AtMost(200.0), &|row| Some(row.cost.answer_bytes));
    targets
}
