//! TLS, with a certificate and a key from files, which are read again when they change.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

/// How often the files are looked at.
pub(super) const RELOAD_INTERVAL: Duration = Duration::from_secs(10);
/// In the order in which the server would have them.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
/// As ALPN calls it.
pub(super) const HTTP2: &[u8] = b"h2";

/// Where the certificate chain and the key are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// `TLS_CERTIFICATE`
    pub certificate: PathBuf,
    /// `TLS_KEY`
    pub key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS_CERTIFICATE: {0} holds no certificate: {1}")]
    Certificate(PathBuf, #[source] pem::Error),
    #[error("TLS_KEY: {0} holds no key: {1}")]
    Key(PathBuf, #[source] pem::Error),
    #[error("TLS_CERTIFICATE and TLS_KEY do not fit: {0}")]
    Pair(#[from] rustls::Error),
}

pub(super) struct Tls {
    files: Files,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(super) fn load(files: Files) -> Result<Self, TlsError> {
        Ok(Self { config: RwLock::new(files.load()?), files })
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Reads the files again whenever they change, for as long as the process lives. A certificate and a key that do not fit,
    /// as when one of the two is not written yet, change nothing.
    pub(super) async fn reload(&self) {
        let mut loaded = self.files.modified();
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let modified = self.files.modified();
            if modified == loaded {
                continue;
            }
            match self.files.load() {
                Ok(config) => {
                    *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
                    loaded = modified;
                    tracing::info!("the TLS certificate was read again");
                }
                Err(error) => {
                    tracing::error!(%error, "the new TLS certificate is not used; the one before it still is")
                }
            }
        }
    }
}

impl Files {
    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = CertificateDer::pem_file_iter(&self.certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let chain = chain.and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) });
        let chain = chain.map_err(|error| TlsError::Certificate(self.certificate.clone(), error))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| TlsError::Key(self.key.clone(), error))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = config.with_single_cert(chain, key)?;
        config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// When each was changed last, as far as that is known.
    fn modified(&self) -> [Option<SystemTime>; 2] {
        let modified = |path: &PathBuf| -> io::Result<SystemTime> { std::fs::metadata(path)?.modified() };
        [&self.certificate, &self.key].map(|path| modified(path).ok())
    }
}
