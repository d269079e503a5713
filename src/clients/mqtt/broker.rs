//! Where a broker is, how it is trusted and how it lets us in.

use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection};

use crate::clients::trust;
use crate::config::address;

/// A broker's address, with what is needed to be let in. Written, it is `host:port`, never with a password.
#[derive(Clone)]
pub struct Broker {
    address: address::Broker,
    tls: Option<Tls>,
}

/// Whom to trust and who we are: PEM files, read for each connection.
#[derive(Clone)]
struct Tls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Broker {
    /// Reads an address as [`address::Broker::parse`] does. `ca` holds the authorities to trust (default: the
    /// system's), `identity` this node's certificate and its key. No file is opened yet.
    ///
    /// # Errors
    /// Says what would be right, without repeating the address: it may hold a password.
    pub fn parse(
        url: &str,
        ca: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> anyhow::Result<Broker> {
        let address =
            address::Broker::parse(url).map_err(|why| anyhow!("the broker's address {why}"))?;
        ensure!(
            address.tls || (ca.is_none() && identity.is_none()),
            "certificates need a broker's address that starts with mqtts://"
        );
        let tls = address.tls.then(|| Tls {
            ca: ca.map(Path::to_owned),
            identity: identity.map(|(certificate, key)| (certificate.into(), key.into())),
        });
        Ok(Broker { address, tls })
    }

    /// The certificates that it shows, its own first; none without TLS. They were found good, or there is an error.
    /// Blocks, at most for `patience` a step.
    ///
    /// # Errors
    /// It can't be reached, or TLS does not come about; in the words of the system or of rustls.
    pub fn certificates(&self, patience: Duration) -> anyhow::Result<Vec<CertificateDer<'static>>> {
        let Some(config) = self.client_config().map_err(|why| anyhow!(why))? else {
            return Ok(Vec::new());
        };
        let name = ServerName::try_from(self.host().to_owned())?;
        let mut tls = ClientConnection::new(config, name)?;
        let addresses = (self.host(), self.port()).to_socket_addrs()?;
        let address = addresses
            .into_iter()
            .next()
            .context("the host has no address")?;
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        let shown = tls.peer_certificates().unwrap_or_default();
        Ok(shown
            .iter()
            .cloned()
            .map(CertificateDer::into_owned)
            .collect())
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let host = self.host();
        host == "localhost" || host == "::1" || host.starts_with("127.")
    }

    /// Host name or address, IPv6 without brackets: as an address and as a certificate's name alike.
    pub(in crate::clients) fn host(&self) -> &str {
        &self.address.host
    }

    pub(in crate::clients) fn port(&self) -> u16 {
        self.address.port
    }

    pub(super) fn login(&self) -> Option<(&str, &str)> {
        let password = self.address.password.as_deref().unwrap_or_default();
        self.address.user.as_deref().map(|user| (user, password))
    }

    /// The TLS side, `None` without TLS. The error names the file.
    pub(super) fn client_config(&self) -> Result<Option<Arc<ClientConfig>>, String> {
        let Some(tls) = &self.tls else {
            return Ok(None);
        };
        let builder = trust::client(tls.ca.as_deref())?;
        let config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(trust::certificates(certificate)?, private_key(key)?)
                .map_err(|error| format!("{}: {error}", certificate.display()))?,
        };
        Ok(Some(Arc::new(config)))
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host().contains(':') {
            write!(f, "[{}]:{}", self.host(), self.port())
        } else {
            write!(f, "{}:{}", self.host(), self.port())
        }
    }
}

/// As [`fmt::Display`]: a log must not show the password.
impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({self})")
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_shown_without_its_login() {
        for (url, shown, login) in [
            ("mqtt://127.0.0.1:1884", "127.0.0.1:1884", None),
            ("mqtt://[::1]:1884", "[::1]:1884", None),
            ("mqtt://me@broker", "broker:1883", Some(("me", ""))),
            (
                "mqtts://m%40e:a%3Ab@broker",
                "broker:8883",
                Some(("m@e", "a:b")),
            ),
            (
                "mqtt://me:p@ss/w:rd@broker",
                "broker:1883",
                Some(("me", "p@ss/w:rd")),
            ),
        ] {
            let broker = Broker::parse(url, None, None).unwrap();
            assert_eq!(broker.login(), login, "{url}");
            assert_eq!(
                (broker.to_string(), format!("{broker:?}")),
                (shown.to_owned(), format!("Broker({shown})"))
            );
        }
    }

    #[test]
    fn bad_addresses_are_told_without_the_password() {
        for url in [
            "mqtt://me:s3cret@",
            "mqtt://me:s3cret@broker:0",
            "http://me:s3cret@broker",
            "mqtt://me:s3cret%ff@broker",
        ] {
            let error = Broker::parse(url, None, None).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{url}: {error}");
        }
        let ca = Path::new("ca.pem");
        let error = Broker::parse("mqtt://broker", Some(ca), None).unwrap_err();
        assert!(error.to_string().contains("mqtts://"), "{error}");
    }

    #[test]
    fn a_file_that_holds_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (missing, empty) = (
            folder.path().join("missing.pem"),
            folder.path().join("empty.pem"),
        );
        std::fs::write(&empty, "").unwrap();
        for (path, words) in [(missing, "No such file"), (empty, "holds no certificate")] {
            let broker = Broker::parse("mqtts://broker", Some(&path), None).unwrap();
            let error = broker.client_config().unwrap_err();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn local_brokers_are_known() {
        for (url, local) in [
            ("mqtt://127.0.0.1", true),
            ("mqtt://localhost:1884", true),
            ("mqtt://[::1]", true),
            ("mqtt://192.0.2.7", false),
            ("mqtts://broker.example.com", false),
        ] {
            assert_eq!(Broker::parse(url, None, None).unwrap().is_local(), local);
        }
    }
}
