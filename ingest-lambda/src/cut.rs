//! Finds the members of a list that is not valid JSON, so that each can be judged on its own: a bad token costs the member
//! that it stands in, and no other.
//!
//! Brackets and strings are all that is looked at, byte by byte and once. Members are separated by commas, and a member that is
//! an object also ends with its bracket: what stands between it and the next comma is a member of its own. Nothing is left
//! out but white space, the commas and the list's brackets.

use shared::limits::MAX_EVENTS_PER_REQUEST;

use crate::content::BYTE_ORDER_MARK;

/// The members of a list that is damaged: of an array, or of the `events` member of an object. `None` for what is neither.
///
/// What follows the list is one more member. There are at most one more than [`MAX_EVENTS_PER_REQUEST`]: then there are too
/// many.
pub(crate) fn damaged_list(text: &[u8]) -> Option<Vec<&[u8]>> {
    let is_array = text.starts_with(b"[");
    let list = if is_array { text } else { events_list(text)? };
    let (mut members, rest) = Cutter::new(&list[1..]).cut();
    if !is_array && !members.iter().any(|member| member.starts_with(b"{")) {
        return None;
    }
    let behind = if is_array { rest } else { behind_object(rest) }.trim_ascii();
    if !behind.is_empty() {
        members.push(behind);
    }
    Some(members)
}

/// Whether a body that is not one JSON value holds values a line. It does if its first line is a value, or if a later one is an
/// object or array of its own while no array is open: in an array it may be a part of one large value that was cut off.
pub(crate) fn holds_lines(body: &[u8]) -> bool {
    let mut lines = lines(body);
    let Some(first) = lines.next() else { return false };
    let mut nesting = Nesting::default();
    first.iter().for_each(|byte| nesting.read(*byte));
    let mut is_value_line = |line: &[u8]| {
        let may_be_apart = nesting.arrays == 0 && matches!(line, [b'{' | b'[', ..]);
        line.iter().for_each(|byte| nesting.read(*byte));
        may_be_apart && is_json(line)
    };
    match lines.next() {
        None => false,
        Some(second) => is_json(first) || is_value_line(second) || lines.any(is_value_line),
    }
}

/// The lines that are not blank, without the white space around them and without a byte order mark.
pub(crate) fn lines(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = body.split(|byte| *byte == b'\n').map(|line| {
        let line = line.trim_ascii();
        line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii_start()
    });
    lines.filter(|line| !line.is_empty())
}

fn is_json(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok())
}

/// The list in an object's `events` member, from its bracket on.
fn events_list(object: &[u8]) -> Option<&[u8]> {
    let mut nesting = Nesting::default();
    let inside = object.strip_prefix(b"{")?;
    (0..inside.len()).find_map(|at| {
        let list = if nesting.is_outside() { list_named_events(&inside[at..]) } else { None };
        nesting.read(inside[at]);
        list
    })
}

fn list_named_events(member: &[u8]) -> Option<&[u8]> {
    let value = member.strip_prefix(b"\"events\"")?.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    value.starts_with(b"[").then_some(value)
}

/// What follows an object of which this is the end.
fn behind_object(end: &[u8]) -> &[u8] {
    let mut nesting = Nesting::default();
    let close = end.iter().position(|byte| {
        let closes = *byte == b'}' && nesting.is_outside();
        nesting.read(*byte);
        closes
    });
    close.map_or(&[], |close| &end[close + 1..])
}

/// Which brackets and strings are open.
#[derive(Default)]
struct Nesting {
    /// The opening brackets.
    open: Vec<u8>,
    /// How many of them are those of arrays.
    arrays: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    fn read(&mut self, byte: u8) {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' => self.open.push(byte),
            b'[' => {
                self.open.push(byte);
                self.arrays += 1;
            }
            b'}' if self.open.len() > self.arrays => while self.pop() == Some(b'[') {},
            b']' if self.arrays > 0 => while self.pop() == Some(b'{') {},
            // It closes nothing that is open.
            _ => {}
        }
    }

    fn pop(&mut self) -> Option<u8> {
        let closed = self.open.pop();
        if closed == Some(b'[') {
            self.arrays -= 1;
        }
        closed
    }

    fn is_outside(&self) -> bool {
        self.open.is_empty() && !self.in_string
    }

    /// In an object a comma stands before a key. Where an object begins behind it, the objects around it were not closed.
    fn close_objects(&mut self) {
        while self.open.last() == Some(&b'{') {
            self.open.pop();
        }
    }
}

/// What stands before the member that is being read.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Start,
    Comma,
    Object,
}

struct Cutter<'a> {
    /// The list behind its bracket.
    text: &'a [u8],
    /// Where the member that is being read begins.
    start: usize,
    before: Before,
    nesting: Nesting,
    members: Vec<&'a [u8]>,
}

impl<'a> Cutter<'a> {
    fn new(text: &'a [u8]) -> Self {
        Self { text, start: 0, before: Before::Start, nesting: Nesting::default(), members: Vec::new() }
    }

    /// The members up to the end of the list, and what follows it.
    fn cut(mut self) -> (Vec<&'a [u8]>, &'a [u8]) {
        for at in 0..self.text.len() {
            if self.members.len() > MAX_EVENTS_PER_REQUEST {
                return (self.members, &[]);
            }
            if self.text[at] == b',' && !self.nesting.in_string && self.is_object_behind(at) {
                self.nesting.close_objects();
            }
            if !self.nesting.is_outside() {
                self.read_inside(at);
                continue;
            }
            match self.text[at] {
                b',' => self.read_comma(at),
                b'{' => self.begin_object(at),
                b']' => {
                    self.end_list(at);
                    return (self.members, &self.text[at + 1..]);
                }
                byte => self.nesting.read(byte),
            }
        }
        self.end_list(self.text.len());
        (self.members, &[])
    }

    fn is_object_behind(&self, comma: usize) -> bool {
        self.text[comma + 1..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
    }

    fn read_inside(&mut self, at: usize) {
        self.nesting.read(self.text[at]);
        if self.text[at] == b'}' && self.nesting.is_outside() {
            self.end_member(at + 1, false);
            self.before = Before::Object;
        }
    }

    fn read_comma(&mut self, at: usize) {
        self.end_member(at, self.before != Before::Object);
        self.start = at + 1;
        self.before = Before::Comma;
    }

    fn begin_object(&mut self, at: usize) {
        self.end_member(at, false);
        self.nesting.read(b'{');
    }

    fn end_list(&mut self, at: usize) {
        self.end_member(at, self.before == Before::Comma);
    }

    fn end_member(&mut self, end: usize, even_if_empty: bool) {
        let member = self.text[self.start..end].trim_ascii();
        if even_if_empty || !member.is_empty() {
            self.members.push(member);
        }
        self.start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::select;
    use rstest::rstest;
    use shared::strategies::json_object;

    fn texts(members: Vec<&[u8]>) -> Vec<String> {
        members.into_iter().map(|member| String::from_utf8_lossy(member).into_owned()).collect()
    }

    #[rstest]
    #[case::token(r#"[{"n":1},{"n":NaN},{"n":3}]"#, &[r#"{"n":1}"#, r#"{"n":NaN}"#, r#"{"n":3}"#])]
    #[case::white_space("[ {\"n\":1} ,\n\t undefined\r\n]", &[r#"{"n":1}"#, "undefined"])]
    #[case::comma_in_a_string(r#"[{"a":"},{"},x]"#, &[r#"{"a":"},{"}"#, "x"])]
    #[case::escaped_quote(r#"[{"a":"\\\"},{"},x]"#, &[r#"{"a":"\\\"},{"}"#, "x"])]
    #[case::nested("[[1,[{},{}]],{\"a\":[{},{}]},x]", &["[1,[{},{}]]", "{\"a\":[{},{}]}", "x"])]
    #[case::strings("[\"a,]b\",{}", &["\"a,]b\"", "{}"])]
    #[case::missing_comma("[{\"n\":1}{\"n\":2} {\"n\":3}]", &["{\"n\":1}", "{\"n\":2}", "{\"n\":3}"])]
    #[case::two_commas("[{},,{}]", &["{}", "", "{}"])]
    #[case::comma_at_the_start("[,{}]", &["", "{}"])]
    #[case::comma_at_the_end("[{},]", &["{}", ""])]
    #[case::comma_alone("[,]", &["", ""])]
    #[case::comments("[{}, /* a */ {}, // b\n{}]", &["{}", "/* a */", "{}", "// b", "{}"])]
    #[case::junk_behind_an_object("[{} x,{}]", &["{}", "x", "{}"])]
    #[case::one_bracket_too_many("[{}},{}]", &["{}", "}", "{}"])]
    #[case::array_not_closed("[{\"a\":[1},{}]", &["{\"a\":[1}", "{}"])]
    #[case::array_closed_but_not_open("[{\"a\":1]},{}]", &["{\"a\":1]}", "{}"])]
    #[case::object_not_closed("[{},{\"a\":{\"n\":1},{},{}]", &["{}", "{\"a\":{\"n\":1}", "{}", "{}"])]
    #[case::object_not_closed_in_an_array("[{\"a\":[{\"b\":1,{\"c\":2}]},{}]", &["{\"a\":[{\"b\":1,{\"c\":2}]}", "{}"])]
    #[case::last_object_not_closed("[{},{\"a\":1]", &["{}", "{\"a\":1]"])]
    #[case::cut_off_in_a_string("[{},{\"a\":\"x,", &["{}", "{\"a\":\"x,"])]
    #[case::cut_off_behind_a_member("[{},{}", &["{}", "{}"])]
    #[case::cut_off_behind_a_comma("[{},", &["{}", ""])]
    #[case::cut_off_at_once("[", &[])]
    #[case::more_behind_the_list("[{}] x, y", &["{}", "x, y"])]
    #[case::two_lists("[{}][{}]", &["{}", "[{}]"])]
    #[case::frame(r#"{"v":NaN,"events":[{"n":1},x],"z":[{}]}"#, &[r#"{"n":1}"#, "x"])]
    #[case::frame_with_white_space("{\"events\" :\n [{}, x ] , \"z\":1} ", &["{}", "x"])]
    #[case::frame_cut_off(r#"{"m":{},"events":[{"n":1},{"n""#, &[r#"{"n":1}"#, r#"{"n""#])]
    #[case::frame_whose_list_is_not_closed("{\"events\":[{}}", &["{}", "}"])]
    #[case::more_behind_a_frame("{\"events\":[{}],\"z\":\"}\",\"y\":{}} {\"n\":1}", &["{}", "{\"n\":1}"])]
    #[case::inner_events_before_a_frame_s(r#"{"m":{"events":[{"n":0}]},"events":[{"n":1},x]}"#, &[r#"{"n":1}"#, "x"])]
    fn damaged_lists_are_cut_at_their_members(#[case] text: &str, #[case] expected: &[&str]) {
        assert_eq!(texts(damaged_list(text.as_bytes()).unwrap()), expected);
    }

    #[rstest]
    #[case("hello")]
    #[case("{\"a\":NaN}")]
    #[case("{\"events\":[1,NaN]}")]
    #[case("{\"events\":[]")]
    #[case("{\"events\":{\"a\":[{}]},x}")]
    #[case("{\"a\":{\"events\":[{}]},x}")]
    #[case("{\"a\":\"\\\"events\\\":[{}]\",x}")]
    #[case("")]
    fn what_is_no_list_is_not_cut(#[case] text: &str) {
        assert_eq!(damaged_list(text.as_bytes()), None);
    }

    #[test]
    fn members_stop_at_one_more_than_there_may_be() {
        for (count, found) in [(9_999, 9_999), (10_000, 10_000), (10_001, 10_001), (20_000, 10_001)] {
            let text = format!("[{}", vec!["{}"; count].join(","));
            assert_eq!(damaged_list(text.as_bytes()).unwrap().len(), found);
        }
    }

    #[rstest]
    #[case::first_is_good("{\"a\":1}\n{\"b\":", true)]
    #[case::first_is_a_number("7\nx", true)]
    #[case::first_is_no_json("hello\n{\"a\":1}", true)]
    #[case::first_has_a_bad_token("{\"n\":NaN}\n{\"n\":2}", true)]
    #[case::first_two_are_bad("x\n{'a':1}\n{\"a\":1}", true)]
    #[case::first_is_cut_off("{\"a\":\n{\"b\":1}\n{\"c\":2}", true)]
    #[case::first_is_cut_off_in_a_string("{\"a\":\"x\n{\"b\":1}", true)]
    #[case::lists_a_line("x\n[{\"a\":1}]", true)]
    #[case::byte_order_marks("\u{feff}x\n \u{feff}{\"a\":1}", true)]
    #[case::one_line("{\"a\":NaN}\n\n", false)]
    #[case::nothing("\n", false)]
    #[case::no_value("hello\nworld\n1", false)]
    #[case::one_value_over_lines("{\n\"a\":1,\n\"b\":NaN\n}", false)]
    #[case::one_value_cut_off("{\"items\": [\n{\"a\": 1},\n{\"b\": 2}\n]", false)]
    #[case::array_over_lines("[\n{\"a\":NaN}\n,\n{\"b\":2}\n]", false)]
    #[case::array_with_a_line_break_in_a_string("[{\"a\":\"x\n{\"b\":1}\n\"},{}]", false)]
    fn lines_are_told_from_one_value(#[case] body: &str, #[case] expected: bool) {
        assert_eq!(holds_lines(body.as_bytes()), expected);
    }

    /// What harms the member that it stands in, and no other.
    fn bad_member() -> impl Strategy<Value = Vec<u8>> {
        let texts = select(vec![
            &b"NaN"[..],
            b"undefined",
            b"-Infinity",
            b"'a'",
            b"{'n':1}",
            b"{n:1}",
            b"{\"n\":NaN}",
            b"{\"n\":undefined,\"m\":[{},{}]}",
            b"{\"n\":1,}",
            b"{\"n\":[1,]}",
            b"{\"n\" 1}",
            b"{\"t\":\"a\tb\"}",
            b"{\"t\":\"a\nb\"}",
            b"{\"t\":\"\0\"}",
            b"{\"t\":\"\\x\"}",
            b"{\"t\":\"\\u12\"}",
            b"{\"t\":\"},{\\'\"}",
            b"{\"t\":\"\xff\"}",
            b"{\"\xc3\":1}",
            b"{\"a\":[1}",
            b"{\"a\":1]}",
            b"{\"a\":[[1,2}",
            b"{\"a\":{]}}",
            b"01",
            b"/* a */",
            b"",
        ]);
        texts.prop_map(<[u8]>::to_vec)
    }

    proptest! {
        #[test]
        fn every_member_is_found_as_it_was_sent_whatever_stands_beside_it(
            members in prop::collection::vec(prop_oneof![json_object().prop_map(String::into_bytes), bad_member()], 1..12),
            cut_off: bool, in_frame: bool,
        ) {
            let list = [&b"["[..], &members.join(&b" ,\n"[..])[..], if cut_off { &b""[..] } else { b"]" }].concat();
            let has_object = members.iter().any(|member| member.starts_with(b"{"));
            let text = if in_frame { [b"{\"m\":{},\"events\":", &list[..]].concat() } else { list };
            let expected = (has_object || !in_frame).then(|| members.iter().map(|member| member.trim_ascii()).collect::<Vec<_>>());
            let found = damaged_list(&text);
            // A list of nothing has no member.
            if expected != Some(vec![b""]) {
                prop_assert_eq!(found, expected);
            }
        }

        #[test]
        fn nothing_is_left_out_but_commas_and_white_space(text in "[\\[\\]{}\",:1x \n\\\\]{0,60}") {
            let text = format!("[{text}");
            let (mut rest, mut left_out) = (&text[..], String::new());
            for member in texts(damaged_list(text.as_bytes()).unwrap()) {
                let (before, behind) = rest.split_once(&member).unwrap();
                left_out.push_str(before);
                rest = behind;
            }
            left_out.push_str(rest);
            let other = left_out.replacen('[', "", 1).replacen(']', "", 1).replace([',', ' ', '\n'], "");
            prop_assert_eq!(other, "");
        }
    }
}
