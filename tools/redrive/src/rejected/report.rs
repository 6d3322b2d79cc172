//! What became of rejected bodies, and how it is said.

use crate::rejected::events::MAX_BODY_BYTES;

/// Lines of an object whose faults are described at most, of those that are not in our form.
const MAX_DESCRIBED: usize = 10;

/// What became of the lines of one object. Where a person is needed, the lines are named.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    /// Bodies that were to be read. Each is in one of the lists below, or its events have landed.
    pub(crate) bodies: usize,
    /// Events that landed now.
    pub(crate) landed: u64,
    /// Events that had landed before.
    pub(crate) already_there: u64,
    /// Bodies without an event in them.
    pub(crate) still_rejected: usize,
    /// Lines of bodies that are larger than is read.
    pub(crate) too_large: Vec<usize>,
    /// Lines of bodies with events that the object had no room for.
    pub(crate) without_room: Vec<usize>,
    /// Those events.
    pub(crate) left_out: u64,
    /// Lines of bodies of which parts are missing.
    pub(crate) incomplete: Vec<usize>,
    /// Lines that are not in our form.
    pub(crate) malformed: Vec<usize>,
    /// What is wrong with the first of them.
    pub(crate) described: Vec<String>,
}

impl Outcomes {
    pub(crate) fn add_malformed(&mut self, number: usize, problem: &anyhow::Error) {
        self.malformed.push(number);
        if self.described.len() < MAX_DESCRIBED {
            self.described.push(format!("line {number}: {problem:#}"));
        }
    }

    /// What is said of the object in a line.
    pub(crate) fn text(&self) -> String {
        let Self { landed, already_there, left_out, .. } = self;
        let mut text = match (landed, already_there) {
            (0, 0) => "nothing to land".to_owned(),
            (0, there) => format!("all {there} events were already there"),
            (landed, 0) => format!("{landed} events landed"),
            (landed, there) => format!("{landed} events landed, {there} were already there"),
        };
        let megabytes = MAX_BODY_BYTES / 1024 / 1024;
        let left = [
            (&self.too_large, format!("skipped: larger than {megabytes} MiB")),
            (&self.without_room, format!("LEFT: {left_out} events do not fit into one object")),
            (&self.incomplete, "incomplete: parts are missing".to_owned()),
            (&self.malformed, "not our rejected lines".to_owned()),
        ];
        for (lines, what) in left.iter().filter(|(lines, _)| !lines.is_empty()) {
            text += &format!("; {what} ({})", ranges(lines));
        }
        text
    }
}

/// What became of all objects.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) objects: Vec<Outcomes>,
    pub(crate) failed_objects: usize,
}

impl Report {
    fn sum(&self, count: impl Fn(&Outcomes) -> u64) -> u64 {
        self.objects.iter().map(count).sum()
    }

    fn lines(&self, list: impl Fn(&Outcomes) -> &Vec<usize>) -> usize {
        self.objects.iter().map(|one| list(one).len()).sum()
    }

    /// Whether every body was read and all that was found has landed.
    pub(crate) fn is_done(&self) -> bool {
        let is_done = |one: &Outcomes| {
            one.left_out == 0 && [&one.too_large, &one.incomplete, &one.malformed].iter().all(|lines| lines.is_empty())
        };
        self.failed_objects == 0 && self.objects.iter().all(is_done)
    }

    pub(crate) fn text(&self, prefix: &str) -> String {
        let bodies: usize = self.objects.iter().map(|one| one.bodies).sum();
        let still_rejected: usize = self.objects.iter().map(|one| one.still_rejected).sum();
        format!(
            "{bodies} bodies: {} events landed, {} were already there; {still_rejected} bodies are still rejected, {} were \
             skipped as too large, {} lack parts under {prefix}; {} events are left for want of room; {} lines are not our \
             rejected lines; {} objects failed",
            self.sum(|one| one.landed),
            self.sum(|one| one.already_there),
            self.lines(|one| &one.too_large),
            self.lines(|one| &one.incomplete),
            self.sum(|one| one.left_out),
            self.lines(|one| &one.malformed),
            self.failed_objects,
        )
    }
}

/// `line 3`, or `lines 1-17, 19`.
fn ranges(numbers: &[usize]) -> String {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    let runs = numbers.chunk_by(|one, next| one + 1 == *next).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        run => run.iter().map(usize::to_string).collect(),
    });
    let noun = if numbers.len() == 1 { "line" } else { "lines" };
    format!("{noun} {}", runs.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(&[3], "line 3")]
    #[case(&[2, 1, 3, 7], "lines 1-3, 7")]
    #[case(&[1, 3, 4], "lines 1, 3-4")]
    fn lines_are_named_in_short(#[case] numbers: &[usize], #[case] expected: &str) {
        assert_eq!(ranges(numbers), expected);
    }

    #[rstest]
    #[case::nothing(Outcomes::default(), true)]
    #[case::still_rejected(Outcomes { still_rejected: 1, ..Outcomes::default() }, true)]
    #[case::too_large(Outcomes { too_large: vec![1], ..Outcomes::default() }, false)]
    #[case::no_room(Outcomes { left_out: 1, ..Outcomes::default() }, false)]
    #[case::parts_missing(Outcomes { incomplete: vec![1], ..Outcomes::default() }, false)]
    #[case::not_ours(Outcomes { malformed: vec![1], ..Outcomes::default() }, false)]
    fn a_run_is_done_when_no_person_is_needed(#[case] outcomes: Outcomes, #[case] expected: bool) {
        let report = Report { objects: vec![outcomes], failed_objects: 0 };
        assert_eq!(report.is_done(), expected);
    }
}
