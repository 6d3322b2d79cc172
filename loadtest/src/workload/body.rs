//! A body of several events, in the form that a player gives it.

use std::ops::Range;

use super::catalog::Form;

/// A body in the making.
#[derive(Debug)]
pub(super) struct Body {
    form: Form,
    /// An array with one object in it is sent as that object.
    single: bool,
    bytes: Vec<u8>,
    /// Where the last item is.
    last: Range<usize>,
}

impl Body {
    pub(super) fn new(form: Form, items: u64, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(capacity);
        let single = form == Form::Array && items == 1;
        bytes.extend_from_slice(match form {
            _ if single => b"",
            Form::Array => b"[",
            Form::Wrapped => b"{\"metadata\":{\"player\":\"web\"},\"events\":[",
            Form::Lines => b"",
        });
        let last = bytes.len()..bytes.len();
        Self { form, single, bytes, last }
    }

    pub(super) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.last.is_empty() {
            self.bytes.push(if self.form == Form::Lines { b'\n' } else { b',' });
        }
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.last = start..self.bytes.len();
    }

    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(match self.form {
            _ if self.single => b"",
            Form::Array => b"]",
            Form::Wrapped => b"]}",
            Form::Lines => b"\n",
        });
        self.bytes
    }

    /// The body up to so many bytes into its last item, as when sending breaks off.
    pub(super) fn cut(mut self, into_last: usize) -> Vec<u8> {
        self.bytes.truncate(self.last.start + into_last);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn body(form: Form, items: &[&str]) -> Body {
        let mut body = Body::new(form, items.len() as u64, 0);
        items.iter().for_each(|item| body.add(|bytes| bytes.extend_from_slice(item.as_bytes())));
        body
    }

    #[rstest]
    #[case(Form::Array, &["{}"], "{}")]
    #[case(Form::Array, &["{}", "7"], "[{},7]")]
    #[case(Form::Wrapped, &["{}"], r#"{"metadata":{"player":"web"},"events":[{}]}"#)]
    #[case(Form::Wrapped, &["{}", "7"], r#"{"metadata":{"player":"web"},"events":[{},7]}"#)]
    #[case(Form::Lines, &["{}"], "{}\n")]
    #[case(Form::Lines, &["{}", "7"], "{}\n7\n")]
    fn forms(#[case] form: Form, #[case] items: &[&str], #[case] expected: &str) {
        assert_eq!(String::from_utf8(body(form, items).finish()).unwrap(), expected);
    }

    #[test]
    fn a_body_breaks_off_in_its_last_item() {
        assert_eq!(body(Form::Array, &["{\"a\":1}", "{\"b\":1}"]).cut(3), b"[{\"a\":1},{\"b");
    }
}
