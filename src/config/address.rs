//! Addresses of MQTT brokers and of the ECS agent, as URLs; and how their passwords stay unseen.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use percent_encoding::percent_decode_str;

/// The broker that a URL such as `mqtts://user:password@broker:8883` names.
#[derive(Clone, PartialEq, Eq)]
pub struct Broker {
    /// Whether the connection is encrypted: mqtts.
    pub tls: bool,
    /// Host name or IP address, IPv6 without its brackets.
    pub host: String,
    /// Port; 1883, with TLS 8883, where the URL has none.
    pub port: u16,
    /// User name, where the URL has one.
    pub user: Option<String>,
    /// Password, where the URL has one. Never print it.
    pub password: Option<String>,
}

impl Broker {
    /// Reads `mqtt://host`, `mqtts://user:password@host:8883`; user and password may be percent-encoded.
    ///
    /// # Errors
    /// Says what is wrong, without repeating the URL.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (tls, rest) = match url.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err("must be mqtt://host:1883 or mqtts://host:8883".into()),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (host, port) = endpoint(rest)?;
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            None => (None, None),
            Some((user, "")) => (Some(decode(user)?), None),
            Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
        };
        Ok(Broker {
            tls,
            host,
            port: port.unwrap_or(if tls { 8883 } else { 1883 }),
            user,
            password,
        })
    }
}

impl Broker {
    /// Whether what is sent stays on this machine: `localhost`, 127.0.0.0/8, ::1.
    #[must_use]
    pub fn is_this_machine(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|it| it.is_loopback())
    }
}

/// Without user and password, so that a broker may be logged.
impl fmt::Display for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// As Display: a derived one would print the password.
impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads `http://host:port`: the ECS agent's address, as host and port (80 where the URL has none).
///
/// # Errors
/// Says what is wrong.
pub fn http(url: &str) -> Result<(String, u16), String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("must be http://host:port")?;
    let (host, port) = endpoint(rest)?;
    Ok((host, port.unwrap_or(80)))
}

/// A text with the login of a URL in it taken out: `mqtt://user:***@host`.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    // The last @: a password may hold one.
    let Some(at) = text.rfind('@') else {
        return text.into();
    };
    let start = text.find("://").map_or(0, |found| found + "://".len());
    if start > at {
        return text.into();
    }
    match text[start..at].split_once(':') {
        Some((user, _)) => format!("{}{user}:***{}", &text[..start], &text[at..]).into(),
        // A lone word may be a token.
        None => format!("{}***{}", &text[..start], &text[at..]).into(),
    }
}

/// `host`, `host:port`, `[::1]:port`, with at most a slash behind.
fn endpoint(text: &str) -> Result<(String, Option<u16>), String> {
    let text = text.strip_suffix('/').unwrap_or(text);
    if text.contains('/') {
        return Err("must end after the port: a path has no meaning here".into());
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("has [ without ]")?;
            host.parse::<Ipv6Addr>()
                .map_err(|_| "has no IPv6 address between [ and ]")?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err("must have a : between host and port".into()),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return Err("must name a host".into());
    }
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if !host.chars().all(usual) {
        return Err("must name the host in letters, digits, dots and dashes; \
                    in user and password write /, ? and # as %2F, %3F and %23"
            .into());
    }
    match port.map(str::parse::<u16>) {
        None => Ok((host.into(), None)),
        Some(Ok(port)) if port > 0 => Ok((host.into(), Some(port))),
        Some(Ok(_) | Err(_)) => Err("must have a port from 1 to 65535".into()),
    }
}

/// Percent-decoding (RFC 3986).
fn decode(text: &str) -> Result<String, String> {
    match percent_decode_str(text).decode_utf8() {
        // MQTT's limits of a string.
        Ok(text) if text.len() <= u16::MAX.into() && !text.contains('\0') => Ok(text.into_owned()),
        Ok(_) | Err(_) => Err("must have a user and password in percent-encoded UTF-8".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_brokers() {
        for (url, wanted) in [
            ("mqtt://127.0.0.1", "mqtt://127.0.0.1:1883 None None"),
            (
                "mqtts://broker.example/",
                "mqtts://broker.example:8883 None None",
            ),
            (
                "mqtt://u:p%40%2f:x@[::1]:1884",
                r#"mqtt://[::1]:1884 Some("u") Some("p@/:x")"#,
            ),
            ("mqtt://u:p@ss@h", r#"mqtt://h:1883 Some("u") Some("p@ss")"#),
            ("mqtt://token@h:1", r#"mqtt://h:1 Some("token") None"#),
        ] {
            let broker = Broker::parse(url).unwrap();
            let seen = format!("{broker:?} {:?} {:?}", broker.user, broker.password);
            assert_eq!(seen, wanted, "{url}");
        }
    }

    #[test]
    fn what_is_no_broker_is_told() {
        for (url, wanted) in [
            ("", "must be mqtt://host:1883 or mqtts://host:8883"),
            ("tcp://h", "must be mqtt://host:1883 or mqtts://host:8883"),
            ("mqtt://", "must name a host"),
            ("mqtt://u:p@", "must name a host"),
            ("mqtt://h:0", "must have a port from 1 to 65535"),
            ("mqtt://h:65536", "must have a port from 1 to 65535"),
            ("mqtt://h:", "must have a port from 1 to 65535"),
            ("mqtt://::1", "must name a host"),
            (
                "mqtt://h/x",
                "must end after the port: a path has no meaning here",
            ),
            ("mqtt://[::1", "has [ without ]"),
            ("mqtt://[h]", "has no IPv6 address between [ and ]"),
            ("mqtt://[::1]8", "must have a : between host and port"),
            (
                "mqtt://me:a%ff@h",
                "must have a user and password in percent-encoded UTF-8",
            ),
            (
                "mqtt://me:a%00@h",
                "must have a user and password in percent-encoded UTF-8",
            ),
        ] {
            assert_eq!(Broker::parse(url).unwrap_err(), wanted, "{url}");
        }
        assert_eq!(
            http("http://127.0.0.1:51678").unwrap(),
            ("127.0.0.1".into(), 51678)
        );
        assert_eq!(http("https://h").unwrap_err(), "must be http://host:port");
    }

    #[test]
    fn passwords_are_not_shown() {
        for (text, wanted) in [
            ("mqtt://h:1", "mqtt://h:1"),
            ("mqtt://user:pass@h:1", "mqtt://user:***@h:1"),
            ("mqtt://user:p@ss@h", "mqtt://user:***@h"),
            ("mqtt://token@h", "mqtt://***@h"),
            ("user:pass@h", "user:***@h"),
            ("\"mqtt://user:pass@h\"", "\"mqtt://user:***@h\""),
        ] {
            assert_eq!(redact(text), wanted, "{text}");
        }
    }
}
