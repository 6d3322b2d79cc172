//! Rejected lines, read again: the events that are found in them land beside them.
//!
//! The events of `rejected/dt=…/hour=…/<shard>-<number>.jsonl.bz2` land in
//! `events/dt=…/hour=…/<shard>-<number>-redriven.jsonl.bz2`. Equal input makes equal lines, and lines that are there
//! already are kept, so that it does not matter how often, by how many and with which reasons this is run.
//!
//! Each body has an outcome of its own: one that is too large or not whole is named, and those after it are read.

mod bodies;
mod body_parts;
mod events;
mod line;
mod object_lines;
pub(crate) mod read_options;
mod redriven_object;
mod report;

use anyhow::{Context, ensure};
use shared::object::ObjectKey;

use crate::bucket::{Bucket, Stored};
use crate::event_format::Formats;
use crate::lander::Lander;
use bodies::{Bodies, BodyReader, whole_bodies};
use body_parts::BodyParts;
use events::EventReader;
use read_options::ReadOptions;
use report::{Outcomes, Report};

/// A run over rejected objects.
pub(crate) struct Redrive<'a> {
    bucket: Bucket,
    lander: &'a Lander,
    formats: Formats,
    options: ReadOptions,
    parts: BodyParts,
    report: Report,
}

impl<'a> Redrive<'a> {
    pub(crate) fn new(bucket: Bucket, lander: &'a Lander, formats: Formats, options: ReadOptions) -> Self {
        Self { bucket, lander, formats, options, parts: BodyParts::default(), report: Report::default() }
    }

    /// Redrives all rejected lines under a prefix; whether every body was read and all that was found has landed.
    ///
    /// # Errors
    ///
    /// When the prefix is none of rejected lines, or can't be listed. What is wrong with an object is printed.
    pub(crate) async fn all(mut self, prefix: &str) -> anyhow::Result<bool> {
        ensure!(prefix.starts_with("rejected/dt="), "--prefix: {prefix:?} does not begin with rejected/dt=");
        let mut keys = self.bucket.keys(prefix).await?;
        keys.retain(|key| ObjectKey::parse(key).is_some());
        let readable = self.note_parts(&keys).await;
        for (number, key) in readable.iter().enumerate() {
            let outcome = self.object(key).await;
            println!("{} of {}: {key}: {}", number + 1, readable.len(), self.count(key, outcome));
        }
        println!("{}", self.report.text(prefix));
        Ok(self.report.is_done())
    }

    /// Notes where the parts of bodies are; the keys of the objects that could be read.
    async fn note_parts<'k>(&mut self, keys: &'k [String]) -> Vec<&'k String> {
        let mut readable = Vec::with_capacity(keys.len());
        for key in keys {
            let noted = match self.stored(key).await {
                Ok(stored) => self.parts.note(key, &stored.bytes, &self.options),
                Err(problem) => Err(problem),
            };
            match noted {
                Ok(()) => readable.push(key),
                Err(problem) => println!("{key}: {}", self.count(key, Err(problem))),
            }
        }
        readable
    }

    async fn stored(&self, key: &str) -> anyhow::Result<Stored> {
        self.bucket.read(key).await?.context("it is gone")
    }

    /// Counts what became of an object, and says it.
    fn count(&mut self, key: &str, outcome: anyhow::Result<Outcomes>) -> String {
        match outcome {
            Ok(outcomes) => {
                outcomes.described.iter().for_each(|line| println!("{key}: not our rejected line: {line}"));
                let text = outcomes.text();
                self.report.objects.push(outcomes);
                text
            }
            Err(problem) => {
                self.report.failed_objects += 1;
                format!("FAILED: {problem:#}")
            }
        }
    }

    /// Lands the events in one object's rejected lines.
    async fn object(&self, key: &str) -> anyhow::Result<Outcomes> {
        let stored = self.stored(key).await?;
        let rejected = ObjectKey::parse(key).context("its key is not a landed object's")?;
        let event_format = self.formats.of_object(rejected.hour, &stored.entries).await?;
        let mut outcomes = Outcomes::default();
        let bodies = whole_bodies(&stored.bytes, &self.options, &self.parts, &mut outcomes)?;
        let open = async |key: &str| self.bucket.get(key).await?.with_context(|| format!("{key} is gone"));
        let events = EventReader { options: &self.options, event_format };
        let reader = BodyReader { events, parts: &self.parts, open };
        let bodies = Bodies::measure(bodies, reader, &mut outcomes).await?;
        let (target, attempt) = (rejected.redriven().to_string(), self.lander.attempt());
        let merge = async |earlier: Option<&Stored>| {
            bodies.add_to(earlier, &mut outcomes).await?.finish(&rejected, attempt.clone())
        };
        self.lander.add(&target, async || self.bucket.read(&target).await, merge).await?;
        self.lander.landed.add_events(outcomes.landed);
        Ok(outcomes)
    }
}
