//! Why a connection ended, in words for a person.

use std::io;

use rumqttc::ConnectReturnCode as Code;
use rumqttc::{ConnectionError as Error, StateError, TlsError};

use super::{Broker, CONNECT_TIMEOUT_S};

/// The end of a connection: `host:port: why`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{broker}: {why}")]
pub struct ConnectionError {
    /// `host:port` of the broker.
    pub broker: String,
    /// Why, for a person; lower case.
    pub why: String,
    /// Waiting alone won't mend it: the broker or our own files say no.
    pub rejected: bool,
    /// There is no way to the broker: TCP could not be opened at all.
    pub unreachable: bool,
}

impl ConnectionError {
    /// What rumqttc says.
    pub(super) fn new(broker: &str, error: &Error, connected: bool) -> Self {
        let (why, rejected) = describe(error, connected);
        ConnectionError {
            broker: broker.to_owned(),
            why,
            rejected,
            unreachable: !connected && never_opened(error),
        }
    }

    /// No sign of life for too long.
    pub(super) fn silent(broker: &str) -> Self {
        ConnectionError {
            broker: broker.to_owned(),
            why: "no answer to pings".to_owned(),
            rejected: false,
            unreachable: false,
        }
    }

    /// Our own certificate files can't be used.
    pub(super) fn local(broker: &Broker, why: String) -> Self {
        ConnectionError {
            broker: broker.to_string(),
            why,
            rejected: true,
            unreachable: false,
        }
    }
}

fn describe(error: &Error, connected: bool) -> (String, bool) {
    match error {
        Error::Io(error) => io(error, connected),
        Error::Tls(TlsError::Io(error)) => io(error, connected),
        Error::Tls(TlsError::DNSName(_)) => ("TLS: the host is no valid name".into(), true),
        Error::Tls(error) => (format!("TLS: {error}"), true),
        Error::MqttState(error) => state(error, connected),
        Error::NetworkTimeout => (format!("no answer within {CONNECT_TIMEOUT_S} s"), false),
        Error::FlushTimeout => (format!("took no data for {CONNECT_TIMEOUT_S} s"), false),
        Error::ConnectionRefused(code) => {
            (refusal(*code).into(), *code != Code::ServiceUnavailable)
        }
        Error::NotConnAck(_) => ("does not speak MQTT 3.1.1".into(), true),
        Error::RequestsDone => ("closed".into(), false),
    }
}

/// Whether an error that came before the broker let us in means that not even TCP was open. TLS and MQTT have errors
/// of their own; only silence looks the same at every step, and counts: most often nobody was there.
fn never_opened(error: &Error) -> bool {
    let Error::Io(error) = error else {
        return matches!(error, Error::NetworkTimeout);
    };
    is_lookup(error)
        || matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::NetworkDown
                | io::ErrorKind::AddrNotAvailable
        )
}

/// The standard library has no kind for it.
fn is_lookup(error: &io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address")
}

fn refusal(code: Code) -> &'static str {
    match code {
        Code::Success => "let us in", // never an error
        Code::RefusedProtocolVersion => "does not speak MQTT 3.1.1",
        Code::BadClientId => "refuses the client id",
        Code::ServiceUnavailable => "out of service",
        Code::BadUserNamePassword => "bad user name or password",
        // Mosquitto answers so to a wrong password too.
        Code::NotAuthorized => {
            "not authorized: wrong user name or password, or no right to connect"
        }
    }
}

fn state(error: &StateError, connected: bool) -> (String, bool) {
    use rumqttc::Error as Packet;
    let why = match error {
        StateError::Io(error) | StateError::Deserialization(Packet::Io(error)) => {
            return io(error, connected);
        }
        StateError::Deserialization(Packet::PayloadSizeLimitExceeded(bytes)) => {
            format!("sent a message of {bytes} bytes, over the limit of 4 MiB")
        }
        StateError::Deserialization(Packet::TopicNotUtf8) => "sent a topic that is no UTF-8".into(),
        StateError::Deserialization(error) => format!("does not speak MQTT 3.1.1: {error}"),
        StateError::ConnectionAborted => closed(connected).into(),
        StateError::AwaitPingResp => "no answer to pings".into(),
        StateError::CollisionTimeout => "leaves messages unacknowledged".into(),
        StateError::Unsolicited(_) | StateError::WrongPacket => "sent a packet out of turn".into(),
        StateError::InvalidState | StateError::EmptySubscription => error.to_string(),
    };
    (why, false)
}

fn io(error: &io::Error, connected: bool) -> (String, bool) {
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return tls(error);
    }
    let words = [
        (io::ErrorKind::ConnectionRefused, "connection refused"),
        (io::ErrorKind::TimedOut, "timed out"),
        (io::ErrorKind::HostUnreachable, "no route to the host"),
        (io::ErrorKind::NetworkUnreachable, "network unreachable"),
        (io::ErrorKind::ConnectionReset, closed(connected)),
        (io::ErrorKind::ConnectionAborted, closed(connected)),
        (io::ErrorKind::BrokenPipe, closed(connected)),
        (io::ErrorKind::UnexpectedEof, closed(connected)),
    ];
    let why = if is_lookup(error) {
        "the host name can't be resolved".to_owned()
    } else if let Some((_, words)) = words.iter().find(|(kind, _)| *kind == error.kind()) {
        (*words).to_owned()
    } else {
        error.to_string()
    };
    (why, false)
}

fn closed(connected: bool) -> &'static str {
    if connected {
        "closed the connection"
    } else {
        "closed the connection before letting us in"
    }
}

fn tls(error: &rustls::Error) -> (String, bool) {
    if let rustls::Error::InvalidCertificate(reason) = error {
        (format!("TLS: certificate not trusted: {reason}"), true)
    } else if let rustls::Error::AlertReceived(alert) = error {
        (format!("TLS: the broker refuses: {alert:?}"), true)
    } else if let rustls::Error::InvalidMessage(_) = error {
        (
            "TLS: the broker does not speak TLS on this port".into(),
            true,
        )
    } else {
        (format!("TLS: {error}"), true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_short_words() {
        let refused = io::Error::from_raw_os_error(111);
        let lookup = "failed to lookup address information: Name or service not known";
        let untrusted = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        let too_large = rumqttc::Error::PayloadSizeLimitExceeded(5_000_000);
        for (error, words, rejected) in [
            (Error::Io(refused), "b:1: connection refused", false),
            (
                Error::Io(io::Error::other(lookup)),
                "b:1: the host name can't be resolved",
                false,
            ),
            (
                Error::Tls(TlsError::Io(io::Error::other(untrusted))),
                "b:1: TLS: certificate not trusted: UnknownIssuer",
                true,
            ),
            (
                Error::Tls(TlsError::Io(io::Error::other(plain))),
                "b:1: TLS: the broker does not speak TLS on this port",
                true,
            ),
            (
                Error::ConnectionRefused(Code::BadUserNamePassword),
                "b:1: bad user name or password",
                true,
            ),
            (
                Error::ConnectionRefused(Code::ServiceUnavailable),
                "b:1: out of service",
                false,
            ),
            (
                Error::MqttState(StateError::Deserialization(too_large)),
                "b:1: sent a message of 5000000 bytes, over the limit of 4 MiB",
                false,
            ),
            (
                Error::MqttState(StateError::ConnectionAborted),
                "b:1: closed the connection before letting us in",
                false,
            ),
            (Error::NetworkTimeout, "b:1: no answer within 20 s", false),
        ] {
            let told = ConnectionError::new("b:1", &error, false);
            assert_eq!(
                (told.to_string().as_str(), told.rejected),
                (words, rejected)
            );
        }
    }

    #[test]
    fn unreachable_is_where_tcp_did_not_open() {
        let kind = |kind: io::ErrorKind| Error::Io(kind.into());
        let lookup = "failed to lookup address information: Temporary failure in name resolution";
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::AccessDenied);
        for (error, unreachable) in [
            (Error::Io(io::Error::from_raw_os_error(111)), true),
            (Error::Io(io::Error::from_raw_os_error(110)), true),
            (Error::Io(io::Error::from_raw_os_error(113)), true),
            (Error::Io(io::Error::from_raw_os_error(101)), true),
            (Error::Io(io::Error::from_raw_os_error(100)), true),
            (Error::Io(io::Error::from_raw_os_error(99)), true),
            (Error::Io(io::Error::other(lookup)), true),
            (Error::NetworkTimeout, true),
            (kind(io::ErrorKind::ConnectionReset), false),
            (kind(io::ErrorKind::UnexpectedEof), false),
            (kind(io::ErrorKind::PermissionDenied), false),
            (Error::Tls(TlsError::Io(io::Error::other(alert))), false),
            (
                Error::Tls(TlsError::Io(io::ErrorKind::UnexpectedEof.into())),
                false,
            ),
            (Error::ConnectionRefused(Code::NotAuthorized), false),
            (Error::MqttState(StateError::AwaitPingResp), false),
            (Error::FlushTimeout, false),
        ] {
            let told = |connected| ConnectionError::new("b:1", &error, connected).unreachable;
            assert_eq!(told(false), unreachable, "{error:?}");
            assert!(!told(true), "a broker that let us in was there: {error:?}");
        }
        assert!(!ConnectionError::silent("b:1").unreachable);
    }
}
