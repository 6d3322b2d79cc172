//! What `client` says about where a request came from, beside who sent it: each part only if configured, and left out where it is not
//! what a browser or a CDN sends.

use shared::limits::{MAX_ORIGIN_BYTES, MAX_PAGE_BYTES};

/// Which parts are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClientContext {
    /// The page's origin, as its browser says it.
    pub origin: bool,
    /// The page's path.
    pub page: bool,
    /// The viewer's country, as CloudFront says it.
    pub country: bool,
}

/// A part that does not exist.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("holds {0:?}; it takes origin, page and country")]
pub struct UnknownPart(String);

impl ClientContext {
    /// Reads the names of parts.
    ///
    /// # Errors
    ///
    /// When a name is none of them.
    pub fn parse<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, UnknownPart> {
        let mut context = Self::default();
        for name in names {
            match name {
                "origin" => context.origin = true,
                "page" => context.page = true,
                "country" => context.country = true,
                other => return Err(UnknownPart(other.to_owned())),
            }
        }
        Ok(context)
    }

    /// Whether it takes headers that are read for nothing else.
    #[must_use]
    pub(crate) const fn reads_more_headers(self) -> bool {
        self.page || self.country
    }
}

/// An `Origin`: `null`, or a scheme and a host.
pub(crate) fn origin(header: &str) -> Option<&str> {
    let is_address = |text: &str| {
        let Some((scheme, host)) = text.split_once("://") else { return false };
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        !scheme.is_empty()
            && scheme.bytes().all(is_scheme)
            && !host.is_empty()
            && !host.contains(['/', '?', '#', '@', ','])
    };
    let fits = header.len() <= MAX_ORIGIN_BYTES && is_plain(header);
    (fits && (header == "null" || is_address(header))).then_some(header)
}

/// The path of a `Referer`, without its query and its fragment, which may hold what is nobody's business.
pub(crate) fn page(referer: &str) -> Option<&str> {
    let (scheme, rest) = referer.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("https") && !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    let address = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    // What stands before it is the host, and with some clients a user's name and password.
    let path = address.find('/').map_or("/", |start| &address[start..]);
    (!address.is_empty() && path.len() <= MAX_PAGE_BYTES && is_plain(path)).then_some(path)
}

/// A country's two letters; CloudFront and others have a few codes with a digit.
pub(crate) fn country(header: &str) -> Option<&str> {
    let is_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
    (header.len() == 2 && header.bytes().all(is_code)).then_some(header)
}

/// Of the characters that an address may have (<https://www.rfc-editor.org/rfc/rfc3986#appendix-A>), and some more that browsers leave.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !b"\"<>\\^`{}".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[test]
    fn parts_are_named() {
        let all = ClientContext { origin: true, page: true, country: true };
        assert_eq!(ClientContext::parse(["page", "origin", "country", "page"].into_iter()), Ok(all));
        assert_eq!(ClientContext::parse([].into_iter()), Ok(ClientContext::default()));
        assert_eq!(ClientContext::parse(["referer"].into_iter()), Err(UnknownPart("referer".into())));
    }

    #[rstest]
    #[case("https://player.example", true)]
    #[case("http://[2001:db8::1]:3000", true)]
    #[case("capacitor://localhost", true)]
    #[case("null", true)]
    #[case("", false)]
    #[case("://a", false)]
    #[case("https://", false)]
    #[case("https://a.example/path", false)]
    #[case("https://user@a.example", false)]
    #[case("https://a.example,https://b.example", false)]
    #[case("https://a example", false)]
    #[case("https://ü.example", false)]
    #[case(&format!("https://{}", "a".repeat(MAX_ORIGIN_BYTES - 8)), true)]
    #[case(&format!("https://{}", "a".repeat(MAX_ORIGIN_BYTES - 7)), false)]
    fn an_origin_is_kept_if_it_is_one(#[case] header: &str, #[case] is_kept: bool) {
        assert_eq!(origin(header), is_kept.then_some(header));
    }

    #[rstest]
    #[case("https://a.example/watch/7?token=secret#t=1", Some("/watch/7"))]
    #[case("https://a.example/watch#t=1?x", Some("/watch"))]
    #[case("HTTP://a.example:8080/", Some("/"))]
    #[case("https://a.example", Some("/"))]
    #[case("https://a.example?token=secret/path", Some("/"))]
    #[case("https://user:password@a.example/p/q", Some("/p/q"))]
    #[case("https://user:password@a.example", Some("/"))]
    #[case("https://", None)]
    #[case("https://?a", None)]
    #[case("/watch", None)]
    #[case("about:blank", None)]
    #[case("file:///home/me/page.html", None)]
    #[case("https://a.example/ü", None)]
    #[case("https://a.example/a b", None)]
    #[case("", None)]
    fn a_page_is_the_path_alone(#[case] referer: &str, #[case] expected: Option<&str>) {
        assert_eq!(page(referer), expected);
    }

    #[rstest]
    #[case(MAX_PAGE_BYTES, true)]
    #[case(MAX_PAGE_BYTES + 1, false)]
    fn a_path_that_is_too_long_is_left_out(#[case] bytes: usize, #[case] is_kept: bool) {
        let referer = format!("https://a.example/{}?q", "p".repeat(bytes - 1));
        assert_eq!(page(&referer).map(str::len), is_kept.then_some(bytes));
    }

    #[rstest]
    #[case("DE", true)]
    #[case("T1", true)]
    #[case("de", false)]
    #[case("D", false)]
    #[case("DEU", false)]
    #[case("DE,FR", false)]
    #[case("Ü", false)]
    fn a_country_is_two_letters(#[case] header: &str, #[case] is_kept: bool) {
        assert_eq!(country(header), is_kept.then_some(header));
    }

    proptest! {
        #[test]
        fn no_page_has_a_query_a_fragment_or_a_user(
            user in "([a-z]{1,5}(:[a-z]{0,5})?@)?", host in "[a-z.]{1,20}", path in "(/[a-z0-9]{0,8}){0,3}", rest in "([?#].{0,40})?",
        ) {
            let kept = page(&format!("https://{user}{host}{path}{rest}")).map(str::to_owned);
            prop_assert_eq!(kept, Some(if path.is_empty() { "/".to_owned() } else { path }));
        }

        #[test]
        fn whatever_a_header_holds_what_is_kept_is_short_and_plain(header in "(https://)?.{0,2000}") {
            for (kept, most) in [(origin(&header), MAX_ORIGIN_BYTES), (page(&header), MAX_PAGE_BYTES), (country(&header), 2)] {
                if let Some(kept) = kept {
                    prop_assert!(kept.len() <= most && header.contains(kept) && kept.bytes().all(|byte| byte.is_ascii_graphic()));
                }
            }
            prop_assert!(!page(&header).is_some_and(|page| page.contains(['?', '#'])));
        }
    }
}
