//! Whom TLS connections trust: the system's authorities, or those of a file.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::client::WantsClientCert;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// The beginning of a TLS configuration, 1.2 or later, that trusts the authorities of a PEM file, or the system's
/// (`SSL_CERT_FILE`); the error names the file.
pub(super) fn client(
    ca: Option<&Path>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let roots = match ca {
        Some(path) => Arc::new(trusted(certificates(path)?, &path.display().to_string())?),
        None => system_roots()?,
    };
    // The provider is named here, so that nothing depends on a process-wide default.
    let provider = rustls::crypto::ring::default_provider();
    let builder = ClientConfig::builder_with_provider(provider.into());
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots))
}

/// The certificates of a PEM file.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// The system's authorities, shared by all connections that are open at a time.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static SHARED: Mutex<Weak<RootCertStore>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = shared.upgrade() {
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    let roots = Arc::new(trusted(found.certs, "the system's certificate store")?);
    *shared = Arc::downgrade(&roots);
    Ok(roots)
}

fn trusted(
    certificates: Vec<CertificateDer<'static>>,
    from: &str,
) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(format!("{from} holds no certificate"));
    }
    Ok(roots)
}
