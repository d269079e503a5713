//! Where a broker is, how it is trusted and how it lets us in.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{bail, ensure};
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// A broker's address, with what is needed to be let in. Written, it is `host:port`, never with a password.
#[derive(Clone)]
pub struct Broker {
    host: String,
    port: u16,
    login: Option<(String, String)>,
    tls: Option<Tls>,
}

/// Whom to trust and who we are: PEM files, read for each connection.
#[derive(Clone)]
struct Tls {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Broker {
    /// Reads `mqtt://user:password@host:1883` or `mqtts://…:8883`; the part before the `@` is percent-encoded,
    /// it and the port may be missing. `ca` holds the authorities to trust (default: the system's), `identity`
    /// this node's certificate and its key. No file is opened yet.
    ///
    /// # Errors
    /// Says what would be right, without repeating the address: it may hold a password.
    pub fn parse(
        url: &str,
        ca: Option<&Path>,
        identity: Option<(&Path, &Path)>,
    ) -> anyhow::Result<Broker> {
        let (secure, rest) = if let Some(rest) = url.strip_prefix("mqtt://") {
            (false, rest)
        } else if let Some(rest) = url.strip_prefix("mqtts://") {
            (true, rest)
        } else {
            bail!("the broker's address must be mqtt://host:1883 or mqtts://host:8883");
        };
        ensure!(
            secure || (ca.is_none() && identity.is_none()),
            "certificates need a broker's address that starts with mqtts://"
        );
        // From the right: a password may hold an @ that somebody forgot to encode.
        let (login, address) = match rest.rsplit_once('@') {
            Some((login, address)) => (Some(login), address),
            None => (None, rest),
        };
        let (host, port) = host_and_port(address.strip_suffix('/').unwrap_or(address))?;
        Ok(Broker {
            host: host.to_owned(),
            port: port.unwrap_or(if secure { 8883 } else { 1883 }),
            login: login.map(decode_login).transpose()?,
            tls: secure.then(|| Tls {
                ca: ca.map(Path::to_owned),
                identity: identity.map(|(certificate, key)| (certificate.into(), key.into())),
            }),
        })
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host == "::1" || self.host.starts_with("127.")
    }

    /// Host name or address, IPv6 without brackets: as an address and as a certificate's name alike.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn login(&self) -> Option<(&str, &str)> {
        self.login
            .as_ref()
            .map(|(user, password)| (user.as_str(), password.as_str()))
    }

    /// The TLS side, `None` without TLS. The error names the file.
    pub(super) fn client_config(&self) -> Result<Option<Arc<ClientConfig>>, String> {
        let Some(tls) = &self.tls else {
            return Ok(None);
        };
        let roots = match &tls.ca {
            Some(path) => Arc::new(trusted(certificates(path)?, &path.display().to_string())?),
            None => system_roots()?,
        };
        // The provider is named here, so that nothing depends on a process-wide default.
        let builder =
            ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(roots);
        let config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
                .map_err(|error| format!("{}: {error}", certificate.display()))?,
        };
        Ok(Some(Arc::new(config)))
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// As [`fmt::Display`]: a log must not show the password.
impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broker({self})")
    }
}

fn host_and_port(address: &str) -> anyhow::Result<(&str, Option<u16>)> {
    let (host, port) = match address.strip_prefix('[').and_then(|a| a.split_once(']')) {
        Some((host, rest)) if host.parse::<Ipv6Addr>().is_ok() => {
            let port = rest.strip_prefix(':');
            ensure!(port.is_some() || rest.is_empty(), "write [host]:port");
            (host, port)
        }
        Some(_) => bail!("only an IPv6 address goes into brackets"),
        None => {
            let (host, port) = match address.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (address, None),
            };
            let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            ensure!(
                !host.is_empty() && host.chars().all(is_name),
                "the broker's host must be a name or an address, IPv6 in brackets"
            );
            (host, port)
        }
    };
    let port = port.map(|port| match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        Ok(_) | Err(_) => bail!("the broker's port must be 1 to 65535"),
    });
    Ok((host, port.transpose()?))
}

fn decode_login(login: &str) -> anyhow::Result<(String, String)> {
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let decode = |part| match percent_decode_str(part).decode_utf8() {
        Ok(text) if text.len() <= u16::MAX.into() && !text.contains('\0') => Ok(text.into_owned()),
        Ok(_) | Err(_) => bail!("the broker's user name and password must be percent-encoded text"),
    };
    Ok((decode(user)?, decode(password)?))
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

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let login = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (url, shown, expected) in [
            ("mqtt://127.0.0.1:1884", "127.0.0.1:1884", None),
            ("mqtt://broker/", "broker:1883", None),
            (
                "mqtts://broker.example.com",
                "broker.example.com:8883",
                None,
            ),
            ("mqtt://[::1]:1884", "[::1]:1884", None),
            ("mqtt://[fe80::1]", "[fe80::1]:1883", None),
            ("mqtt://me@broker", "broker:1883", login("me", "")),
            (
                "mqtt://me:s3cret@broker",
                "broker:1883",
                login("me", "s3cret"),
            ),
            (
                "mqtt://m%40e:a%3Ab%2Fc@broker:1",
                "broker:1",
                login("m@e", "a:b/c"),
            ),
            (
                "mqtt://me:p@ss/w:rd@broker",
                "broker:1883",
                login("me", "p@ss/w:rd"),
            ),
        ] {
            let broker = Broker::parse(url, None, None).unwrap();
            assert_eq!(broker.to_string(), shown, "{url}");
            assert_eq!(broker.login, expected, "{url}");
            assert_eq!(format!("{broker:?}"), format!("Broker({shown})"));
        }
    }

    #[test]
    fn bad_addresses_are_told_without_the_password() {
        for url in [
            "",
            "broker:1883",
            "http://s3cret@broker",
            "mqtt://",
            "mqtt://me:s3cret@",
            "mqtt://me:s3cret@broker:0",
            "mqtt://me:s3cret@broker:65536",
            "mqtt://me:s3cret@broker:port",
            "mqtt://me:s3cret@broker/topic",
            "mqtt://me:s3cret@bro ker",
            "mqtt://me:s3cret@::1",
            "mqtt://me:s3cret@[::1",
            "mqtt://me:s3cret@[broker]:1883",
            "mqtt://me:s3cret@[::1]1883",
            "mqtt://me:s3cret%ff@broker",
            "mqtt://me:s3cret%00@broker",
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
