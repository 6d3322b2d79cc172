//! Tells one damaged value over several lines from values of which a line each is damaged. A line of the first is a piece,
//! which must not land as an event; a good line of the others is an event.
//!
//! Only brackets and strings are looked at. Behind a line that leaves brackets open, the next one either goes on where it
//! stopped, or begins a value of its own: then the first was cut off.

use shared::nesting::Nesting;

/// Whether some of the lines, without the white space around them, are pieces of one value.
///
/// They are if a line closes what an earlier one opened, or if more lines go on than begin a value. A line that was cut off right
/// after a comma, a colon or a bracket seems to go on once. So once is enough only where the value that is open is an array,
/// or between the objects of an array.
pub(crate) fn holds_a_value_over_lines<'a>(mut lines: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut boundaries = Boundaries::default();
    lines.any(|line| boundaries.closes_earlier_line(line)) || boundaries.are_mostly_continued()
}

/// The ends of lines that leave brackets open.
#[derive(Default)]
struct Boundaries {
    nesting: Nesting,
    last: LineEnd,
    continued: usize,
    broken: usize,
    /// Whether one was continued as no line is by chance.
    is_certain: bool,
}

/// What a line ends with.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum LineEnd {
    OpeningBracket,
    CommaBehindObject,
    Comma,
    Colon,
    #[default]
    Value,
}

impl Boundaries {
    /// Reads a line that is not empty.
    fn closes_earlier_line(&mut self, line: &[u8]) -> bool {
        self.judge_boundary(line[0]);
        let open_before = self.nesting.open().len();
        let mut least = open_before;
        for byte in line {
            self.nesting.read(*byte);
            least = least.min(self.nesting.open().len());
        }
        self.last = if self.nesting.is_in_string() { LineEnd::Value } else { LineEnd::of(line) };
        self.nesting.close_string();
        least < open_before
    }

    fn judge_boundary(&mut self, first: u8) {
        let open = self.nesting.open();
        let (Some(outermost), Some(innermost)) = (open.first(), open.last()) else { return };
        if self.last.may_be_followed_by(first, *innermost == b'[') {
            self.continued += 1;
            self.is_certain |= *outermost == b'[' || *innermost == b'[' && self.last == LineEnd::CommaBehindObject;
        } else {
            self.broken += 1;
        }
    }

    fn are_mostly_continued(&self) -> bool {
        self.continued > self.broken && (self.continued > 1 || self.is_certain)
    }
}

impl LineEnd {
    fn of(line: &[u8]) -> Self {
        match line {
            [.., b'{' | b'['] => Self::OpeningBracket,
            [.., b':'] => Self::Colon,
            [before @ .., b','] if before.trim_ascii_end().ends_with(b"}") => Self::CommaBehindObject,
            [.., b','] => Self::Comma,
            _ => Self::Value,
        }
    }

    /// Whether the grammar lets a line that begins with this byte, no closing bracket, go on here.
    fn may_be_followed_by(self, first: u8, in_array: bool) -> bool {
        let begins_value = !matches!(first, b',' | b':');
        match self {
            Self::Colon => begins_value,
            Self::OpeningBracket | Self::Comma | Self::CommaBehindObject if in_array => begins_value,
            Self::OpeningBracket | Self::Comma | Self::CommaBehindObject => first == b'"',
            Self::Value if in_array => first == b',',
            Self::Value => matches!(first, b',' | b':'),
        }
    }
}
