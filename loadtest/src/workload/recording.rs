//! A recorded session: requests as a player sent them, with the places where a copy of it differs.
//!
//! A file has a request a line: `{"t_ms":…,"path":"/events","headers":{…},"body":"…"}`, `t_ms` in milliseconds of any clock.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use http::header::{self, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use serde::Deserialize;

use edits::{Edit, Own};

mod edits;

/// The path that recorded requests were posted to; what follows it is kept.
const EVENTS_PATH: &str = "/events";
const OF_THE_CONNECTION: [HeaderName; 7] = [
    HOST,
    CONTENT_LENGTH,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];
/// Of a file: a session of many hours.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingError {
    #[error("{path} can't be read: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{0} is larger than {MAX_FILE_BYTES} bytes")]
    TooLarge(PathBuf),
    #[error("{0} holds no request")]
    Empty(PathBuf),
    #[error("{path}, line {line}: {problem}")]
    Line { path: PathBuf, line: usize, problem: String },
}

#[derive(Debug)]
pub(crate) struct Recording {
    /// In the order of their times; at least one.
    pub(super) requests: Vec<Request>,
}

#[derive(Debug)]
pub(super) struct Request {
    /// From the session's first request.
    pub(super) after: Duration,
    pub(super) path: Rc<str>,
    pub(super) headers: Rc<HeaderMap>,
    pub(super) events: u64,
    body: String,
    edits: Vec<Edit>,
}

#[derive(Deserialize)]
struct Line<'l> {
    t_ms: u64,
    #[serde(borrow)]
    path: Cow<'l, str>,
    headers: BTreeMap<Cow<'l, str>, Cow<'l, str>>,
    body: String,
}

impl Recording {
    pub(crate) fn read(path: &Path) -> Result<Self, RecordingError> {
        let read = |source| RecordingError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE_BYTES {
            return Err(RecordingError::TooLarge(path.to_owned()));
        }
        Self::parse(&std::fs::read_to_string(path).map_err(read)?, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, RecordingError> {
        let mut requests = Vec::new();
        for (number, line) in (1..).zip(text.split('\n')).filter(|(_, line)| !line.trim().is_empty()) {
            let request = request(line);
            let failed = |problem| RecordingError::Line { path: path.to_owned(), line: number, problem };
            requests.push(request.map_err(failed)?);
        }
        requests.sort_by_key(|request| request.after);
        let first = requests.first().map(|request| request.after);
        let first = first.ok_or_else(|| RecordingError::Empty(path.to_owned()))?;
        requests.iter_mut().for_each(|request| request.after -= first);
        Ok(Self { requests })
    }
}

fn request(line: &str) -> Result<Request, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let suffix = line.path.strip_prefix(EVENTS_PATH).filter(|suffix| suffix.is_empty() || suffix.starts_with('/'));
    let suffix = suffix.ok_or_else(|| format!("the path {:?} is not {EVENTS_PATH} or below it", line.path))?;
    if !suffix.is_empty() && suffix.parse::<PathAndQuery>().is_err() {
        return Err(format!("the path {:?} can't be part of a URL", line.path));
    }
    let headers = headers(&line.headers)?;
    if headers.contains_key(CONTENT_ENCODING) {
        return Err("a body with a Content-Encoding can't be replayed: it hides its events".into());
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let edits = edits::of(&line.body, content_type)?;
    let events = edits.iter().filter(|edit| edit.own == Own::Id).count() as u64;
    if events == 0 {
        return Err("there is no event in the body".into());
    }
    let (after, path, headers) = (Duration::from_millis(line.t_ms), suffix.into(), Rc::new(headers));
    Ok(Request { after, path, headers, events, body: line.body, edits })
}

/// All but those of the connection.
fn headers(recorded: &BTreeMap<Cow<'_, str>, Cow<'_, str>>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in recorded {
        let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is not the name of a header"))?;
        let value: HeaderValue = value.parse().map_err(|_| format!("{value:?} is not the value of a header"))?;
        if !OF_THE_CONNECTION.contains(&name) {
            headers.insert(name, value);
        }
    }
    Ok(headers)
}

impl Request {
    /// The body of one copy: `copy` is appended to its viewer's and session's ids, and `next_id` gives each event its own.
    pub(super) fn body(&self, copy: &str, mut next_id: impl FnMut() -> String) -> String {
        let (mut body, mut from) = (String::with_capacity(self.body.len() + 64 * self.edits.len()), 0);
        for Edit { range, own, before, after } in &self.edits {
            body.push_str(&self.body[from..range.start]);
            body.push_str(before);
            match own {
                Own::Copy => body.push_str(copy),
                Own::Id => body.push_str(&next_id()),
            }
            body.push_str(after);
            from = range.end;
        }
        body.push_str(&self.body[from..]);
        body
    }
}

#[cfg(test)]
mod tests;
