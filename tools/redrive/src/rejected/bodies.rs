//! The bodies of a rejected object, and the object that takes their events.
//!
//! One body is put together and decompressed at a time. The work is bounded by what can be compressed into an object: at most
//! 16 MiB for each body, of which a batch can hold some 200 that are as small as deflate makes them.

use anyhow::anyhow;
use bytes::Bytes;
use shared::rejection::{Reason, Rejection};

use crate::bucket::Stored;
use crate::rejected::body_parts::{BodyParts, Role};
use crate::rejected::events::EventReader;
use crate::rejected::line::RejectedLine;
use crate::rejected::read_options::ReadOptions;
use crate::rejected::redriven_object::{MAX_BYTES, MAX_LINES, RedrivenObject};
use crate::rejected::report::Outcomes;

/// A whole body, and the line that represents it.
pub(crate) struct Body {
    /// The line's number in its object.
    pub(crate) number: usize,
    pub(crate) line: RejectedLine,
}

/// What a body's events take as lines.
#[derive(Debug, Clone, Copy, Default)]
struct Size {
    bytes: u64,
    lines: u64,
}

/// Where bodies come from, and how they are read. `open` reads an object that holds parts of them.
pub(crate) struct BodyReader<'a, O> {
    pub(crate) events: EventReader<'a>,
    pub(crate) parts: &'a BodyParts,
    pub(crate) open: O,
}

impl<O: AsyncFn(&str) -> anyhow::Result<Bytes>> BodyReader<'_, O> {
    /// As [`EventReader::for_each_event`].
    async fn for_each_event(
        &self,
        line: &RejectedLine,
        visit: impl FnMut(&str),
    ) -> anyhow::Result<Result<(), Rejection>> {
        let body = self.parts.body(line, self.events.options, &self.open).await?;
        Ok(self.events.for_each_event(line, &body, visit))
    }
}

/// The bodies that hold events, in the order in which those are landed.
pub(crate) struct Bodies<'a, O> {
    bodies: Vec<Body>,
    reader: BodyReader<'a, O>,
}

impl<'a, O: AsyncFn(&str) -> anyhow::Result<Bytes>> Bodies<'a, O> {
    /// Reads all bodies once, and leaves out those that hold no events or are too large.
    ///
    /// Where one object has no room for all, the smallest come first: no body is kept out by a larger one.
    pub(crate) async fn measure(
        bodies: Vec<Body>,
        reader: BodyReader<'a, O>,
        outcomes: &mut Outcomes,
    ) -> anyhow::Result<Self> {
        let mut measured = Vec::with_capacity(bodies.len());
        for body in bodies {
            let mut size = Size::default();
            let visit = |event: &str| {
                size.bytes += event.len() as u64 + 1;
                size.lines += 1;
            };
            match reader.for_each_event(&body.line, visit).await? {
                Ok(()) => measured.push((size, body)),
                Err(rejection) if rejection.reason == Reason::BodyTooLarge => outcomes.too_large.push(body.number),
                Err(_) => outcomes.still_rejected += 1,
            }
        }
        Ok(Self { bodies: smallest_first_unless_all_fit(measured), reader })
    }

    /// The object with their events after those of earlier runs.
    ///
    /// # Errors
    ///
    /// When what earlier runs landed can't be read or has another format, and as [`Bodies::measure`].
    pub(crate) async fn add_to(
        &self,
        earlier: Option<&Stored>,
        outcomes: &mut Outcomes,
    ) -> anyhow::Result<RedrivenObject> {
        let mut redriven = RedrivenObject::continuing(earlier, self.reader.events.event_format)?;
        outcomes.without_room.clear();
        for Body { number, line } in &self.bodies {
            let left_out = redriven.left_out;
            let mut added = Ok(());
            let visit = |event: &str| {
                if added.is_ok() {
                    added = redriven.add(event);
                }
            };
            let found = self.reader.for_each_event(line, visit).await?;
            added?;
            found.map_err(|rejection| anyhow!("line {number}: {}", rejection.detail))?;
            redriven.include(line.received_at);
            if redriven.left_out > left_out {
                outcomes.without_room.push(*number);
            }
        }
        (outcomes.landed, outcomes.already_there) = (redriven.added, redriven.already_there);
        outcomes.left_out = redriven.left_out;
        Ok(redriven)
    }
}

/// The bodies in the lines of an object. Those in parts are read when their turn comes.
pub(crate) fn whole_bodies(
    compressed: &[u8],
    options: &ReadOptions,
    parts: &BodyParts,
    outcomes: &mut Outcomes,
) -> anyhow::Result<Vec<Body>> {
    let mut bodies = Vec::new();
    options.for_each_rejected(compressed, |number, line| {
        let mut line = match line {
            Ok(line) => line,
            Err(problem) => return outcomes.add_malformed(number, &problem),
        };
        let role = parts.role(&line);
        outcomes.bodies += usize::from(role != Role::Part);
        match role {
            Role::Body => {
                if line.rejected.parts > 1 {
                    line.rejected.body = Vec::new();
                }
                bodies.push(Body { number, line });
            }
            Role::Part => {}
            Role::Incomplete => outcomes.incomplete.push(number),
            Role::TooLarge => outcomes.too_large.push(number),
        }
    })?;
    Ok(bodies)
}

fn smallest_first_unless_all_fit(mut measured: Vec<(Size, Body)>) -> Vec<Body> {
    let bytes: u64 = measured.iter().map(|(size, _)| size.bytes).sum();
    let lines: u64 = measured.iter().map(|(size, _)| size.lines).sum();
    if bytes > MAX_BYTES || lines > MAX_LINES {
        measured.sort_by_key(|(size, _)| size.bytes);
    }
    measured.into_iter().map(|(_, body)| body).collect()
}

#[cfg(test)]
mod tests;
