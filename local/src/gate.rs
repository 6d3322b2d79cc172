//! Who may ask: requests that name this machine, and on the AWS port no pages of other origins.
//!
//! A page that is open in a browser on this machine can send requests to loopback addresses. What it reads of the answers is
//! limited by its origin, unless its own host name has come to mean 127.0.0.1 (DNS rebinding): then the `Host` gives it
//! away. Pages of any origin may post events, which is what they are for; they may not look at files or post faults.
//!
//! Not every request of a page names its origin: images, scripts, frames and links come without. The page can't read those
//! answers, but it can sign them, as any secret will do, and S3 lets whoever signs a GET choose the answer's content type:
//! a frame or a link to an object that holds a client's text would run that text as a page of this port's own origin,
//! which may read everything here. So what a browser marks as coming from another site is refused, links included.

use std::net::{Ipv4Addr, Ipv6Addr};

use axum::body::Body;
use axum::response::IntoResponse;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN};
use hyper::{HeaderMap, Response, StatusCode, Uri};

/// How a page that sends a request relates to its target, by the browser's own word.
/// <https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/Sec-Fetch-Site>
const SEC_FETCH_SITE: &str = "sec-fetch-site";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Events of pages of any origin; `AllowedOrigins` says which may read the answers.
    Events,
    /// The services of AWS, and the stack's own metrics.
    Aws,
    /// The status page: only its own requests, and addresses that a person typed.
    Page,
    /// A function's Runtime API.
    Runtime,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the request names no host; send Host: 127.0.0.1, [::1] or localhost")]
    NoHost,
    #[error("the host {0:?} is not this machine; use 127.0.0.1, [::1], localhost or a name that ends in .localhost")]
    Host(String),
    #[error("pages of the origin {0:?} may not use this port; events go to the other one")]
    Origin(String),
    #[error("pages of other sites may not embed this port or link to it; type the address")]
    CrossSite,
}

impl Door {
    pub fn admit(self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        // HTTP/2 has the authority in the URI, and so may HTTP/1.1; each one must be good.
        let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
        let hosts = headers.get_all(HOST).iter().map(HeaderValue::as_bytes).chain(authority);
        let mut named = false;
        for host in hosts {
            named = true;
            if !is_loopback(host) {
                return Err(Refusal::Host(String::from_utf8_lossy(host).into_owned()));
            }
        }
        if !named {
            return Err(Refusal::NoHost);
        }
        match self {
            Self::Events => Ok(()),
            Self::Aws | Self::Runtime => admit_page(headers),
            Self::Page => admit_own_page(headers),
        }
    }
}

/// Refuses what only a page of another site can have sent.
fn admit_page(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut origins = headers.get_all(ORIGIN).iter().peekable();
    if origins.peek().is_none() {
        // Scripts can't set this header, and other clients have no reason to.
        let is_cross_site = headers.get_all(SEC_FETCH_SITE).iter().any(|site| site == "cross-site");
        return if is_cross_site { Err(Refusal::CrossSite) } else { Ok(()) };
    }
    match origins.find(|origin| !is_loopback_origin(origin.as_bytes())) {
        Some(foreign) => Err(Refusal::Origin(String::from_utf8_lossy(foreign.as_bytes()).into_owned())),
        None => Ok(()),
    }
}

/// Refuses what another page has sent, of this machine or not: nothing but the status page has a reason to read it. Where a browser
/// names an origin, it is that of the `Host`; where it does not, it says `same-origin`, or `none` for a typed address.
fn admit_own_page(headers: &HeaderMap) -> Result<(), Refusal> {
    let own = headers.get(HOST).map(|host| [b"http://", host.as_bytes()].concat());
    let is_foreign = |origin: &&HeaderValue| Some(origin.as_bytes()) != own.as_deref();
    if let Some(foreign) = headers.get_all(ORIGIN).iter().find(is_foreign) {
        return Err(Refusal::Origin(String::from_utf8_lossy(foreign.as_bytes()).into_owned()));
    }
    let is_own = |site: &HeaderValue| site == "same-origin" || site == "none";
    if headers.get_all(SEC_FETCH_SITE).iter().all(is_own) { Ok(()) } else { Err(Refusal::CrossSite) }
}

impl Refusal {
    /// 403, with the reason as text.
    pub fn response(&self) -> Response<Body> {
        (StatusCode::FORBIDDEN, format!("{self}\n")).into_response()
    }
}

/// Who signed a request: environments sign with their names.
pub(crate) fn access_key(headers: &HeaderMap) -> Option<&str> {
    let signed = headers.get(AUTHORIZATION)?.to_str().ok()?;
    signed.split_once("Credential=")?.1.split('/').next()
}

/// `http://localhost:3000`; `null` is the origin of pages that hide theirs.
fn is_loopback_origin(origin: &[u8]) -> bool {
    let text = std::str::from_utf8(origin).unwrap_or_default();
    text.split_once("://").is_some_and(|(_, authority)| is_loopback(authority.as_bytes()))
}

/// Whether a host, with or without a port, is this machine by a name whose pages browsers trust: they mark requests as coming from
/// another site ([`SEC_FETCH_SITE`]) only to those. `[::ffff:127.0.0.1]` and `localhost.` reach the same port without a mark.
fn is_loopback(host: &[u8]) -> bool {
    let text = std::str::from_utf8(host).unwrap_or_default();
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let is_loopback = address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
            return is_loopback && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
        }
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    if !port.is_none_or(is_port) {
        return false;
    }
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        return address.is_loopback();
    }
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.strip_suffix(".localhost").is_some_and(is_host_name)
}

fn is_port(text: &str) -> bool {
    // `parse` would take a plus sign too.
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_host_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn admit(door: Door, uri: &str, headers: &[(&'static str, &str)]) -> Result<(), Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        door.admit(&uri.parse().unwrap(), &map)
    }

    #[rstest]
    #[case("127.0.0.1:8080")]
    #[case("127.0.0.1")]
    #[case("127.8.9.10:1")]
    #[case("[::1]:8080")]
    #[case("[::1]")]
    #[case("localhost")]
    #[case("LOCALHOST:65535")]
    #[case("landing-bucket.localhost:4566")]
    fn names_of_this_machine_are_admitted(#[case] host: &str) {
        for door in [Door::Events, Door::Aws] {
            assert_eq!(admit(door, "/", &[("host", host)]), Ok(()));
        }
    }

    #[rstest]
    #[case("evil.example")]
    #[case("evil.example:4566")]
    #[case("localhost.evil.example")]
    #[case("notlocalhost")]
    #[case(".localhost")]
    #[case("127.0.0.1.evil.example")]
    #[case("127.0.0.1.nip.io:80")]
    #[case("127.0.0.1@evil.example")]
    #[case("evil.example@127.0.0.1")]
    #[case("evil/x.localhost")]
    #[case("0.0.0.0:4566")]
    #[case("10.0.0.1")]
    #[case("192.168.1.7:8080")]
    #[case("[::]")]
    #[case("[::ffff:127.0.0.1]:80")]
    #[case("[::ffff:7f00:1]:80")]
    #[case("[::127.0.0.1]")]
    #[case("localhost.:80")]
    #[case("[fe80::1]:80")]
    #[case("[::1")]
    #[case("[::1]evil")]
    #[case("::1")]
    #[case("127.0.0.1:")]
    #[case("127.0.0.1:+80")]
    #[case("localhost:-1")]
    #[case("localhost:65536")]
    #[case("localhost: 80")]
    #[case("[::1]:+80")]
    #[case("127.0.0.1:80:80")]
    #[case("127.1")]
    #[case("2130706433")]
    #[case("")]
    fn other_names_are_refused_on_both_ports(#[case] host: &str) {
        for door in [Door::Events, Door::Aws] {
            assert_eq!(admit(door, "/", &[("host", host)]), Err(Refusal::Host(host.to_owned())));
        }
    }

    #[test]
    fn every_host_that_is_named_counts() {
        let both = [("host", "127.0.0.1"), ("host", "evil.example")];
        assert!(admit(Door::Aws, "/", &both).is_err());
        assert!(admit(Door::Aws, "http://evil.example/", &[("host", "127.0.0.1")]).is_err());
        assert!(admit(Door::Aws, "http://127.0.0.1/", &[("host", "evil.example")]).is_err());
        assert_eq!(admit(Door::Aws, "http://127.0.0.1/", &[]), Ok(()));
        assert_eq!(admit(Door::Aws, "/", &[]), Err(Refusal::NoHost));
    }

    #[rstest]
    #[case("https://evil.example")]
    #[case("http://localhost.evil.example")]
    #[case("null")]
    #[case("")]
    #[case("localhost")]
    fn foreign_pages_may_post_events_and_nothing_else(#[case] origin: &str) {
        let headers = [("host", "127.0.0.1:1"), ("origin", origin)];
        assert_eq!(admit(Door::Events, "/", &headers), Ok(()));
        assert_eq!(admit(Door::Aws, "/", &headers), Err(Refusal::Origin(origin.to_owned())));
    }

    #[rstest]
    #[case("http://localhost:3000")]
    #[case("https://127.0.0.1")]
    #[case("http://[::1]:8081")]
    fn pages_on_this_machine_are_admitted(#[case] origin: &str) {
        assert_eq!(admit(Door::Aws, "/", &[("host", "localhost:1"), ("origin", origin)]), Ok(()));
    }

    #[rstest]
    #[case::image_or_link_of_a_page_elsewhere(None, "cross-site", Err(Refusal::CrossSite))]
    #[case::typed_address(None, "none", Ok(()))]
    #[case::own_page(None, "same-origin", Ok(()))]
    #[case::page_on_localhost(None, "same-site", Ok(()))]
    #[case::fetch_of_a_page_on_localhost(Some("http://localhost:3000"), "cross-site", Ok(()))]
    #[case::fetch_of_a_page_elsewhere(
        Some("https://evil.example"), "cross-site", Err(Refusal::Origin("https://evil.example".into()))
    )]
    fn requests_without_an_origin_are_judged_by_the_site_they_come_from(
        #[case] origin: Option<&'static str>,
        #[case] site: &str,
        #[case] admitted: Result<(), Refusal>,
    ) {
        let headers = [("host", "127.0.0.1:1"), (SEC_FETCH_SITE, site)];
        let headers: Vec<_> = headers.into_iter().chain(origin.map(|origin| ("origin", origin))).collect();
        assert_eq!(admit(Door::Aws, "/metrics", &headers), admitted);
        assert_eq!(admit(Door::Events, "/health", &headers), Ok(()));
    }

    #[rstest]
    #[case::tool(&[], true)]
    #[case::typed_address(&[(SEC_FETCH_SITE, "none")], true)]
    #[case::own_fetch(&[(SEC_FETCH_SITE, "same-origin")], true)]
    #[case::own_origin(&[("origin", "http://localhost:8081")], true)]
    #[case::page_on_another_port(&[(SEC_FETCH_SITE, "same-site")], false)]
    #[case::its_origin(&[("origin", "http://localhost:3000")], false)]
    #[case::foreign_page(&[(SEC_FETCH_SITE, "cross-site")], false)]
    #[case::hidden_origin(&[("origin", "null")], false)]
    #[case::one_of_two(&[("origin", "http://localhost:8081"), ("origin", "http://evil.example")], false)]
    fn the_status_page_is_for_itself_alone(#[case] more: &[(&'static str, &str)], #[case] admitted: bool) {
        let headers = [&[("host", "localhost:8081")], more].concat();
        assert_eq!(admit(Door::Page, "/api/overview", &headers).is_ok(), admitted);
        assert!(admit(Door::Page, "/", &[("host", "evil.example")]).is_err());
    }
}
