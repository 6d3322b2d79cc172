//! What landed, hour by hour: from a CSV file or from a bucket's `_SUCCESS` files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use monitoring_lambdas::manifest::Success;
use monitoring_lambdas::rules::partition::Partition;
use shared::timestamp::{MILLIS_PER_HOUR, MILLIS_PER_MINUTE, UnixMillis, UtcDate, UtcHour};

/// Hours from the first to the last: ten years.
const MAX_HOURS: usize = 24 * 366 * 10;

/// An hour that was sealed, or should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hour {
    /// Compressed, under `events/`.
    pub(crate) bytes: u64,
    pub(crate) events: u64,
    /// Minutes from its end to its seal; `None` when it was not sealed.
    pub(crate) sealed_minutes_after: Option<i64>,
}

impl Hour {
    /// One that was not sealed, and of which nothing is known.
    pub(crate) const NOT_SEALED: Self = Self { bytes: 0, events: 0, sealed_minutes_after: None };
}

/// Hours without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) first: UtcHour,
    pub(crate) hours: Vec<Hour>,
}

/// The first line of a CSV file.
pub(crate) const HEADER: &str = "hour,bytes,events,sealed_minutes_after";

impl History {
    /// Hours that are not in the file were not sealed.
    pub(crate) fn from_csv(text: &str) -> anyhow::Result<Self> {
        let mut lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
        if lines.next().map(|(_, line)| line) != Some(HEADER) {
            bail!("the first line is not {HEADER}");
        }
        let hours = lines.map(|(at, line)| {
            row(line).with_context(|| format!("line {}: {line:?} is not like 2026-11-21T09,51200,800,20", at + 1))
        });
        Self::of(hours.collect::<anyhow::Result<_>>()?)
    }

    /// From `events/dt=…/hour=…/_SUCCESS` under a folder.
    pub(crate) fn from_manifests(folder: &Path) -> anyhow::Result<Self> {
        let mut hours = Vec::new();
        for date in folders(&folder.join("events"), "dt=")? {
            for hour in folders(&date, "hour=")? {
                let path = hour.join("_SUCCESS");
                if path.exists() {
                    hours.push(sealed(&path).with_context(|| format!("{}", path.display()))?);
                }
            }
        }
        Self::of(hours)
    }

    fn of(mut sealed: Vec<(UtcHour, Hour)>) -> anyhow::Result<Self> {
        sealed.sort_by_key(|(hour, _)| *hour);
        let (Some((first, _)), Some((last, _))) = (sealed.first().copied(), sealed.last().copied()) else {
            bail!("there is no hour");
        };
        let count = index(first, last).map_or(0, |last| last + 1);
        if count > MAX_HOURS {
            bail!("it is {count} hours long; {MAX_HOURS} at most are looked at");
        }
        let mut history = Self { first, hours: vec![Hour::NOT_SEALED; count] };
        for (hour, one) in sealed {
            if let Some(at) = index(first, hour) {
                history.hours[at] = one;
            }
        }
        Ok(history)
    }

    pub(crate) fn hour(&self, at: usize) -> UtcHour {
        self.first.plus(i64::try_from(at).unwrap_or(i64::MAX))
    }

    /// Compressed bytes of a partition that was sealed; a date is when all of its hours are.
    pub(crate) fn bytes(&self, partition: Partition) -> Option<u64> {
        match partition {
            Partition::Hour(hour) => {
                let hour = self.hours.get(index(self.first, hour)?)?;
                hour.sealed_minutes_after.map(|_| hour.bytes)
            }
            Partition::Date(date) => date.hours().map(|hour| self.bytes(Partition::Hour(hour))).sum(),
        }
    }

    /// When a partition was sealed: a date with its last hour.
    pub(crate) fn sealed_at(&self, partition: Partition) -> Option<UnixMillis> {
        let hour = match partition {
            Partition::Hour(hour) => hour,
            Partition::Date(date) => date.hour(23),
        };
        let minutes = self.hours.get(index(self.first, hour)?)?.sealed_minutes_after?;
        Some(UnixMillis(hour.end().0 + minutes * MILLIS_PER_MINUTE))
    }

    /// The dates that begin and end in it, by the index of their first hour.
    pub(crate) fn dates(&self) -> impl Iterator<Item = (usize, UtcDate)> {
        let whole = |at: &usize| self.hour(*at).of_day() == 0 && at + 24 <= self.hours.len();
        (0..self.hours.len()).filter(whole).map(|at| (at, self.hour(at).date()))
    }

    pub(crate) fn weeks(&self) -> f64 {
        self.hours.len() as f64 / (24.0 * 7.0)
    }
}

fn index(first: UtcHour, hour: UtcHour) -> Option<usize> {
    usize::try_from((hour.start().0 - first.start().0) / MILLIS_PER_HOUR).ok()
}

fn row(line: &str) -> Option<(UtcHour, Hour)> {
    let mut cells = line.split(',').map(str::trim);
    let (hour, bytes, events, sealed) = (cells.next()?, cells.next()?, cells.next()?, cells.next()?);
    let hour = UtcHour::parse(&format!("dt={}", hour.replace('T', "/hour=")))?;
    let sealed_minutes_after = if sealed.is_empty() { None } else { Some(sealed.parse().ok()?) };
    let row = Hour { bytes: bytes.parse().ok()?, events: events.parse().ok()?, sealed_minutes_after };
    cells.next().is_none().then_some((hour, row))
}

/// The folders in a folder whose names begin so, in their order.
fn folders(folder: &Path, begin: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(begin) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

fn sealed(path: &Path) -> anyhow::Result<(UtcHour, Hour)> {
    let success: Success = serde_json::from_slice(&fs::read(path)?)?;
    let hour = UtcHour::parse(&success.partition).context("its partition is no hour")?;
    let sealed_minutes_after = Some((success.first_sealed_at.0 - hour.end().0).div_euclid(MILLIS_PER_MINUTE));
    Ok((hour, Hour { bytes: success.totals.bytes, events: success.totals.events, sealed_minutes_after }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_file_is_read_and_gaps_are_not_sealed() {
        let text = format!("{HEADER}\n2026-11-21T09,51200,800,20\n\n2026-11-21T11, 7, 1,\n2026-11-21T12,9,2,95\n");
        let history = History::from_csv(&text).unwrap();
        assert_eq!(history.first.partition(), "dt=2026-11-21/hour=09");
        let sealed: Vec<_> = history.hours.iter().map(|hour| (hour.bytes, hour.sealed_minutes_after)).collect();
        assert_eq!(sealed, [(51_200, Some(20)), (0, None), (7, None), (9, Some(95))]);
        assert_eq!(history.bytes(Partition::Hour(history.hour(3))), Some(9));
        assert_eq!(history.bytes(Partition::Hour(history.hour(1))), None);
        assert_eq!(history.sealed_at(Partition::Hour(history.hour(3))).unwrap().rfc3339(), "2026-11-21T14:35:00.000Z");
        assert_eq!(history.dates().count(), 0);
    }

    #[test]
    fn what_is_no_history_is_said_by_its_line() {
        for (text, problem) in [
            ("", "the first line is not"),
            ("hour,bytes\n", "the first line is not"),
            (&format!("{HEADER}\n"), "there is no hour"),
            (&format!("{HEADER}\n2026-11-21T09,1,1,20\n2026-11-21T9,1,1,20"), "line 3"),
            (&format!("{HEADER}\n2026-11-21T09,1,1,20,1"), "line 2"),
            (&format!("{HEADER}\n1926-11-21T09,1,1,20\n2026-11-21T09,1,1,20"), "at most"),
        ] {
            let error = History::from_csv(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_bucket_is_read() {
        let folder = std::env::temp_dir().join(format!("backtest-{}", std::process::id()));
        let hour = folder.join("events/dt=2026-11-21/hour=09");
        fs::create_dir_all(&hour).unwrap();
        let success = Success {
            v: 1,
            partition: "dt=2026-11-21/hour=09".into(),
            first_sealed_at: UnixMillis::parse("2026-11-21T10:20:00.000Z").unwrap(),
            sealed_at: UnixMillis::parse("2026-11-21T12:20:00.000Z").unwrap(),
            late_objects: 1,
            manifest: None,
            accepted: None,
            totals: monitoring_lambdas::manifest::Totals { bytes: 7, events: 3, ..Default::default() },
        };
        fs::write(hour.join("_SUCCESS"), serde_json::to_vec(&success).unwrap()).unwrap();
        let history = History::from_manifests(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(history.unwrap().hours, [Hour { bytes: 7, events: 3, sealed_minutes_after: Some(20) }]);
    }
}
