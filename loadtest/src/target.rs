//! Where POSTs go: the URL, and how a connection to it is opened.
//!
//! hyper-util's pooling client is not used: it puts a connection back into its pool by a task of its own, so that the next POST
//! opens another although the first is free; with HTTP/2 it keeps to one connection; and it does not say when a POST left.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::uri::Scheme;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::task::spawn_local;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tower::ServiceExt;

use crate::cli::TargetArgs;
use crate::send_error::SendError;
use crate::workload::Post;
use insecure::AnyCertificate;

mod insecure;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{0:?} is not a URL to post to; write http://host:port/events or https://host/events")]
    NotAUrl(String),
    #[error("the certificates of {path} can't be read: {source}")]
    Certificates { path: PathBuf, source: pem::Error },
    #[error("{0} has no certificate that can be used")]
    NoCertificate(PathBuf),
    #[error("this system's certificates can't be read: {0}")]
    SystemCertificates(std::io::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

pub(crate) type Body = Full<Bytes>;

/// The sending half of a connection.
pub(crate) enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Sender {
    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }
}

pub(crate) struct Target {
    pub(crate) http2: bool,
    url: Uri,
    host: HeaderValue,
    /// Of a POST to the URL itself, as most are.
    uri: Uri,
    connector: HttpsConnector<HttpConnector>,
    /// Connections so far.
    pub(crate) opened: Cell<u64>,
}

impl Target {
    pub(crate) fn new(args: &TargetArgs) -> Result<Self, TargetError> {
        let not_a_url = || TargetError::NotAUrl(args.url.clone());
        let url: Uri = args.url.parse().map_err(|_| not_a_url())?;
        let tls = match url.scheme_str() {
            Some("https") => tls(args)?,
            // Never used.
            Some("http") => tls(&TargetArgs { insecure: true, ..args.clone() })?,
            _ => return Err(not_a_url()),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        // A request is one write, which must not wait for an acknowledgement.
        tcp.set_nodelay(true);
        let host = url.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
        Ok(Self {
            http2: args.http2,
            host: host.ok_or_else(not_a_url)?,
            uri: uri(&url, args.http2, "").map_err(|_| not_a_url())?,
            url,
            connector: HttpsConnector::from((tcp, tls)),
            opened: Cell::new(0),
        })
    }

    pub(crate) fn request(&self, post: &Post) -> Result<Request<Body>, http::Error> {
        let mut request = Request::new(Full::new(post.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() =
            if post.path.is_empty() { self.uri.clone() } else { uri(&self.url, self.http2, &post.path)? };
        *request.headers_mut() = (*post.headers).clone();
        if !self.http2 {
            request.headers_mut().insert(HOST, self.host.clone());
        }
        Ok(request)
    }

    pub(crate) async fn connect(&self) -> Result<Sender, SendError> {
        let stream = self.connector.clone().oneshot(self.url.clone()).await.map_err(SendError::Failed)?;
        let is_tls = self.url.scheme() == Some(&Scheme::HTTPS);
        if self.http2 && is_tls && !stream.connected().is_negotiated_h2() {
            return Err(SendError::NoHttp2);
        }
        // How a connection ended is reported by its requests.
        let sender = if self.http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.map_err(SendError::failed)?;
            spawn_local(async move { connection.await.ok() });
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(SendError::failed)?;
            spawn_local(async move { connection.await.ok() });
            Sender::Http1(sender)
        };
        self.opened.set(self.opened.get() + 1);
        Ok(sender)
    }
}

/// Of a POST to the URL's path with more after it. HTTP/1.1 takes the path alone, HTTP/2 all of it.
fn uri(url: &Uri, http2: bool, after_path: &str) -> Result<Uri, http::Error> {
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}{after_path}", url.path().trim_end_matches('/'));
    let path = if path.is_empty() { "/" } else { &path };
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(format!("{path}{query}").parse()?);
    if !http2 {
        (parts.scheme, parts.authority) = (None, None);
    }
    Ok(Uri::from_parts(parts)?)
}

fn tls(args: &TargetArgs) -> Result<ClientConfig, TargetError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &args.cacert {
        _ if args.insecure => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
        Some(path) => builder.with_root_certificates(roots(path)?),
        None => builder.with_native_roots().map_err(TargetError::SystemCertificates)?,
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![if args.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(config)
}

fn roots(path: &Path) -> Result<RootCertStore, TargetError> {
    let failed = |source| TargetError::Certificates { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        roots.add(certificate.map_err(failed)?)?;
    }
    if roots.is_empty() { Err(TargetError::NoCertificate(path.to_owned())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn target(url: &str, http2: bool) -> Result<Target, TargetError> {
        Target::new(&TargetArgs { url: url.to_owned(), http2, cacert: None, insecure: true })
    }

    #[rstest]
    #[case("http://127.0.0.1:1/events", "", "/events")]
    #[case("http://127.0.0.1:1", "", "/")]
    #[case("http://127.0.0.1:1/events/", "/cmcd", "/events/cmcd")]
    #[case("http://[::1]:1/stage/events?k=v", "/cmcd", "/stage/events/cmcd?k=v")]
    fn the_path_of_a_post_extends_that_of_the_url(#[case] url: &str, #[case] after: &str, #[case] expected: &str) {
        assert_eq!(uri(&url.parse().unwrap(), false, after).unwrap().to_string(), expected);
    }

    #[test]
    fn http_2_names_the_whole_url() {
        let target = target("https://127.0.0.1:1/events", true).unwrap();
        assert_eq!(target.uri.to_string(), "https://127.0.0.1:1/events");
    }

    #[rstest]
    #[case("127.0.0.1:8080/events")]
    #[case("ftp://127.0.0.1/events")]
    #[case("events")]
    #[case("")]
    fn anything_but_an_http_url_is_an_error(#[case] url: &str) {
        let error = target(url, false).err().unwrap();
        assert!(matches!(error, TargetError::NotAUrl(_)), "{error}");
    }

    #[test]
    fn a_file_without_certificates_is_an_error() {
        let cacert = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        let args = TargetArgs { url: "https://127.0.0.1:1/".into(), http2: false, cacert, insecure: false };
        let error = Target::new(&args).err().unwrap();
        assert!(matches!(error, TargetError::NoCertificate(_)), "{error}");
    }
}
