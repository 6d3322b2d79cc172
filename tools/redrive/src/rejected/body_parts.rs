//! Bodies that were too large for one record: where their parts are, and how they are put together again.
//!
//! Each part is in a record of its own, so the parts can be in several objects, perhaps of two hours. Only where a part is, is
//! remembered; its bytes are read again when its body is redriven.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;

use crate::rejected::events::MAX_BODY_BYTES;
use crate::rejected::line::RejectedLine;
use crate::rejected::read_options::ReadOptions;

/// The most parts under a prefix; the place of each takes some 200 bytes.
const MAX_PARTS: usize = 1_000_000;

struct Place {
    object: Arc<str>,
    bytes: usize,
}

/// What a rejected line is of its body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// All of it is here, in this line or in places that are known.
    Body,
    /// Another part represents the same body.
    Part,
    /// The first part that is here, of a body whose other parts are not all here.
    Incomplete,
    /// The first part of a body that is larger than is read.
    TooLarge,
}

/// Where the parts of bodies are.
#[derive(Default)]
pub(crate) struct BodyParts {
    bodies: HashMap<String, BTreeMap<usize, Place>>,
    count: usize,
}

impl BodyParts {
    /// Notes where the parts in an object are.
    ///
    /// # Errors
    ///
    /// When the object can't be read, and when there are more parts than can be remembered.
    pub(crate) fn note(&mut self, object: &str, compressed: &[u8], options: &ReadOptions) -> anyhow::Result<()> {
        let object: Arc<str> = object.into();
        options.for_each_rejected(compressed, |_, line| {
            if let Ok(line) = line
                && line.rejected.parts > 1
                && self.count <= MAX_PARTS
            {
                self.count += 1;
                let place = || Place { object: object.clone(), bytes: line.rejected.body.len() };
                self.bodies.entry(line.id).or_default().entry(line.rejected.part).or_insert_with(place);
            }
        })?;
        ensure!(self.count <= MAX_PARTS, "there are more than {MAX_PARTS} parts of bodies; use a narrower --prefix");
        Ok(())
    }

    /// What a line is of its body.
    pub(crate) fn role(&self, line: &RejectedLine) -> Role {
        if line.rejected.parts == 1 {
            return Role::Body;
        }
        let Some(places) = self.bodies.get(&line.id) else { return Role::Incomplete };
        if places.keys().next().is_some_and(|first| *first < line.rejected.part) {
            return Role::Part;
        }
        let is_whole = places.len() == line.rejected.parts && places.keys().next_back() == Some(&line.rejected.parts);
        match places.values().map(|place| place.bytes).sum::<usize>() {
            _ if !is_whole => Role::Incomplete,
            bytes if bytes > MAX_BODY_BYTES => Role::TooLarge,
            _ => Role::Body,
        }
    }

    /// The body that a line represents. `open` reads an object; each that holds a part is read for this body alone, so that no
    /// more than one body is held, however many there are.
    ///
    /// # Errors
    ///
    /// When an object is not what it was when its parts were noted.
    pub(crate) async fn body<'l>(
        &self,
        line: &'l RejectedLine,
        options: &ReadOptions,
        open: &impl AsyncFn(&str) -> anyhow::Result<Bytes>,
    ) -> anyhow::Result<Cow<'l, [u8]>> {
        if line.rejected.parts == 1 {
            return Ok(Cow::Borrowed(&line.rejected.body));
        }
        let gone = || format!("a part of the body {:?} is gone", line.id);
        let places = self.bodies.get(&line.id).with_context(gone)?;
        let objects: BTreeSet<&Arc<str>> = places.values().map(|place| &place.object).collect();
        let mut parts: BTreeMap<usize, Vec<u8>> = BTreeMap::new();
        for object in objects {
            let compressed = open(object).await?;
            let is_noted = |part: &RejectedLine| {
                let place = places.get(&part.rejected.part).filter(|_| part.id == line.id);
                place.is_some_and(|place| place.object == *object && place.bytes == part.rejected.body.len())
            };
            options.for_each_rejected(&compressed, |_, part| {
                if let Some(part) = part.ok().filter(is_noted) {
                    parts.entry(part.rejected.part).or_insert(part.rejected.body);
                }
            })?;
        }
        ensure!(parts.len() == line.rejected.parts, gone());
        Ok(Cow::Owned(parts.into_values().collect::<Vec<_>>().concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejected::line::tests::{compressed, line_of_part};
    use rstest::rstest;
    use shared::rejection::Reason;

    fn parts_of(objects: &[Vec<(usize, usize)>]) -> BodyParts {
        let mut parts = BodyParts::default();
        let options = ReadOptions { reasons: vec![Reason::InvalidJson], content_type: None };
        for (number, object) in objects.iter().enumerate() {
            let lines: String = object.iter().map(|(part, of)| line_of_part("a", *part, *of, b"x")).collect();
            parts.note(&format!("object {number}"), &compressed(lines.as_bytes()), &options).unwrap();
        }
        parts
    }

    #[rstest]
    #[case::the_only_line((1, 1), &[], Role::Body)]
    #[case::the_first_of_a_whole_body((1, 2), &[vec![(2, 2)], vec![(1, 2)]], Role::Body)]
    #[case::the_second_of_a_whole_body((2, 2), &[vec![(2, 2)], vec![(1, 2)]], Role::Part)]
    #[case::the_first_alone((1, 2), &[vec![(1, 2)]], Role::Incomplete)]
    #[case::without_the_first((2, 3), &[vec![(3, 3), (2, 3)]], Role::Incomplete)]
    #[case::counted_once_without_the_first((3, 3), &[vec![(3, 3), (2, 3)]], Role::Part)]
    #[case::parts_that_disagree((1, 2), &[vec![(1, 2), (3, 3)]], Role::Incomplete)]
    #[case::in_an_object_that_was_not_read((2, 2), &[], Role::Incomplete)]
    fn each_body_has_one_line_that_stands_for_it(
        #[case] line: (usize, usize),
        #[case] objects: &[Vec<(usize, usize)>],
        #[case] expected: Role,
    ) {
        let line = RejectedLine::parse(line_of_part("a", line.0, line.1, b"x").trim_end().as_bytes()).unwrap();
        assert_eq!(parts_of(objects).role(&line), expected);
    }

    #[test]
    fn the_bytes_of_all_parts_count() {
        let options = ReadOptions { reasons: vec![Reason::InvalidJson], content_type: None };
        let text = |last: usize| {
            let half = vec![b' '; MAX_BODY_BYTES / 4];
            let sizes = [half.len(), half.len(), half.len(), last];
            let lines = sizes.iter().enumerate();
            lines.map(|(part, bytes)| line_of_part("a", part + 1, 4, &vec![b' '; *bytes])).collect::<String>()
        };
        for (last, expected) in [(MAX_BODY_BYTES / 4, Role::Body), (MAX_BODY_BYTES / 4 + 1, Role::TooLarge)] {
            let (mut parts, text) = (BodyParts::default(), text(last));
            parts.note("object", &compressed(text.as_bytes()), &options).unwrap();
            let first = RejectedLine::parse(text.lines().next().unwrap().as_bytes()).unwrap();
            assert_eq!(parts.role(&first), expected);
        }
    }
}
