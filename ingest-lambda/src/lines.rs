//! The lines of a body, and what tells values a line from one value over lines.

use serde_json::value::RawValue;
use shared::nesting::Nesting;

use crate::steps;

/// Whether a body that is not one JSON value holds values a line. It does if its first line is a value, or if a later one is an
/// object or array that is no part of a larger value: no array is open, or no comma joins it to the line before.
pub(crate) fn holds_lines(body: &[u8]) -> bool {
    let mut lines = lines(body);
    let Some(first) = lines.next() else { return false };
    let mut before = LinesBefore::default();
    before.read(first);
    let mut is_value_line = |line: &[u8]| {
        before.end_string_before(line);
        let may_be_value = before.may_end_before(line);
        before.read(line);
        may_be_value && is_json(line)
    };
    match lines.next() {
        None => false,
        Some(second) => is_json(first) || is_value_line(second) || lines.any(is_value_line),
    }
}

/// What the lines of a body that were read leave open.
#[derive(Default)]
struct LinesBefore {
    nesting: Nesting,
    /// Whether the last one ends with what joins a member of an array to it.
    is_joined: bool,
}

impl LinesBefore {
    fn read(&mut self, line: &[u8]) {
        steps::count(line.len());
        line.iter().for_each(|byte| self.nesting.read(*byte));
        self.is_joined = match line {
            // In a string, a comma joins nothing, unless the string should have ended before.
            [before @ .., b','] => !self.nesting.is_in_string() || before.trim_ascii_end().ends_with(b"}"),
            line => line.ends_with(b"[") && !self.nesting.is_in_string(),
        };
    }

    /// Closes a string that was cut off with its line. One that goes on, with a line break that should have been escaped, ends
    /// where strings may. That of an array over lines may hold what looks like objects.
    fn end_string_before(&mut self, line: &[u8]) {
        let mut is_escaped = false;
        let quote = line.iter().position(|byte| {
            let is_quote = *byte == b'"' && !is_escaped;
            is_escaped = *byte == b'\\' && !is_escaped;
            is_quote
        });
        let goes_on = quote
            .is_none_or(|quote| matches!(line[quote + 1..].trim_ascii_start(), [] | [b',' | b':' | b'}' | b']', ..]));
        if !goes_on && self.nesting.open().first() != Some(&b'[') {
            self.nesting.close_string();
        }
    }

    /// Whether a line that begins like this one can be no part of what the lines before it left open.
    fn may_end_before(&self, line: &[u8]) -> bool {
        match line {
            // In a string with a line break that should have been escaped, a list of objects is not to be expected.
            [b'[', inside @ ..] if self.nesting.is_in_string() => trimmed_start(inside).starts_with(b"{"),
            [b'[' | b'{', ..] => self.nesting.arrays() == 0 || !self.is_joined && !self.nesting.is_in_string(),
            _ => false,
        }
    }
}

/// The lines that are not blank, without what separates them.
pub(crate) fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == b'\n').map(trimmed).filter(|line| !line.is_empty())
}

/// A text without what separates values around it: white space, byte order marks, and control bytes such as the zero at the end
/// of a string in C or the record separator of RFC 7464.
pub(crate) fn trimmed(text: &[u8]) -> &[u8] {
    trimmed_end(trimmed_start(text))
}

pub(crate) fn trimmed_start(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let [b'\0'..=b' ' | b'\x7f', behind @ ..] | [0xef, 0xbb, 0xbf, behind @ ..] = rest {
        rest = behind;
    }
    steps::count(text.len() - rest.len());
    rest
}

pub(crate) fn trimmed_end(text: &[u8]) -> &[u8] {
    let mut rest = text;
    while let [before @ .., b'\0'..=b' ' | b'\x7f'] | [before @ .., 0xef, 0xbb, 0xbf] = rest {
        rest = before;
    }
    steps::count(text.len() - rest.len());
    rest
}

pub(crate) fn is_json(text: &[u8]) -> bool {
    steps::count(text.len());
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<&RawValue>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::first_is_good("{\"a\":1}\n{\"b\":", true)]
    #[case::first_is_a_number("7\nx", true)]
    #[case::first_is_no_json("hello\n{\"a\":1}", true)]
    #[case::first_has_a_bad_token("{\"n\":NaN}\n{\"n\":2}", true)]
    #[case::first_two_are_bad("x\n{'a':1}\n{\"a\":1}", true)]
    #[case::first_is_cut_off("{\"a\":\n{\"b\":1}\n{\"c\":2}", true)]
    #[case::first_is_cut_off_in_a_string("{\"a\":\"x\n{\"b\":1}", true)]
    #[case::lists_a_line("x\n[{\"a\":1}]", true)]
    #[case::first_has_an_open_array("{\"t\":[\"a\"\n{\"n\":2}\n{\"n\":3}", true)]
    #[case::cut_off_in_a_string_of_an_array("{\"t\":[\"a\n{\"n\":2}", true)]
    #[case::cut_off_behind_a_backslash("{\"t\":[\"a\\\n{\"n\":2}", true)]
    #[case::byte_order_marks("\u{feff}x\n \u{feff}{\"a\":1}", true)]
    #[case::one_line("{\"a\":NaN}\n\n", false)]
    #[case::nothing("\n", false)]
    #[case::no_value("hello\nworld\n1", false)]
    #[case::one_value_over_lines("{\n\"a\":1,\n\"b\":NaN\n}", false)]
    #[case::one_value_cut_off("{\"items\": [\n{\"a\": 1},\n{\"b\": 2}\n]", false)]
    #[case::array_over_lines("[\n{\"a\":NaN}\n,\n{\"b\":2}\n]", false)]
    #[case::object_with_line_breaks_in_a_string("{\"a\":\"x\ny \\\"q\\\"\nz\",\"b\":[\n{\"n\":1}\n]}", false)]
    #[case::list_of_a_frame_over_lines("{\"events\":[\n{\"t\":\"C:\\\"},\n{\"n\":2},\n{\"n\":3}\n]}", false)]
    #[case::array_with_a_list_in_a_string("[{\"a\":\"see:\n[1]\n\"},{\"n\":2}]", false)]
    #[case::array_with_a_line_break_in_a_string("[{\"a\":\"x\n{\"b\":1}\n\"},{}]", false)]
    fn values_a_line_differ_from_one_value_over_lines(#[case] body: &str, #[case] expected: bool) {
        assert_eq!(holds_lines(body.as_bytes()), expected);
    }
}
