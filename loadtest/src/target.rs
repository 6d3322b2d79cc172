//! Where POSTs go: the URL, and how a connection to it is made.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

mod insecure;

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    /// Without TLS by prior knowledge, with it by ALPN.
    Http2,
}

impl Protocol {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }

    fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// Whom to believe in TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trust {
    /// The certificates of this machine.
    System,
    /// Those of a PEM file, and no others.
    File(PathBuf),
    /// Anyone.
    Anyone,
}

/// Why there can be no connection to it, at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{0:?} is no URL; write http://host:port/events or https://host/events")]
    NotAUrl(String),
    #[error("{url} can't be sent to: {source}")]
    HostName { url: String, source: InvalidDnsNameError },
    #[error("{host} can't be looked up: {source}")]
    LookUp { host: String, source: std::io::Error },
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("the certificates of {path} can't be read: {source}")]
    Certificates { path: PathBuf, source: pem::Error },
    #[error("there is no certificate that can be used in {0}")]
    NoCertificate(String),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("connecting: {0}")]
    Tcp(std::io::Error),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("the server does not speak HTTP/2 over TLS: it chose another protocol")]
    NoHttp2,
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("no connection within the time of --timeout")]
    Timeout,
}

/// A URL, looked up.
pub(crate) struct Target {
    pub(crate) protocol: Protocol,
    scheme: Scheme,
    authority: Authority,
    path: String,
    query: String,
    /// At least one.
    addresses: Vec<SocketAddr>,
    /// How often a connection was begun.
    connected: Cell<usize>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    pub(crate) async fn new(url: &str, protocol: Protocol, trust: &Trust) -> Result<Self, TargetError> {
        let uri: Uri = url.parse().map_err(|_| TargetError::NotAUrl(url.to_owned()))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(TargetError::NotAUrl(url.to_owned()));
        };
        let is_tls = scheme == Scheme::HTTPS;
        if !is_tls && scheme != Scheme::HTTP {
            return Err(TargetError::NotAUrl(url.to_owned()));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tls = if is_tls { Some(tls(url, &host, protocol, trust)?) } else { None };
        let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let path = parts.path_and_query.as_ref().map_or("/", |path| path.path()).to_owned();
        let query = parts.path_and_query.and_then(|path| path.query().map(|query| format!("?{query}")));
        let addresses = look_up(&host, port).await?;
        Ok(Self {
            protocol,
            scheme,
            authority,
            path,
            query: query.unwrap_or_default(),
            addresses,
            connected: Cell::new(0),
            tls,
        })
    }

    /// For a POST to the URL's path with this after it. HTTP/1.1 wants the path alone, HTTP/2 the whole.
    pub(crate) fn uri(&self, after_path: &str) -> Result<Uri, http::Error> {
        let path = format!("{}{after_path}{}", self.path.trim_end_matches('/'), self.query);
        match self.protocol {
            Protocol::Http1 => Ok(path.parse()?),
            Protocol::Http2 => Uri::builder()
                .scheme(self.scheme.clone())
                .authority(self.authority.clone())
                .path_and_query(path)
                .build(),
        }
    }

    /// The header that names the server.
    pub(crate) fn host(&self) -> Result<HeaderValue, http::Error> {
        Ok(HeaderValue::from_str(self.authority.as_str())?)
    }

    /// Each connection begins with another of the addresses, as the callers of a load balancer do.
    fn addresses_in_turn(&self) -> Vec<SocketAddr> {
        let mut addresses = self.addresses.clone();
        addresses.rotate_left(self.connected.get() % self.addresses.len());
        self.connected.set(self.connected.get().wrapping_add(1));
        addresses
    }

    /// To the first of its addresses that answers.
    pub(crate) async fn connect(&self) -> Result<Stream, ConnectError> {
        let stream = TcpStream::connect(&self.addresses_in_turn()[..]).await.map_err(ConnectError::Tcp)?;
        // A request is one write and must not wait for the answer to the one before it.
        stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
        let Some((connector, name)) = &self.tls else { return Ok(Stream::Plain(stream)) };
        let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
        if self.protocol == Protocol::Http2 && stream.get_ref().1.alpn_protocol() != Some(self.protocol.alpn()) {
            return Err(ConnectError::NoHttp2);
        }
        Ok(Stream::Tls(Box::new(stream)))
    }
}

/// A connection's bytes.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn look_up(host: &str, port: u16) -> Result<Vec<SocketAddr>, TargetError> {
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|source| TargetError::LookUp { host: host.to_owned(), source })?;
    let addresses: Vec<SocketAddr> = found.collect();
    if addresses.is_empty() { Err(TargetError::NoAddress(host.to_owned())) } else { Ok(addresses) }
}

fn tls(
    url: &str,
    host: &str,
    protocol: Protocol,
    trust: &Trust,
) -> Result<(TlsConnector, ServerName<'static>), TargetError> {
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|source| TargetError::HostName { url: url.to_owned(), source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(insecure::Believer::new(provider)))
            .with_no_client_auth(),
        Trust::System => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
        Trust::File(path) => builder.with_root_certificates(roots_of(path)?).with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn system_roots() -> Result<RootCertStore, TargetError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TargetError::NoCertificate("this system's store".into())) } else { Ok(roots) }
}

fn roots_of(path: &Path) -> Result<RootCertStore, TargetError> {
    let failed = |source| TargetError::Certificates { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        roots.add(certificate.map_err(failed)?)?;
    }
    if roots.is_empty() { Err(TargetError::NoCertificate(path.display().to_string())) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    async fn target(url: &str, protocol: Protocol) -> Result<Target, TargetError> {
        Target::new(url, protocol, &Trust::Anyone).await
    }

    #[rstest]
    #[case("http://127.0.0.1:1/events", "", "/events")]
    #[case("http://127.0.0.1:1/events/", "/cmcd", "/events/cmcd")]
    #[case("http://[::1]:1/stage/events?k=v", "/cmcd", "/stage/events/cmcd?k=v")]
    #[tokio::test]
    async fn the_path_goes_on_where_the_url_s_ends(#[case] url: &str, #[case] after: &str, #[case] expected: &str) {
        let target = target(url, Protocol::Http1).await.unwrap();
        assert_eq!(target.uri(after).unwrap().to_string(), expected);
    }

    #[tokio::test]
    async fn http_2_names_the_whole_url() {
        let target = target("https://127.0.0.1:1/events", Protocol::Http2).await.unwrap();
        assert_eq!(target.uri("").unwrap().to_string(), "https://127.0.0.1:1/events");
    }

    #[rstest]
    #[case("127.0.0.1:8080/events")]
    #[case("ftp://127.0.0.1/events")]
    #[case("events")]
    #[case("")]
    #[tokio::test]
    async fn what_is_no_url_is_told(#[case] url: &str) {
        let error = target(url, Protocol::Http1).await.err().unwrap();
        assert!(matches!(error, TargetError::NotAUrl(_)), "{error}");
    }

    #[tokio::test]
    async fn a_file_without_certificates_is_told() {
        let file = Trust::File(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        let error = Target::new("https://127.0.0.1:1/", Protocol::Http1, &file).await.err().unwrap();
        assert!(matches!(error, TargetError::NoCertificate(_)), "{error}");
    }
}
