//! What the environment says.

use base64_simd::STANDARD as BASE64;
use http::header::HeaderValue;
use http::uri::{PathAndQuery, Scheme, Uri};
use lambda_setup::environment::{self, EnvironmentError};

use crate::promoted::{self, PromotedFields};

const ENDPOINT: &str = "SEARCH_ENDPOINT";
const AUTH: &str = "SEARCH_AUTH";
const USER: &str = "SEARCH_USER";
const PASSWORD: &str = "SEARCH_PASSWORD";
const INDEX_PREFIX: &str = "SEARCH_INDEX_PREFIX";
const PROMOTED_FIELDS: &str = "PROMOTED_FIELDS";

/// The most bytes of an index's name before its date.
const MAX_PREFIX_BYTES: usize = 64;

/// What the environment says.
#[derive(Debug)]
pub(super) struct Config {
    /// `SEARCH_ENDPOINT`: scheme and authority alone.
    pub(super) endpoint: Uri,
    pub(super) auth: Auth,
    /// `SEARCH_INDEX_PREFIX`: with a dash and the date it is an index's name.
    pub(super) index_prefix: String,
    /// `PROMOTED_FIELDS`.
    pub(super) promoted: PromotedFields,
}

/// `SEARCH_AUTH`: how the cluster knows who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Auth {
    /// The function's role signs each request.
    SigV4,
    /// `SEARCH_USER` and `SEARCH_PASSWORD` as a header, which says nothing of itself in a log.
    Basic(HeaderValue),
    None,
}

#[derive(Clone, Copy)]
enum AuthKind {
    SigV4,
    Basic,
    None,
}

impl Config {
    /// # Errors
    ///
    /// A variable that is missing or has no value of its kind.
    pub(super) fn from_environment() -> Result<Self, EnvironmentError> {
        let prefix = environment::optional(INDEX_PREFIX)?.unwrap_or_else(|| "playhead".to_owned());
        let promoted = environment::optional(PROMOTED_FIELDS)?;
        let promoted = PromotedFields::parse(promoted.as_deref().unwrap_or(promoted::DEFAULT));
        Ok(Self {
            endpoint: endpoint(&environment::required(ENDPOINT)?)?,
            auth: auth()?,
            index_prefix: index_prefix(prefix)?,
            promoted: promoted.map_err(|error| EnvironmentError::new(PROMOTED_FIELDS, error.to_string()))?,
        })
    }
}

fn endpoint(text: &str) -> Result<Uri, EnvironmentError> {
    let uri: Option<Uri> = text.parse().ok();
    let is_endpoint = |uri: &Uri| {
        let is_http = [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme());
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        is_http && !has_user && uri.path_and_query().is_none_or(|path| *path == PathAndQuery::from_static("/"))
    };
    // The text is not quoted: it may hold a password.
    let problem = "is not an address of the form https://host, without a path or a user";
    uri.filter(is_endpoint).ok_or_else(|| EnvironmentError::new(ENDPOINT, problem))
}

fn auth() -> Result<Auth, EnvironmentError> {
    let kinds = [("sigv4", AuthKind::SigV4), ("basic", AuthKind::Basic), ("none", AuthKind::None)];
    match environment::choice(AUTH, &kinds)? {
        AuthKind::SigV4 => Ok(Auth::SigV4),
        AuthKind::None => Ok(Auth::None),
        AuthKind::Basic => basic(&environment::required(USER)?, &environment::required(PASSWORD)?),
    }
}

/// <https://www.rfc-editor.org/rfc/rfc7617>
fn basic(user: &str, password: &str) -> Result<Auth, EnvironmentError> {
    if user.contains(':') {
        return Err(EnvironmentError::new(USER, "contains a colon"));
    }
    let credentials = BASE64.encode_to_string(format!("{user}:{password}"));
    let mut header = HeaderValue::from_maybe_shared(format!("Basic {credentials}"))
        .map_err(|_| EnvironmentError::new(PASSWORD, "makes no header"))?;
    header.set_sensitive(true);
    Ok(Auth::Basic(header))
}

/// <https://docs.opensearch.org/latest/api-reference/index-apis/create-index/#index-naming-restrictions>
fn index_prefix(prefix: String) -> Result<String, EnvironmentError> {
    let is_letter = |byte: u8| byte.is_ascii_lowercase();
    let is_valid = prefix.len() <= MAX_PREFIX_BYTES
        && prefix.bytes().next().is_some_and(is_letter)
        && prefix.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'));
    let problem = || format!("is {prefix:?}; it takes a lower-case letter, then letters, digits, - and _");
    if is_valid { Ok(prefix) } else { Err(EnvironmentError::new(INDEX_PREFIX, problem())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://search-x.eu-central-1.es.amazonaws.com", true)]
    #[case("https://search.example:9200/", true)]
    #[case("http://127.0.0.1:9200", true)]
    #[case("search.example", false)]
    #[case("https://search.example/path", false)]
    #[case("https://search.example/?q", false)]
    #[case("https://user:secret@search.example", false)]
    #[case("ftp://search.example", false)]
    #[case("", false)]
    fn an_endpoint_is_a_scheme_and_a_host(#[case] text: &str, #[case] is_endpoint: bool) {
        let read = endpoint(text);
        assert_eq!(read.is_ok(), is_endpoint);
        assert!(read.is_ok() || !format!("{read:?}").contains("secret"));
    }

    #[test]
    fn a_password_is_not_printed() {
        let auth = basic("me", "secret").unwrap();
        assert!(!format!("{auth:?}").contains("bWU6c2VjcmV0"), "{auth:?}");
        assert!(matches!(&auth, Auth::Basic(header) if header == "Basic bWU6c2VjcmV0"));
        assert!(basic("m:e", "secret").is_err());
    }

    #[rstest]
    #[case("playhead", true)]
    #[case("a-b_2", true)]
    #[case("", false)]
    #[case("-a", false)]
    #[case("Playhead", false)]
    #[case("a\"b", false)]
    fn prefixes_are_names_of_indexes(#[case] prefix: &str, #[case] is_valid: bool) {
        assert_eq!(index_prefix(prefix.to_owned()).is_ok(), is_valid);
    }

    #[test]
    fn prefixes_are_bounded() {
        assert!(index_prefix("a".repeat(MAX_PREFIX_BYTES)).is_ok());
        assert!(index_prefix("a".repeat(MAX_PREFIX_BYTES + 1)).is_err());
    }
}
