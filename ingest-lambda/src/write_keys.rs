//! Keys that say which app a request comes from. They stand in pages for all to read, so they are no secrets: they tell apps apart,
//! and shut out what does not know any.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use base64_simd::STANDARD as BASE64;

/// How many keys there may be: a request's limit is kept for each.
pub const MAX_KEYS: usize = 50;
/// Characters of a key.
pub const MIN_KEY_CHARS: usize = 16;
pub const MAX_KEY_CHARS: usize = 128;
/// Characters of an app's name, which is in each of its lines.
pub const MAX_APP_CHARS: usize = 32;

/// The most bytes of a Basic authorization that are decoded: a key, and a password that nobody reads.
const MAX_BASIC_BYTES: usize = 1024;
/// The most bytes of a key in a query, each character as `%41`.
const MAX_ENCODED_BYTES: usize = 3 * MAX_KEY_CHARS;

/// Whose keys there are. Without any, no request needs one.
#[derive(Clone, Default)]
pub struct WriteKeys {
    /// The numbers of keys, from 0.
    numbers: HashMap<String, usize>,
    /// By a key's number.
    apps: Vec<String>,
}

/// A configured key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteKey<'a> {
    /// From 0.
    pub number: usize,
    pub app: &'a str,
}

/// What keeps keys from being read. Never with a key in it: pairs may be the wrong way round.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WriteKeysError {
    #[error("pair {0} is not app=key")]
    NoPair(usize),
    #[error("the app of pair {0} is not 1 to {MAX_APP_CHARS} characters of a-z, 0-9 and -")]
    App(usize),
    #[error("the key of pair {0} is not {MIN_KEY_CHARS} to {MAX_KEY_CHARS} characters of A-Z, a-z, 0-9, ., _, ~ and -")]
    Key(usize),
    #[error("the key of pair {0} is there before")]
    Repeated(usize),
    #[error("there are more than {MAX_KEYS} pairs")]
    TooMany,
}

impl WriteKeys {
    /// Reads `app=key` pairs between commas or white space. An app may have several keys.
    ///
    /// # Errors
    ///
    /// When something is no such pair, a key is there twice, or there are too many.
    pub fn parse(text: &str) -> Result<Self, WriteKeysError> {
        let mut keys = Self::default();
        let pairs = text.split(|character: char| character == ',' || character.is_whitespace());
        for (index, pair) in pairs.filter(|pair| !pair.is_empty()).enumerate() {
            let number = index + 1;
            let (app, key) = pair.split_once('=').ok_or(WriteKeysError::NoPair(number))?;
            if !is_app(app) {
                return Err(WriteKeysError::App(number));
            }
            if !is_key(key) {
                return Err(WriteKeysError::Key(number));
            }
            if index == MAX_KEYS {
                return Err(WriteKeysError::TooMany);
            }
            if keys.numbers.insert(key.to_owned(), index).is_some() {
                return Err(WriteKeysError::Repeated(number));
            }
            keys.apps.push(app.to_owned());
        }
        Ok(keys)
    }

    /// Whether no request needs a key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.apps.is_empty()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.apps.len()
    }

    /// The key that a request names.
    #[must_use]
    pub fn find(&self, named: &NamedKey) -> Option<WriteKey<'_>> {
        let NamedKey::One(key) = named else { return None };
        let number = *self.numbers.get(key)?;
        Some(WriteKey { number, app: &self.apps[number] })
    }
}

/// Without the keys.
impl fmt::Debug for WriteKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("WriteKeys").field(&self.apps).finish()
    }
}

fn is_app(text: &str) -> bool {
    (1..=MAX_APP_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The characters are those that stand for themselves in an address (<https://www.rfc-editor.org/rfc/rfc3986#section-2.3>).
fn is_key(text: &str) -> bool {
    (MIN_KEY_CHARS..=MAX_KEY_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}

/// The key that a request names, in whichever ways it does.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum NamedKey {
    #[default]
    None,
    /// The same each time, and of the form that keys have.
    One(String),
    /// Several that differ, or something that can't be a key.
    Unusable,
}

impl NamedKey {
    /// Takes the value of `X-Playhead-Key`. Front doors join those of a repeated header with commas.
    pub(crate) fn add_header(&mut self, value: &str) {
        value.split(',').for_each(|key| self.add(key.trim()));
    }

    /// Takes the value of `Authorization`: the user name of each Basic one. Those of other schemes are for somebody else.
    pub(crate) fn add_authorization(&mut self, value: &str) {
        for credentials in value.split(',') {
            let Some((scheme, encoded)) = credentials.trim().split_once(' ') else { continue };
            if scheme.eq_ignore_ascii_case("basic") {
                self.add(&user_name(encoded.trim()).unwrap_or_default());
            }
        }
    }

    /// Takes a query as it stands in the address.
    pub(crate) fn add_query(&mut self, query: &str) {
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            self.add_parameter(name, value);
        }
    }

    /// Takes a parameter of a query, decoded or not: a key has no `%`.
    pub(crate) fn add_parameter(&mut self, name: &str, value: &str) {
        if name == "key" {
            self.add(&percent_decoded(value).unwrap_or_default());
        }
    }

    /// Takes what another part of the request names.
    pub(crate) fn merge(&mut self, other: &Self) {
        match other {
            Self::None => {}
            Self::One(key) => self.add(key),
            Self::Unusable => *self = Self::Unusable,
        }
    }

    /// Bytes that it takes.
    pub(crate) const fn bytes(&self) -> usize {
        match self {
            Self::One(key) => key.len(),
            Self::None | Self::Unusable => 0,
        }
    }

    fn add(&mut self, key: &str) {
        match self {
            Self::None if is_key(key) => *self = Self::One(key.to_owned()),
            Self::One(before) if before == key => {}
            _ => *self = Self::Unusable,
        }
    }
}

/// Without the key.
impl fmt::Debug for NamedKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "None",
            Self::One(_) => "One(…)",
            Self::Unusable => "Unusable",
        })
    }
}

fn user_name(encoded: &str) -> Option<String> {
    let decoded = (encoded.len() <= MAX_BASIC_BYTES).then(|| BASE64.decode_to_vec(encoded).ok())??;
    let name = decoded.split(|byte| *byte == b':').next()?;
    String::from_utf8(name.to_vec()).ok()
}

fn percent_decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    if text.len() > MAX_ENCODED_BYTES {
        return None;
    }
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, others @ ..] = rest {
        let byte = match (first, others) {
            (b'%', [high, low, others @ ..]) => {
                rest = others;
                hexadecimal(*high)? << 4 | hexadecimal(*low)?
            }
            (b'%', _) => return None,
            (byte, others) => {
                rest = others;
                *byte
            }
        };
        decoded.push(byte);
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    const KEY: &str = "Aa0._~-bcdefghij";
    const OTHER: &str = "otherotherother1";

    fn parse(text: &str) -> Result<Vec<(String, String)>, WriteKeysError> {
        let keys = WriteKeys::parse(text)?;
        let mut pairs: Vec<_> = keys.numbers.iter().map(|(key, number)| (*number, key)).collect();
        pairs.sort_unstable();
        Ok(pairs.into_iter().map(|(number, key)| (keys.apps[number].clone(), key.clone())).collect())
    }

    #[test]
    fn pairs_stand_between_commas_and_line_breaks_and_an_app_may_have_two() {
        let text = format!("\n web={KEY},\r\n,web={OTHER}\nios-9={}, ", "k".repeat(128));
        let pairs = parse(&text).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(app, key)| (app.as_str(), key.as_str())).collect();
        assert_eq!(pairs, [("web", KEY), ("web", OTHER), ("ios-9", &"k".repeat(128))]);
        assert_eq!(parse(" ,\n"), Ok(Vec::new()));
    }

    #[rstest]
    #[case::no_pair(&format!("web={KEY},{KEY}"), WriteKeysError::NoPair(2))]
    #[case::the_wrong_way_round(&format!("{KEY}=web"), WriteKeysError::App(1))]
    #[case::no_app(&format!("={KEY}"), WriteKeysError::App(1))]
    #[case::a_long_app(&format!("{}={KEY}", "a".repeat(33)), WriteKeysError::App(1))]
    #[case::a_short_key("web=123456789012345", WriteKeysError::Key(1))]
    #[case::a_long_key(&format!("web={}", "k".repeat(129)), WriteKeysError::Key(1))]
    #[case::a_key_with_another_character(&format!("web={KEY}="), WriteKeysError::Key(1))]
    #[case::a_key_of_two_apps(&format!("web={KEY},ios={KEY}"), WriteKeysError::Repeated(2))]
    fn what_is_no_list_of_pairs_is_refused_by_its_number_without_a_key(
        #[case] text: &str,
        #[case] expected: WriteKeysError,
    ) {
        let error = WriteKeys::parse(text).unwrap_err();
        assert!(!error.to_string().contains(KEY), "{error}");
        assert_eq!(error, expected);
    }

    #[test]
    fn there_are_at_most_fifty() {
        let pairs = |count: usize| (0..count).map(|number| format!("web=key-{number:016}\n")).collect::<String>();
        assert_eq!(WriteKeys::parse(&pairs(MAX_KEYS)).unwrap().len(), MAX_KEYS);
        assert_eq!(WriteKeys::parse(&pairs(MAX_KEYS + 1)).unwrap_err(), WriteKeysError::TooMany);
    }

    fn basic(text: &str) -> String {
        format!("Basic {}", BASE64.encode_to_string(text))
    }

    fn one(key: &str) -> NamedKey {
        NamedKey::One(key.into())
    }

    #[rstest]
    #[case("", NamedKey::None)]
    #[case("a=b&keys=c&Key=d", NamedKey::None)]
    #[case(&format!("key={KEY}"), one(KEY))]
    #[case(&format!("a=b&key={KEY}&c"), one(KEY))]
    #[case(&format!("key={KEY}&key={KEY}"), one(KEY))]
    #[case(&format!("key={KEY}&key={OTHER}"), NamedKey::Unusable)]
    #[case(&format!("key={KEY}&key"), NamedKey::Unusable)]
    #[case("key=%41%61%30%2E%5f%7e%2Dbcdefghij", one(KEY))]
    #[case(&format!("key={}", "%6B".repeat(128)), one(&"k".repeat(128)))]
    #[case(&format!("key={}", "%6B".repeat(129)), NamedKey::Unusable)]
    #[case("key=%41%61%30%2E%5f%7e%2Dbcdefghij%", NamedKey::Unusable)]
    #[case("key=%41%61%30%2E%5f%7e%2Dbcdefghij%4", NamedKey::Unusable)]
    #[case("key=%41%61%30%2E%5f%7e%2Dbcdefghij%zz", NamedKey::Unusable)]
    #[case("key=%ff1234567890123456", NamedKey::Unusable)]
    #[case("key=1234567890123456+", NamedKey::Unusable)]
    fn a_query_names_a_key(#[case] query: &str, #[case] expected: NamedKey) {
        let mut named = NamedKey::default();
        named.add_query(query);
        assert_eq!(named, expected);
    }

    #[rstest]
    #[case(&basic(&format!("{KEY}:")), one(KEY))]
    #[case(&basic(&format!("{KEY}:a:password")), one(KEY))]
    #[case(&basic(KEY), one(KEY))]
    #[case(&basic(&format!("{KEY}:")).replace("Basic ", "bASIC   "), one(KEY))]
    #[case(&format!("{0}, {0}", basic(KEY)), one(KEY))]
    #[case(&format!("{}, {}", basic(KEY), basic(OTHER)), NamedKey::Unusable)]
    #[case("Basic !", NamedKey::Unusable)]
    #[case(&basic(&format!("{KEY}:{}", "p".repeat(751))), one(KEY))]
    #[case(&basic(&format!("{KEY}:{}", "p".repeat(752))), NamedKey::Unusable)]
    #[case("Basic", NamedKey::None)]
    #[case("Bearer abcdefghijklmnop", NamedKey::None)]
    #[case("Digest username=\"a\", nonce=\"b\"", NamedKey::None)]
    fn a_basic_user_name_is_a_key(#[case] value: &str, #[case] expected: NamedKey) {
        let mut named = NamedKey::default();
        named.add_authorization(value);
        assert_eq!(named, expected);
    }

    #[test]
    fn keys_are_found_and_never_shown() {
        let keys = WriteKeys::parse(&format!("web={KEY},ios={OTHER}")).unwrap();
        assert_eq!(keys.find(&one(OTHER)), Some(WriteKey { number: 1, app: "ios" }));
        let unknown = [one("1234567890123456"), NamedKey::None, NamedKey::Unusable];
        assert!(unknown.iter().all(|named| keys.find(named).is_none()));
        for shown in [format!("{keys:?}"), format!("{:?}", one(KEY))] {
            assert!(!shown.contains(KEY) && !shown.contains(OTHER), "{shown}");
        }
    }

    proptest! {
        #[test]
        fn pairs_are_read_as_they_were_written(
            pairs in prop::collection::hash_map("[A-Za-z0-9._~-]{16,128}", "[a-z0-9-]{1,32}", 0..=MAX_KEYS), separator in "[,\n ]{1,3}",
        ) {
            let pairs: Vec<_> = pairs.into_iter().map(|(key, app)| (app, key)).collect();
            let text: Vec<_> = pairs.iter().map(|(app, key)| format!("{app}={key}")).collect();
            prop_assert_eq!(parse(&text.join(&separator)), Ok(pairs));
        }

        /// Whatever is configured and whatever a request says, nothing panics, and what is found was configured.
        #[test]
        fn only_a_configured_key_is_ever_found(
            text in ".{0,200}", values in prop::collection::vec((0..4u8, "(key=)?[A-Za-z0-9._~%&=:, -]{0,200}|.{0,60}"), 0..4),
        ) {
            let keys = WriteKeys::parse(&format!("web={KEY}")).unwrap();
            if let Ok(keys) = WriteKeys::parse(&text) {
                prop_assert!(keys.len() <= MAX_KEYS);
            }
            let mut named = NamedKey::default();
            for (way, value) in &values {
                match way {
                    0 => named.add_header(value),
                    1 => named.add_authorization(value),
                    2 => named.add_authorization(&basic(value)),
                    _ => named.add_query(value),
                }
            }
            if let NamedKey::One(key) = &named {
                prop_assert!(is_key(key));
            }
            if keys.find(&named).is_some() {
                prop_assert_eq!(named, one(KEY));
            }
        }
    }
}
