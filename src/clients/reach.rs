//! Knocking: tells at once when a server that could not be reached can be reached again.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::select_ok;
use hyper::Uri;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};

use super::mqtt::Broker;

/// Between two knocks, least and most: nodes that lost the same uplink shall not knock in step.
const BETWEEN_MS: std::ops::RangeInclusive<u64> = 400..=800;

/// What has not opened by then is tried anew: an uplink that came back half a second ago has lost the first packet.
const PATIENCE: Duration = Duration::from_secs(1);

/// Addresses of a name that are knocked at.
const ADDRESSES: usize = 8;

/// Where to knock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Target {
    /// The server of an AWS endpoint, `https://monitoring.eu-west-1.amazonaws.com` or what replaces it; `None` where
    /// that is no http or https URL. A proxy on the way is not known here.
    #[must_use]
    pub fn of_url(url: &str) -> Option<Target> {
        let url: Uri = url.parse().ok()?;
        let usual = match url.scheme_str()? {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = url.host()?.trim_start_matches('[').trim_end_matches(']');
        Some(Target {
            host: host.to_owned(),
            port: url.port_u16().unwrap_or(usual),
        })
    }
}

impl From<&Broker> for Target {
    fn from(broker: &Broker) -> Self {
        Target {
            host: broker.host().to_owned(),
            port: broker.port(),
        }
    }
}

/// Knocks a little more than once a second and returns when a connection to `target` opens; else never.
///
/// It is only ever to shorten a pause that ends by itself: a connection that opens is no promise that a request gets
/// through, and where the way leads through a proxy (`HTTPS_PROXY`) a knock at the server itself may never be
/// answered; then the pause is as long as it would have been. The request could be tried once a second instead, but
/// it costs a TLS handshake and a signature each time, and a server in trouble much more; a SYN costs nothing. A name
/// that resolves opens nothing: routers answer for the world while their uplink is down.
///
/// The first knock comes after a while as well, so that a caller who finds the door open and the house empty, again
/// and again, is no faster than that. May be dropped at any time.
pub async fn opens(target: &Target) {
    loop {
        sleep(Duration::from_millis(fastrand::u64(BETWEEN_MS))).await;
        if knock(target).await {
            return;
        }
    }
}

/// Whether a connection opens; it is closed at once.
async fn knock(target: &Target) -> bool {
    // Not under a deadline: a lookup can't be called off, and one left behind a second would fill the thread pool. The
    // system's resolver gives up by itself, and asks again meanwhile.
    let Ok(addresses) = lookup_host((target.host.as_str(), target.port)).await else {
        return false;
    };
    let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES).collect();
    if addresses.is_empty() {
        return false;
    }
    // All at once: an address that swallows every packet must not hide one that answers.
    let any = select_ok(
        addresses
            .into_iter()
            .map(|at| Box::pin(TcpStream::connect(at))),
    );
    matches!(timeout(PATIENCE, any).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpSocket;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn targets_of_urls() {
        for (url, expected) in [
            (
                "https://monitoring.eu-west-1.amazonaws.com",
                Some(("monitoring.eu-west-1.amazonaws.com", 443)),
            ),
            ("http://127.0.0.1:4566", Some(("127.0.0.1", 4566))),
            ("http://localhost/", Some(("localhost", 80))),
            ("https://[::1]:8443/path?query", Some(("::1", 8443))),
            ("https://[fd00::2]", Some(("fd00::2", 443))),
            ("HTTPS://HOST", Some(("HOST", 443))),
            ("mqtt://broker", None),
            ("monitoring.eu-west-1.amazonaws.com", None),
            ("https://", None),
            ("/path", None),
            ("", None),
        ] {
            let found = Target::of_url(url);
            let found = found
                .as_ref()
                .map(|found| (found.host.as_str(), found.port));
            assert_eq!(found, expected, "{url}");
        }
    }

    #[test]
    fn targets_of_brokers() {
        for (url, host, port) in [
            ("mqtt://127.0.0.1:1884", "127.0.0.1", 1884),
            ("mqtts://me:secret@broker", "broker", 8883),
            ("mqtt://[::1]", "::1", 1883),
        ] {
            let target = Target::from(&Broker::parse(url, None, None).unwrap());
            assert_eq!((target.host.as_str(), target.port), (host, port), "{url}");
        }
    }

    /// A port that is ours and refuses connections until we listen on it.
    fn closed(host: &str) -> (TcpSocket, Target) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let target = Target {
            host: host.to_owned(),
            port: socket.local_addr().unwrap().port(),
        };
        (socket, target)
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_that_opens_is_told_within_two_seconds() {
        let (socket, target) = closed("127.0.0.1");
        let asked = Instant::now();
        let open_later = async {
            sleep(Duration::from_secs(10)).await;
            socket.listen(8).unwrap()
        };
        let knocking = timeout(PATIENCE * 60, opens(&target));
        let (listener, told) = tokio::join!(open_later, knocking);
        told.expect("it has opened");
        let waited = asked.elapsed();
        assert!((10..12).contains(&waited.as_secs()), "{waited:?}");

        let (mut knock, _) = listener.accept().await.unwrap();
        assert_eq!(knock.read(&mut [0; 8]).await.unwrap(), 0, "closed, unused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_door_that_is_open_already_is_told_after_a_while_all_the_same() {
        let (socket, target) = closed("127.0.0.1");
        let listener = socket.listen(8).unwrap();
        for _ in 0..20 {
            let asked = Instant::now();
            let told = timeout(PATIENCE * 60, opens(&target)).await;
            told.expect("it is open");
            let waited = u64::try_from(asked.elapsed().as_millis()).unwrap();
            assert!((400..=850).contains(&waited), "{waited} ms");
            // Nobody else takes the knocks out of the listener's queue, which is full at 8.
            listener.accept().await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_door_is_never_told_though_its_name_resolves() {
        for host in ["127.0.0.1", "localhost"] {
            let (_socket, target) = closed(host);
            let hour = Duration::from_secs(3600);
            assert!(timeout(hour, opens(&target)).await.is_err(), "{host}");
        }
    }
}
