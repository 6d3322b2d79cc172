//! Progress on stderr: one line that changes on a terminal, else a line every five seconds.

use std::io::IsTerminal;
use std::rc::Rc;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use crate::exchange::Shared;
use crate::recorder::Live;

const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(crate) struct Display {
    /// On a terminal.
    bar: Option<ProgressBar>,
    period: Duration,
}

impl Display {
    pub(crate) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: None, period: ELSEWHERE };
        }
        Self { bar: Some(ProgressBar::new_spinner()), period: ON_TERMINAL }
    }

    fn show(&self, line: String) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => eprintln!("{line}"),
        }
    }

    /// Removes the line that changes.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Shows a run until the handle is aborted.
    pub(crate) fn follow(&self, shared: Rc<Shared>) -> JoinHandle<()> {
        let display = self.clone();
        tokio::task::spawn_local(async move {
            let (mut ticks, mut before, mut looked) = (interval(display.period), Live::default(), Instant::now());
            ticks.tick().await;
            loop {
                ticks.tick().await;
                let live = shared.recorder.borrow_mut().snapshot();
                display.show(line(&before, &live, looked.elapsed(), shared.elapsed()));
                (before, looked) = (live, Instant::now());
            }
        })
    }

    /// Shows how much of what was stored has landed.
    pub(crate) fn landing(&self) -> impl FnMut(u64, u64) {
        let display = self.clone();
        let mut shown: Option<Instant> = None;
        move |landed, expected| {
            if shown.is_none_or(|shown| shown.elapsed() >= display.period) || landed == expected {
                display.show(format!("landed {landed} of {expected}"));
                shown = Some(Instant::now());
            }
        }
    }
}

fn line(before: &Live, live: &Live, elapsed: Duration, since_start: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    let rate = |before: u64, now: u64| (now - before) as f64 / seconds;
    format!(
        "{:>4} s  planned {:.0}/s  sent {:.0}/s  answered {:.0}/s  errors {}  p99 {:.1} ms  in flight {}",
        since_start.as_secs(),
        rate(before.planned, live.planned),
        rate(before.sent, live.sent),
        rate(before.answered, live.answered),
        live.errors,
        Duration::from_micros(live.p99_us).as_secs_f64() * 1_000.0,
        live.planned - live.answered.min(live.planned),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_cover_the_time_since_the_last_snapshot() {
        let before = Live { planned: 100, sent: 100, answered: 90, errors: 1, p99_us: 0 };
        let live = Live { planned: 300, sent: 300, answered: 280, errors: 3, p99_us: 12_345 };
        let expected = "   7 s  planned 100/s  sent 100/s  answered 95/s  errors 3  p99 12.3 ms  in flight 20";
        assert_eq!(line(&before, &live, Duration::from_secs(2), Duration::from_secs(7)), expected);
    }
}
