//! Clients of AWS services, slim: no retries of their own, no caches, no probing for metadata services.

use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_cloudwatch::config::retry::RetryConfig;
use aws_sdk_cloudwatch::config::timeout::TimeoutConfig;
use aws_sdk_cloudwatch::config::{
    AppName, BehaviorVersion, Config, ConfigBag, IdentityCache, Intercept, Region,
    RuntimeComponents, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use jiff::{SignedDuration, Timestamp};

use super::credentials::NodeCredentials;
use crate::clock::Clock;

/// A server that is reachable at all answers a connection in this time.
const CONNECT: Duration = Duration::from_secs(5);

/// For a whole request, from its credentials to the end of the answer.
const ANSWER: Duration = Duration::from_secs(20);

/// A clock that is off by no more than this counts as right: the header has whole seconds, and answers take time.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_secs(2);

/// A client that sends each request once, compressed, and tells `clock` how far it is off.
///
/// `endpoint` is for test doubles and private endpoints, see [`endpoint`]. Its errors are the caller's to retry: what
/// waits is in the outbox, and a second queue in here would only hide it.
#[must_use]
pub fn cloudwatch(
    region: &str,
    credentials: NodeCredentials,
    endpoint: Option<String>,
    clock: Clock,
) -> Client {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_timeout(ANSWER)
        .build();
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(region.to_owned()))
        .credentials_provider(credentials)
        .http_client(http_client())
        // The credentials' file changes under us: the provider reads it for every request.
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        // The deadline above covers streams that stall.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // The default leaves bodies below 10 KiB as they are, which is all of ours.
        .request_min_compression_size_bytes(1)
        .app_name(AppName::new("sideline").expect("letters only"))
        .interceptor(ServerDate { clock });
    config.set_endpoint_url(endpoint);
    Client::from_conf(config.build())
}

/// Where requests for a service go instead of to AWS: `AWS_ENDPOINT_URL_<service>`, else `AWS_ENDPOINT_URL`.
/// `env` looks up an environment variable; `service` is written like `CLOUDWATCH`.
#[must_use]
pub fn endpoint(service: &str, env: impl Fn(&str) -> Option<String>) -> Option<String> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    env(&format!("AWS_ENDPOINT_URL_{service}")).or_else(|| env("AWS_ENDPOINT_URL"))
}

/// HTTPS through ring, trusting the system's authorities (`SSL_CERT_FILE`), through `HTTPS_PROXY` where that is set.
///
/// The builder's own `build_https` knows no proxies; this is how the SDK builds its default client.
fn http_client() -> SharedHttpClient {
    Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().proxy_config(ProxyConfig::from_env());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build()
    })
}

/// Compares the `Date` of every answer with this machine's clock.
#[derive(Debug)]
struct ServerDate {
    clock: Clock,
}

impl Intercept for ServerDate {
    fn name(&self) -> &'static str {
        "ServerDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.response().headers();
        // A cache's answer is older than now.
        if headers.get("age").is_none()
            && let Some(offset) = headers
                .get("date")
                .and_then(|date| clock_offset(date, Timestamp::now()))
        {
            self.clock.set_offset(offset);
        }
        Ok(())
    }
}

/// How far a server whose answer carries `date` is ahead of `here`; zero where that is within the tolerance.
fn clock_offset(date: &str, here: Timestamp) -> Option<SignedDuration> {
    let there = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(date)
        .ok()?;
    let offset = there.duration_since(here);
    let matters = offset.abs() > CLOCK_TOLERANCE;
    Some(if matters {
        offset
    } else {
        SignedDuration::ZERO
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use aws_sdk_cloudwatch::types::MetricDatum;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config;

    #[test]
    fn offsets() {
        let here: Timestamp = "1994-11-06T08:49:37.4Z".parse().unwrap();
        for (date, millis) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:39 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(2_600)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(-7_400)),
            ("Sun, 06 Nov 1994 09:49:37 GMT", Some(3_599_600)),
            ("yesterday", None),
            ("", None),
        ] {
            let expected = millis.map(SignedDuration::from_millis);
            assert_eq!(clock_offset(date, here), expected, "{date}");
        }
    }

    #[test]
    fn endpoints() {
        for (set, expected) in [
            (vec![], None),
            (vec![("AWS_ENDPOINT_URL", "http://a")], Some("http://a")),
            (vec![("AWS_ENDPOINT_URL", "")], None),
            (
                vec![
                    ("AWS_ENDPOINT_URL", "http://a"),
                    ("AWS_ENDPOINT_URL_CLOUDWATCH", "http://b"),
                ],
                Some("http://b"),
            ),
            (vec![("AWS_ENDPOINT_URL_SSM", "http://c")], None),
        ] {
            let env = |name: &str| {
                let found = set.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(endpoint("CLOUDWATCH", env).as_deref(), expected);
        }
    }

    /// One answer to one request; returns the request's head, in lower case, and its body.
    async fn answer_once(listener: TcpListener, answer: String) -> (String, Vec<u8>) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        loop {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().parse().unwrap();
            if request.len() == end + 4 + length {
                stream.write_all(answer.as_bytes()).await.unwrap();
                return (head, request.split_off(end + 4));
            }
        }
    }

    #[tokio::test]
    async fn sends_once_compressed_and_learns_the_time() {
        let clock = Clock::start();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let env = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("AKIAX".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
            _ => None,
        };
        let keys = NodeCredentials::new(&config::Aws::default(), env, clock.clone());
        let client = cloudwatch("eu-west-1", keys, Some(url), clock.clone());
        let request = client
            .put_metric_data()
            .namespace("Sideline")
            .metric_data(MetricDatum::builder().metric_name("Capacity").build())
            .send();
        let answer =
            "HTTP/1.1 503 Busy\r\ndate: Fri, 01 Jan 2100 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n";
        let (sent, (head, body)) = tokio::join!(request, answer_once(listener, answer.to_owned()));

        assert_eq!(
            sent.unwrap_err().raw_response().unwrap().status().as_u16(),
            503
        );
        for part in [
            "post /service/graniteserviceversion20100801/operation/putmetricdata",
            "content-encoding: gzip",
            "credential=akiax/",
            "/eu-west-1/monitoring/",
            "app/sideline",
        ] {
            assert!(head.contains(part), "{part} is not in {head}");
        }
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice())
            .read_to_end(&mut plain)
            .unwrap();
        assert!(String::from_utf8_lossy(&plain).contains("Capacity"));
        // Offsets are kept in milliseconds.
        let corrected = clock.now().wall;
        let learnt = "2099-12-31T23:59:59.9Z".parse().unwrap();
        assert!(corrected >= learnt, "{corrected}");
    }
}
