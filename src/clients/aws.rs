//! Clients of AWS services, slim: no retries of their own, no caches, no probing for metadata services.

pub mod ecs;
pub mod json;
pub mod ssm;

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_cloudwatch::config::retry::RetryConfig;
use aws_sdk_cloudwatch::config::timeout::TimeoutConfig;
use aws_sdk_cloudwatch::config::{
    AppName, BehaviorVersion, Config, ConfigBag, IdentityCache, Intercept, Region,
    RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::http::Headers;
use hyper_util::client::proxy::matcher::Matcher;
use jiff::Timestamp;

use super::credentials::NodeCredentials;
use super::https::{self, Https};
use super::trust;
use crate::clock::Clock;

/// For a whole request, from its credentials to the end of the answer.
const ANSWER: Duration = Duration::from_secs(20);

/// The connections to AWS, for all clients together. Clones share them; they are made when the first client needs them.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<Option<SharedHttpConnector>>>);

impl Connections {
    /// HTTPS, trusting the system's authorities, through `HTTPS_PROXY` but for `NO_PROXY`. Where there are none, every request says so, and the next one looks
    /// again.
    fn connector(&self) -> SharedHttpConnector {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*made {
            return made.clone();
        }
        match trust::client(None) {
            Ok(tls) => {
                let https = Https::new(tls.with_no_client_auth(), Matcher::from_env());
                made.insert(SharedHttpConnector::new(https)).clone()
            }
            Err(why) => SharedHttpConnector::new(https::Untrusting(why)),
        }
    }
}

/// A client that sends each request once, compressed, and tells `clock` what time AWS says it is.
///
/// `endpoint` is for test doubles and private endpoints, see [`endpoint`]. Its errors are the caller's to retry: what
/// waits is in the outbox, and a second queue in here would only hide it.
#[must_use]
pub fn cloudwatch(
    region: &str,
    credentials: NodeCredentials,
    endpoint: Option<String>,
    clock: Clock,
    connections: &Connections,
) -> Client {
    let timeouts = TimeoutConfig::builder().operation_timeout(ANSWER).build();
    let connections = connections.clone();
    let mut config = Config::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(region.to_owned()))
        .credentials_provider(credentials)
        .http_client(http_client_fn(move |_, _| connections.connector()))
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

/// Where requests for a service go in AWS; `host` is the first part of its host names, as in `monitoring`.
#[must_use]
pub fn usual_endpoint(host: &str, region: &str) -> String {
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("https://{host}.{region}.amazonaws.com{china}")
}

/// What is at the bottom of an error, outermost first.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |inner| (*inner).source())
}

/// The innermost cause's words, "connection refused" rather than "dispatch failure"; empty where it has none.
#[must_use]
pub fn innermost(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

/// Shows the clock the `Date` of every answer.
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
        learn_time(&self.clock, context.response().headers());
        Ok(())
    }
}

fn learn_time(clock: &Clock, headers: &Headers) {
    // A cache's answer is older than now.
    if headers.get("age").is_none()
        && let Some(date) = headers.get("date").and_then(server_date)
    {
        clock.verify(date);
    }
}

/// The time of a `Date` header; `None` where it is none.
fn server_date(date: &str) -> Option<Timestamp> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    parser.parse_timestamp(date).ok()
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
    fn dates() {
        for (date, expected) in [
            (
                "Sun, 06 Nov 1994 08:49:37 GMT",
                Some("1994-11-06T08:49:37Z"),
            ),
            (
                "Thu, 29 Feb 2024 23:59:59 GMT",
                Some("2024-02-29T23:59:59Z"),
            ),
            ("Thu, 30 Feb 2024 23:59:59 GMT", None),
            ("yesterday", None),
            ("", None),
        ] {
            let expected = expected.map(|time| time.parse().unwrap());
            assert_eq!(server_date(date), expected, "{date}");
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

    fn keys(clock: &Clock) -> NodeCredentials {
        let env = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("AKIAX".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("secret".to_owned()),
            _ => None,
        };
        NodeCredentials::new(&config::Aws::default(), env, clock.clone())
    }

    /// Sends one datum to a server that answers so; returns the answer's status and what `answer_once` does.
    async fn send_once(clock: &Clock, answer: &str) -> (u16, String, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = cloudwatch(
            "eu-west-1",
            keys(clock),
            Some(url),
            clock.clone(),
            &Connections::default(),
        );
        let request = client
            .put_metric_data()
            .namespace("Sideline")
            .metric_data(MetricDatum::builder().metric_name("Capacity").build())
            .send();
        let (sent, (head, body)) = tokio::join!(request, answer_once(listener, answer.to_owned()));
        let error = sent.unwrap_err();
        let status = error.raw_response().unwrap().status().as_u16();
        (status, head, body)
    }

    #[tokio::test]
    async fn a_json_call_is_signed_by_the_true_time() {
        let clock = Clock::start(None);
        clock.verify("2100-01-01T00:00:00Z".parse().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = json::Service {
            name: "ssm",
            target: "AmazonSSM",
        };
        let ways = Connections::default();
        let ssm = json::Json::new(
            service,
            "eu-west-1",
            keys(&clock),
            Some(url),
            clock.clone(),
            ways,
        );
        let input = serde_json::json!({"Names": ["a"]});
        let answer = "HTTP/1.1 200 OK\r\ndate: Wed, 01 Jan 2200 00:00:00 GMT\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
        let asked = ssm.call::<serde_json::Value>("GetParameters", &input);
        let (answered, (head, body)) =
            tokio::join!(asked, answer_once(listener, answer.to_owned()));
        assert_eq!(answered, Ok(serde_json::json!({"a": 1})));
        assert_eq!(body, input.to_string().as_bytes());
        for part in [
            "post / http/1.1",
            "content-type: application/x-amz-json-1.1",
            "x-amz-target: amazonssm.getparameters",
            "x-amz-date: 21000101t0000",
            "credential=akiax/21000101/eu-west-1/ssm/aws4_request",
            "signedheaders=content-type;host;x-amz-date;x-amz-target",
            "user-agent: sideline/",
        ] {
            assert!(head.contains(part), "{part} is not in {head}");
        }
        let learnt: Timestamp = "2200-01-01T00:00:00Z".parse().unwrap();
        assert!(learnt <= clock.now().wall);
    }

    #[tokio::test]
    async fn sends_once_compressed_and_learns_the_time() {
        let clock = Clock::start(None);
        let answer =
            "HTTP/1.1 503 Busy\r\ndate: Fri, 01 Jan 2100 00:00:00 GMT\r\ncontent-length: 0\r\n\r\n";
        let (status, head, body) = send_once(&clock, answer).await;

        assert_eq!(status, 503);
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
        let now = clock.now();
        let learnt = "2100-01-01T00:00:00Z".parse().unwrap();
        assert!(now.sure && now.wall >= learnt, "{now:?}");
    }

    #[tokio::test]
    async fn an_answer_without_a_date_or_out_of_a_cache_proves_nothing() {
        for headers in [
            "",
            "date: yesterday\r\n",
            "date: Fri, 01 Jan 2100 00:00:00 GMT\r\nage: 3600\r\n",
        ] {
            let clock = Clock::start(None);
            let answer = format!("HTTP/1.1 503 Busy\r\n{headers}content-length: 0\r\n\r\n");
            let (status, ..) = send_once(&clock, &answer).await;
            assert_eq!((status, clock.is_verified()), (503, false), "{headers:?}");
        }
    }
}
