//! Which brackets and strings are open in text that need not be valid JSON.

/// The brackets that open and those that close them. No JSON has round ones, but what stands in them belongs together.
const OPENING: &[u8; 3] = b"{[(";
const CLOSING: &[u8; 3] = b"}])";

/// Which brackets and strings are open after the bytes that were read. It holds a byte for each open bracket.
#[derive(Debug, Default)]
pub struct Nesting {
    /// The opening brackets.
    open: Vec<u8>,
    /// How many of them are `{`, `[` and `(`.
    counts: [usize; 3],
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Reads the next byte.
    pub fn read(&mut self, byte: u8) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        if byte == b'"' {
            self.in_string = true;
        } else if let Some(kind) = OPENING.iter().position(|bracket| *bracket == byte) {
            self.open.push(byte);
            self.counts[kind] += 1;
        } else if let Some(kind) = CLOSING.iter().position(|bracket| *bracket == byte)
            && self.counts[kind] > 0
        {
            // What was opened within and not closed ends here too.
            while self.pop() != Some(OPENING[kind]) {}
        }
    }

    fn pop(&mut self) -> Option<u8> {
        let closed = self.open.pop()?;
        let kind = OPENING.iter().position(|bracket| *bracket == closed)?;
        self.counts[kind] -= 1;
        Some(closed)
    }

    /// The open brackets, outermost first.
    #[must_use]
    pub fn open(&self) -> &[u8] {
        &self.open
    }

    /// How many arrays are open.
    #[must_use]
    pub fn arrays(&self) -> usize {
        self.counts[1]
    }

    /// Whether a string is open.
    #[must_use]
    pub fn is_in_string(&self) -> bool {
        self.in_string
    }

    /// Whether nothing is open.
    #[must_use]
    pub fn is_outside(&self) -> bool {
        self.open.is_empty() && !self.in_string
    }

    /// Closes the objects that are open in the innermost array or round bracket.
    pub fn close_objects(&mut self) {
        while self.open.last() == Some(&b'{') {
            self.pop();
        }
    }

    /// Closes a string that is open: no string of JSON goes on in another line.
    pub fn close_string(&mut self) {
        (self.in_string, self.escaped) = (false, false);
    }
}
