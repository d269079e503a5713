//! AWS's JSON 1.1 protocol: one signed POST a call. ECS and SSM speak it, and their SDKs would be larger than all else.

use std::error::Error;
use std::fmt;

use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::identity::Identity;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ANSWER, Connections, innermost, learn_time, usual_endpoint};
use crate::clients::credentials::{NodeCredentials, is_refusal};
use crate::clock::Clock;

/// The protocol's name in headers.
const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// Who asks, for AWS's own logs.
const USER_AGENT: &str = concat!("sideline/", env!("CARGO_PKG_VERSION"));

/// A hundred container instances with all their attributes are a megabyte.
const LONGEST_ANSWER: usize = 8 << 20;

/// What is kept of an error's message, in characters; AWS's own are a few hundred.
const LONGEST_MESSAGE: usize = 512;

/// A service that speaks this protocol.
#[derive(Debug, Clone, Copy)]
pub struct Service {
    /// Its name in host names and signatures.
    pub name: &'static str,
    /// What stands before the operation's name in `X-Amz-Target`.
    pub target: &'static str,
}

/// A way to one service in one region. Each call is sent once; errors are the caller's to retry.
#[derive(Debug, Clone)]
pub struct Json {
    service: Service,
    region: String,
    url: String,
    credentials: NodeCredentials,
    clock: Clock,
    connections: Connections,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What that means for the next try.
    pub kind: FailureKind,
    /// The operation, and what AWS or the system said.
    pub said: String,
}

/// What a failure means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No answer that is the service's, or its own trouble: the call may have arrived, or not.
    Unreachable,
    /// There are no credentials, or they are not taken (any more); the next call reads them afresh.
    Credentials,
    /// The role may not do this.
    Denied,
    /// Too many calls.
    Throttled,
    /// The service does not do it, for another reason.
    Refused,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl Error for Failure {}

impl Json {
    /// The way to `service`. `endpoint` is for test doubles and private endpoints, see [`super::endpoint`]; every answer
    /// tells `clock` what time AWS says it is.
    #[must_use]
    pub fn new(
        service: Service,
        region: &str,
        credentials: NodeCredentials,
        endpoint: Option<String>,
        clock: Clock,
        connections: Connections,
    ) -> Self {
        let base = endpoint.unwrap_or_else(|| usual_endpoint(service.name, region));
        Json {
            service,
            region: region.to_owned(),
            url: format!("{}/", base.trim_end_matches('/')),
            credentials,
            clock,
            connections,
        }
    }

    /// Calls an operation, such as `GetParameters`.
    ///
    /// # Errors
    /// As [`FailureKind`] has it; a call without an answer is given up after 20 s.
    pub async fn call<O: DeserializeOwned>(
        &self,
        operation: &str,
        input: &impl Serialize,
    ) -> Result<O, Failure> {
        let answer = match serde_json::to_vec(input) {
            Ok(body) => self.ask(operation, body).await,
            Err(error) => Err((FailureKind::Refused, error.to_string())),
        };
        let output = answer.and_then(|answer| {
            serde_json::from_slice(&answer).map_err(|error| {
                let said = format!("the answer is not AWS's: {error}");
                (FailureKind::Unreachable, said)
            })
        });
        output.map_err(|(kind, said)| Failure {
            kind,
            said: format!("{operation}: {said}"),
        })
    }

    /// The body of an answer that is no error, in time.
    async fn ask(&self, operation: &str, body: Vec<u8>) -> Result<Bytes, (FailureKind, String)> {
        let asked = tokio::time::timeout(ANSWER, self.exchange(operation, body)).await;
        let late = || (FailureKind::Unreachable, "no answer in time".to_owned());
        let answer = asked.unwrap_or_else(|_| Err(late()));
        match &answer {
            Err((FailureKind::Credentials, said)) => self.credentials.refused(said),
            // Who is told what it may not do has shown who it is.
            Ok(_)
            | Err((FailureKind::Denied | FailureKind::Throttled | FailureKind::Refused, _)) => {
                self.credentials.taken();
            }
            Err((FailureKind::Unreachable, _)) => {}
        }
        answer
    }

    async fn exchange(
        &self,
        operation: &str,
        body: Vec<u8>,
    ) -> Result<Bytes, (FailureKind, String)> {
        let unreachable =
            |error: &(dyn Error + 'static)| (FailureKind::Unreachable, innermost(error));
        let credentials = self.credentials.provide_credentials().await;
        let credentials =
            credentials.map_err(|error| (FailureKind::Credentials, innermost(&error)))?;
        let request = self.signed(operation, body, &credentials.into());
        let request = request.map_err(|error| (FailureKind::Refused, format!("{error:#}")))?;
        let response = self.connections.connector().call(request).await;
        let mut response = response.map_err(|error| unreachable(&error))?;
        learn_time(&self.clock, response.headers());
        let body = Limited::new(response.take_body(), LONGEST_ANSWER).collect();
        let body = body.await.map_err(|error| unreachable(error.as_ref()))?;
        let body = body.to_bytes();
        let status = response.status();
        if status.is_success() {
            return Ok(body);
        }
        let code = response.headers().get("x-amzn-errortype");
        Err(read_error(status.as_u16(), code, &body))
    }

    fn signed(
        &self,
        operation: &str,
        body: Vec<u8>,
        identity: &Identity,
    ) -> anyhow::Result<HttpRequest> {
        let target = format!("{}.{operation}", self.service.target);
        let headers = [("content-type", CONTENT_TYPE), ("x-amz-target", &target)];
        let how = v4::SigningParams::builder()
            .identity(identity)
            .region(&self.region)
            .name(self.service.name)
            // The clock knows how far this machine's own is off, which AWS would not accept.
            .time(self.clock.now().wall.into())
            .settings(SigningSettings::default())
            .build()?;
        let what = SignableBody::Bytes(&body);
        let what = SignableRequest::new("POST", &self.url, headers.into_iter(), what)?;
        let (signature, _) = sign(what, &how.into())?.into_parts();
        let mut request = Request::post(&self.url).header("user-agent", USER_AGENT);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let mut request = request.body(SdkBody::from(body))?;
        signature.apply_to_request_http1x(&mut request);
        Ok(request.try_into()?)
    }
}

/// What an error's answer means: its code stands in `__type`, `com.amazonaws.ecs#ClientException`, or in a header.
fn read_error(status: u16, header: Option<&str>, body: &[u8]) -> (FailureKind, String) {
    #[derive(Deserialize, Default)]
    struct Wire {
        #[serde(rename = "__type", default)]
        code: String,
        #[serde(default, alias = "Message")]
        message: String,
    }
    let wire: Wire = serde_json::from_slice(body).unwrap_or_default();
    let code = header.unwrap_or(&wire.code);
    let code = code.split(':').next().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default();
    if code.is_empty() {
        let said = format!("HTTP status {status}, and the answer is not AWS's");
        return (FailureKind::Unreachable, said);
    }
    let message: String = wire.message.chars().take(LONGEST_MESSAGE).collect();
    let said = format!("{code}: {message}");
    let said = said.trim_end_matches([':', ' ']).to_owned();
    (read_code(status, code), said)
}

/// Codes by AWS's common errors and ECS's reference.
fn read_code(status: u16, code: &str) -> FailureKind {
    match code {
        code if is_refusal(code) => FailureKind::Credentials,
        // The clock has learnt from this very answer, and the next call is signed right.
        "RequestExpired" | "RequestTimeTooSkewed" => FailureKind::Credentials,
        "AccessDenied" | "AccessDeniedException" | "NotAuthorized" | "OptInRequired" => {
            FailureKind::Denied
        }
        code if code.starts_with("Throttl")
            || code.starts_with("TooManyRequests")
            || code == "RequestLimitExceeded"
            || status == 429 =>
        {
            FailureKind::Throttled
        }
        _ if 500 <= status => FailureKind::Unreachable,
        _ => FailureKind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_means() {
        use FailureKind::{Credentials, Denied, Refused, Throttled, Unreachable};
        for (status, header, body, kind, said) in [
            (
                400,
                None,
                r#"{"__type":"com.amazonaws.ecs#ClientException","message":"no"}"#,
                Refused,
                "ClientException: no",
            ),
            (
                400,
                None,
                r#"{"__type":"AccessDeniedException","Message":"not authorized"}"#,
                Denied,
                "AccessDeniedException: not authorized",
            ),
            (
                400,
                Some("ThrottlingException:http://internal.amazon.com/"),
                "{}",
                Throttled,
                "ThrottlingException",
            ),
            (
                403,
                None,
                r#"{"__type":"ExpiredTokenException"}"#,
                Credentials,
                "ExpiredTokenException",
            ),
            (
                500,
                None,
                r#"{"__type":"ServerException","message":"oh"}"#,
                Unreachable,
                "ServerException: oh",
            ),
            (429, Some("Busy"), "", Throttled, "Busy"),
            (
                511,
                None,
                "<html>",
                Unreachable,
                "HTTP status 511, and the answer is not AWS's",
            ),
        ] {
            let read = read_error(status, header, body.as_bytes());
            assert_eq!(read, (kind, said.to_owned()), "{body}");
        }
    }
}
