//! Certificate and key of the server.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::config::{HttpSourceError, HttpTls};

/// What does the server's side of a handshake.
pub fn acceptor(files: &HttpTls) -> Result<TlsAcceptor, HttpSourceError> {
    let unusable = |setting, path: &Path, error: pem::Error| HttpSourceError::Pem {
        setting,
        path: path.to_owned(),
        reason: describe(error),
    };
    let mismatched = |reason| HttpSourceError::Certificate {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
        reason,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect)
        .and_then(|chain: Vec<_>| match chain.is_empty() {
            true => Err(pem::Error::NoItemsFound),
            false => Ok(chain),
        })
        .map_err(|error| unusable("tls-certificate", &files.certificate, error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| unusable("tls-key", &files.key, error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(mismatched)?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(mismatched)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn describe(error: pem::Error) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "it has no PEM section of that kind".to_owned(),
        error => error.to_string(),
    }
}
