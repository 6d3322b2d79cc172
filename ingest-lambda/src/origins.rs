//! The origins whose pages may read answers.
//!
//! A browser sends its page's origin in one form only (<https://html.spec.whatwg.org/multipage/browsers.html#ascii-serialisation-of-an-origin>):
//! a value in any other form could never match, and whoever configured it would look for the fault elsewhere.

use url::{Host, Url};

/// The origins whose pages may read answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    Any,
    Listed(Vec<Origin>),
}

/// An allowed origin, or all below a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `https://player.example.com:8443`, or `null`.
    One(String),
    /// `https://*.example.com`: `scheme` is `https://`, `suffix` is `.example.com`, with the port if there is one.
    Below { scheme: String, suffix: String },
}

/// A value that no browser's origin can match.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{value:?} matches no origin: {problem}; write it like https://player.example.com, https://*.example.com or *")]
pub struct OriginError {
    value: String,
    problem: String,
}

impl AllowedOrigins {
    /// # Errors
    ///
    /// When a value is neither `*` nor an origin as browsers write it; the error says what is wrong with it.
    pub fn parse(values: &[String]) -> Result<Self, OriginError> {
        let listed = values.iter().filter(|value| *value != "*").map(|value| Origin::parse(value));
        let listed: Vec<Origin> = listed.collect::<Result<_, _>>()?;
        Ok(if listed.len() < values.len() { Self::Any } else { Self::Listed(listed) })
    }

    #[must_use]
    pub fn allow(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(listed) => listed.iter().any(|allowed| allowed.matches(origin)),
        }
    }
}

impl Origin {
    fn parse(value: &str) -> Result<Self, OriginError> {
        let error = |problem| OriginError { value: value.to_owned(), problem };
        // What browsers send from sandboxed frames and local files.
        if value == "null" {
            return Ok(Self::One(value.to_owned()));
        }
        let Some((scheme, domain)) = value.split_once("://*.") else {
            origin_as_sent(value).map_err(error)?;
            return Ok(Self::One(value.to_owned()));
        };
        match origin_as_sent(&format!("{scheme}://{domain}")).map_err(error)? {
            Host::Domain(_) => Ok(Self::Below { scheme: format!("{scheme}://"), suffix: format!(".{domain}") }),
            Host::Ipv4(_) | Host::Ipv6(_) => Err(error("no host is below an address".into())),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::One(allowed) => allowed == origin,
            Self::Below { scheme, suffix } => origin
                .strip_prefix(&**scheme)
                .and_then(|authority| authority.strip_suffix(&**suffix))
                .is_some_and(|labels| labels.split('.').all(is_label)),
        }
    }
}

/// The host of an origin, if a browser would send that origin in the form that it has here.
fn origin_as_sent(origin: &str) -> Result<Host<String>, String> {
    let url = Url::parse(origin).map_err(|error| format!("it is no address of a page ({error})"))?;
    let Some(host) = url.host() else { return Err("it has no host".into()) };
    let sent = match url.scheme() {
        "https" | "http" => url.origin().ascii_serialization(),
        "file" | "data" | "blob" | "filesystem" | "about" | "javascript" => {
            return Err("pages with this scheme send null as their origin".into());
        }
        "ws" | "wss" | "ftp" => return Err("no page has this scheme".into()),
        // Of extensions and of frameworks for apps, which nobody can list. Browsers leave their hosts as they are.
        scheme => format!("{scheme}://{host}{}", url.port().map(|port| format!(":{port}")).unwrap_or_default()),
    };
    if sent != origin {
        return Err(format!("browsers send {sent:?}"));
    }
    let is_host_name = |name: &str| name.len() <= MAX_DOMAIN_BYTES && name.split('.').all(is_label);
    match host {
        Host::Domain(name) if !is_host_name(name) => Err("its host is no host name".into()),
        _ if url.port() == Some(0) => Err("its port is 0".into()),
        host => Ok(host.to_owned()),
    }
}

/// Bytes of a domain name and of each of its labels at most, as text.
/// <https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4>
const MAX_DOMAIN_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// Whether it is one of the parts between the dots of a host name.
fn is_label(label: &str) -> bool {
    let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=MAX_LABEL_BYTES).contains(&label.len()) && label.bytes().all(is_label_byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parse(values: &[&str]) -> Result<AllowedOrigins, OriginError> {
        AllowedOrigins::parse(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
    }

    #[rstest]
    #[case("https://player.example.com")]
    #[case("http://localhost:3000")]
    #[case("https://example.com:8443")]
    #[case("http://example.com:443")]
    #[case("https://xn--bcher-kva.example")]
    #[case("https://my_site.example")]
    #[case("http://127.0.0.1:8080")]
    #[case("http://[::1]:3000")]
    #[case("http://[2001:db8::1]")]
    #[case("http://[::]")]
    #[case("http://[1::2:0:0:3:4]")]
    #[case("http://[::ffff:7f00:1]:8080")]
    #[case("http://[::ffff:0:0]")]
    #[case("http://[::7f00:1]")]
    #[case("http://[::fffe:7f00:1]")]
    #[case("http://127.0.0.0x1.example")]
    #[case("http://0xg")]
    #[case("https://1.2.3.4.example")]
    #[case(&format!("https://{}.example", "a".repeat(63)))]
    #[case("capacitor://localhost")]
    #[case("tauri://localhost")]
    #[case("safari-web-extension://88D2E5D9-4F5C-4B4C-AF0D-1B9A1E1D2C3B")]
    #[case("chrome-extension://mhjfbmdgcfjbbpaeojofohoefgiehjai")]
    #[case("null")]
    fn an_origin_as_browsers_write_it_matches_itself_alone(#[case] origin: &str) {
        let allowed = parse(&["https://other.example", origin]).unwrap();
        assert!(allowed.allow(origin));
        for other in [format!("{origin}x"), format!("x{origin}"), origin.to_uppercase(), String::new()] {
            assert!(!allowed.allow(&other), "{other}");
        }
    }

    #[rstest]
    #[case::slash("https://a.example/")]
    #[case::path("https://a.example/player")]
    #[case::query("https://a.example?x")]
    #[case::fragment("https://a.example#x")]
    #[case::no_scheme("a.example")]
    #[case::no_scheme_but_a_port("a.example:8080")]
    #[case::no_scheme_but_slashes("//a.example")]
    #[case::one_slash("https:/a.example")]
    #[case::bad_scheme("ht tp://a.example")]
    #[case::scheme_of_digits("1http://a.example")]
    #[case::no_host("https://")]
    #[case::no_host_but_a_port("https://:8443")]
    #[case::own_port_of_https("https://a.example:443")]
    #[case::own_port_of_http("http://a.example:80")]
    #[case::no_port("https://a.example:")]
    #[case::port_with_a_zero("https://a.example:08080")]
    #[case::port_too_large("https://a.example:65536")]
    #[case::port_of_letters("https://a.example:http")]
    #[case::capital_host("https://A.example")]
    #[case::capital_scheme("HTTPS://a.example")]
    #[case::space("https://a .example")]
    #[case::two_without_a_comma("https://a.example https://b.example")]
    #[case::user("https://user@a.example")]
    #[case::not_ascii("https://bücher.example")]
    #[case::empty_label("https://a..example")]
    #[case::dot_at_the_end("https://a.example.")]
    #[case::short_ipv4("http://127.1")]
    #[case::ipv4_out_of_range("http://127.0.0.256")]
    #[case::ipv4_that_ends_in_hexadecimal("http://127.0.0.0x1")]
    #[case::ipv4_in_hexadecimal("http://0x7f.0x0.0x0.0x1")]
    #[case::ipv4_as_one_number("http://0x7f000001")]
    #[case::ipv4_as_one_decimal_number("http://2130706433")]
    #[case::ipv4_in_octal("http://0177.0.0.1")]
    #[case::name_that_ends_in_a_number("http://player.0x")]
    #[case::long_ipv6("http://[2001:db8:0:0::1]")]
    #[case::ipv4_in_ipv6_with_dots("http://[::ffff:127.0.0.1]")]
    #[case::ipv4_at_the_end_of_ipv6("http://[2001:db8::192.0.2.1]")]
    #[case::ipv6_with_capitals("http://[2001:DB8::1]")]
    #[case::ipv6_with_leading_zeros("http://[2001:0db8::1]")]
    #[case::ipv6_that_shortens_one_zero("http://[1:2:3::5:6:7:8]")]
    #[case::ipv6_that_shortens_the_second_run("http://[1:0:0:2::3:4]")]
    #[case::ipv6_with_a_zone("http://[fe80::1%25eth0]")]
    #[case::file("file://")]
    #[case::file_with_a_host("file://localhost")]
    #[case::blob("blob:https://a.example")]
    #[case::blob_alone("blob://a.example")]
    #[case::about("about://blank")]
    #[case::web_socket("wss://a.example")]
    #[case::web_socket_without_tls("ws://a.example:8080")]
    #[case::ftp("ftp://a.example")]
    #[case::wildcard_of_a_scheme_that_no_page_has("wss://*.example.com")]
    #[case::wildcard_of_a_number("http://*.example.0x1")]
    #[case::port_zero("https://a.example:0")]
    #[case::long_label(&format!("https://{}.example", "a".repeat(64)))]
    #[case::long_domain(&format!("https://{}example", "a.".repeat(124)))]
    #[case::opaque_host_that_is_empty("capacitor://")]
    #[case::opaque_host_with_a_space("capacitor://a b")]
    #[case::capital_scheme_of_an_app("Capacitor://localhost")]
    #[case::ipv6_without_brackets("http://2001:db8::1")]
    #[case::wildcard_alone("https://*")]
    #[case::wildcard_within("https://a.*.example")]
    #[case::wildcard_in_a_label("https://a*.example.com")]
    #[case::wildcard_twice("https://*.*.example.com")]
    #[case::wildcard_without_a_scheme("*.example.com")]
    #[case::wildcard_for_the_scheme("*://a.example")]
    #[case::wildcard_for_the_port("https://a.example:*")]
    #[case::wildcard_of_a_slash("https://*.example.com/")]
    #[case::wildcard_of_its_own_port("https://*.example.com:443")]
    #[case::wildcard_of_capitals("https://*.Example.com")]
    #[case::wildcard_of_an_address("http://*.0.0.1")]
    #[case::wildcard_of_nothing("https://*.")]
    #[case::quotes("\"https://a.example\"")]
    fn a_value_that_could_never_match_is_named(#[case] value: &str) {
        for values in [&[value][..], &["https://fine.example", value], &["*", value]] {
            let error = parse(values).unwrap_err();
            assert_eq!(error.value, value);
        }
    }

    #[rstest]
    #[case("https://*.example.com", "https://a.example.com", true)]
    #[case("https://*.example.com", "https://a.b-c.d_e.example.com", true)]
    #[case("https://*.example.com", "https://example.com", false)]
    #[case("https://*.example.com", "https://.example.com", false)]
    #[case("https://*.example.com", "https://a..example.com", false)]
    #[case("https://*.example.com", "https://anexample.com", false)]
    #[case("https://*.example.com", "http://a.example.com", false)]
    #[case("https://*.example.com", "https://a.example.com:8443", false)]
    #[case("https://*.example.com", "https://a.example.com.evil.example", false)]
    #[case("https://*.example.com", "https://evil.example/.example.com", false)]
    #[case("https://*.example.com", "https://evil.example:1.example.com", false)]
    #[case("https://*.example.com", "https://evil@.example.com", false)]
    #[case("https://*.example.com:8443", "https://a.example.com:8443", true)]
    #[case("https://*.example.com:8443", "https://a.example.com", false)]
    #[case("http://*.localhost:3000", "http://app.localhost:3000", true)]
    fn a_wildcard_stands_for_one_label_or_more(#[case] allowed: &str, #[case] origin: &str, #[case] expected: bool) {
        assert_eq!(parse(&[allowed]).unwrap().allow(origin), expected);
    }

    #[test]
    fn a_star_allows_any() {
        for values in [&["*"][..], &["https://a.example", "*"]] {
            assert_eq!(parse(values), Ok(AllowedOrigins::Any));
        }
        assert!(AllowedOrigins::Any.allow("https://whoever.example"));
    }
}
