//! How AWS says no, and how a request says who sends it: error shapes, signatures, certificates.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use http_body_util::Full;
use hyper::HeaderMap;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;

use super::limits;

/// The two protocols the double speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Smithy rpc-v2-cbor, as CloudWatch's SDK speaks it.
    Cbor,
    /// AWS JSON 1.1, as the SDKs of SSM and ECS speak it.
    Json,
}

/// An error answer.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The shape's name without its namespace: what `__type` ends in.
    pub(super) shape: &'static str,
    /// The code that the older query protocol uses for the same error.
    pub(super) query: &'static str,
    pub(super) message: String,
}

impl Refusal {
    fn new(status: u16, shape: &'static str, query: &'static str, message: &str) -> Self {
        Self {
            status,
            shape,
            query,
            message: message.to_owned(),
        }
    }

    pub(super) fn value(message: &str) -> Self {
        Self::new(
            400,
            "InvalidParameterValueException",
            "InvalidParameterValue",
            message,
        )
    }

    pub(super) fn combination(message: &str) -> Self {
        Self::new(
            400,
            "InvalidParameterCombinationException",
            "InvalidParameterCombination",
            message,
        )
    }

    pub(super) fn missing(message: &str) -> Self {
        Self::new(
            400,
            "MissingRequiredParameterException",
            "MissingParameter",
            message,
        )
    }

    /// One of ECS's own.
    pub(super) fn ecs(shape: &'static str, message: &str) -> Self {
        Self::new(400, shape, shape, message)
    }

    /// One of SSM's own.
    pub(super) fn ssm(shape: &'static str, message: &str) -> Self {
        Self::new(400, shape, shape, message)
    }

    pub(super) fn malformed(message: &str) -> Self {
        Self::new(400, "SerializationException", "MalformedInput", message)
    }

    pub(super) fn too_large(bytes: usize) -> Self {
        Self::new(
            413,
            "RequestEntityTooLargeException",
            "RequestEntityTooLarge",
            &format!("Request size {bytes} exceeded {} bytes", limits::BODY_BYTES),
        )
    }

    pub(super) fn internal() -> Self {
        Self::new(
            500,
            "InternalServiceFault",
            "InternalServiceError",
            "The request processing has failed because of an unknown error.",
        )
    }

    pub(super) fn throttled() -> Self {
        Self::new(400, "ThrottlingException", "Throttling", "Rate exceeded")
    }

    pub(super) fn unavailable() -> Self {
        Self::new(
            503,
            "ServiceUnavailableException",
            "ServiceUnavailable",
            "The service is unavailable at present.",
        )
    }

    pub(super) fn denied() -> Self {
        Self::new(
            403,
            "AccessDeniedException",
            "AccessDenied",
            "User is not authorized to perform this action because no identity-based policy \
             allows it",
        )
    }

    pub(super) fn expired() -> Self {
        Self::new(
            403,
            "ExpiredTokenException",
            "ExpiredToken",
            "The security token included in the request is expired",
        )
    }

    pub(super) fn unknown_key() -> Self {
        Self::new(
            403,
            "UnrecognizedClientException",
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        )
    }

    pub(super) fn unsigned() -> Self {
        Self::new(
            403,
            "MissingAuthenticationTokenException",
            "MissingAuthenticationToken",
            "Missing Authentication Token",
        )
    }

    pub(super) fn half_signed() -> Self {
        Self::new(
            403,
            "IncompleteSignatureException",
            "IncompleteSignature",
            "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' \
             parameters and an 'X-Amz-Date' header.",
        )
    }

    pub(super) fn stale_signature(signed: Timestamp, now: Timestamp) -> Self {
        Self::new(
            403,
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            &format!("Signature expired: {signed} is too far from {now}"),
        )
    }

    pub(super) fn unknown_operation() -> Self {
        Self::new(400, "UnknownOperationException", "InvalidAction", "")
    }

    /// CloudWatch's own errors, which carry the older code too; the others come from the layer
    /// before it.
    fn modelled(&self) -> bool {
        matches!(
            self.shape,
            "InvalidParameterValueException"
                | "InvalidParameterCombinationException"
                | "MissingRequiredParameterException"
                | "InternalServiceFault"
        )
    }

    /// The answer on the wire. `query_codes` adds the older code to every error.
    pub(super) fn answer(&self, protocol: Protocol, query_codes: bool) -> Response<Full<Bytes>> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(rename = "__type")]
            shape: String,
            #[serde(skip_serializing_if = "Option::is_none")]
            message: Option<&'a str>,
            #[serde(rename = "Message", skip_serializing_if = "Option::is_none")]
            capital: Option<&'a str>,
        }
        // One shape of CloudWatch's model spells its member with a capital.
        let capital = self.shape == "InternalServiceFault";
        let body = Body {
            shape: match (protocol, self.modelled()) {
                (Protocol::Cbor, true) => format!("com.amazonaws.cloudwatch#{}", self.shape),
                (Protocol::Cbor, false) => format!("com.amazon.coral.service#{}", self.shape),
                (Protocol::Json, _) => self.shape.to_owned(),
            },
            message: (!capital).then_some(self.message.as_str()),
            capital: capital.then_some(self.message.as_str()),
        };
        let bytes = match protocol {
            Protocol::Cbor => {
                let mut bytes = Vec::new();
                ciborium::into_writer(&body, &mut bytes).expect("a Vec takes all bytes");
                bytes
            }
            Protocol::Json => serde_json::to_vec(&body).expect("the body is plain strings"),
        };
        let mut response = answer(self.status, protocol, bytes);
        if protocol == Protocol::Cbor && (query_codes || self.modelled()) {
            let side = if self.status < 500 {
                "Sender"
            } else {
                "Receiver"
            };
            let header = HeaderValue::from_str(&format!("{};{side}", self.query))
                .expect("codes are plain ASCII");
            response.headers_mut().insert("x-amzn-query-error", header);
        }
        response
    }
}

/// An answer with the headers its protocol asks for; one without a body has no content type.
pub(super) fn answer(status: u16, protocol: Protocol, body: Vec<u8>) -> Response<Full<Bytes>> {
    let empty = body.is_empty();
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    let headers = response.headers_mut();
    let content_type = match protocol {
        Protocol::Cbor => {
            headers.insert("smithy-protocol", HeaderValue::from_static("rpc-v2-cbor"));
            "application/cbor"
        }
        Protocol::Json => "application/x-amz-json-1.1",
    };
    if !empty {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// Sets the `Date` header to `now`; without it the HTTP library would set the true time.
pub(super) fn date(response: &mut Response<Full<Bytes>>, now: Timestamp) {
    let text = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now);
    if let Some(header) = text.ok().and_then(|t| HeaderValue::from_str(&t).ok()) {
        response.headers_mut().insert(DATE, header);
    }
}

/// Who signed a request and when, going by its headers. The signature itself is not verified.
pub(super) struct Signature {
    pub(super) access_key: String,
    pub(super) at: Timestamp,
}

impl Signature {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let authorization = text(headers, AUTHORIZATION.as_str()).ok_or_else(Refusal::unsigned)?;
        let parts = authorization
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .ok_or_else(Refusal::unsigned)?;
        let part = |name: &str| {
            parts.split(',').find_map(|part| {
                let (key, value) = part.trim().split_once('=')?;
                (key == name && !value.is_empty()).then_some(value)
            })
        };
        let at = text(headers, "x-amz-date")
            .and_then(|t| jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", t).ok())
            .and_then(|civil| civil.to_zoned(jiff::tz::TimeZone::UTC).ok())
            .map(|zoned| zoned.timestamp());
        let scope: Vec<&str> = part("Credential").unwrap_or_default().split('/').collect();
        match (
            scope.as_slice(),
            part("SignedHeaders"),
            part("Signature"),
            at,
        ) {
            ([key, _day, _region, _service, "aws4_request"], Some(_), Some(_), Some(at)) => {
                Ok(Self {
                    access_key: (*key).to_owned(),
                    at,
                })
            }
            (_, _, _, _) => Err(Refusal::half_signed()),
        }
    }

    /// AWS lets a signature's time be five minutes off.
    pub(super) fn check_age(&self, now: Timestamp) -> Result<(), Refusal> {
        if SignedDuration::from_mins(5) < now.duration_since(self.at).abs() {
            return Err(Refusal::stale_signature(self.at, now));
        }
        Ok(())
    }
}

/// A header as text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether the body is zipped, and the plain bytes. Stops unzipping just past the limit.
pub(super) fn plain(headers: &HeaderMap, body: &Bytes) -> Result<(bool, Vec<u8>), Refusal> {
    let gzip = match text(headers, CONTENT_ENCODING.as_str()) {
        None | Some("identity") => false,
        Some("gzip") => true,
        Some(other) => {
            return Err(Refusal::malformed(&format!(
                "Content-Encoding {other} is not supported"
            )));
        }
    };
    let mut decoded = Vec::new();
    let most = limits::BODY_BYTES as u64 + 1;
    if gzip {
        flate2::read::MultiGzDecoder::new(body.as_ref())
            .take(most)
            .read_to_end(&mut decoded)
            .map_err(|e| Refusal::malformed(&format!("gzip: {e}")))?;
    } else {
        decoded.extend_from_slice(body);
    }
    if limits::BODY_BYTES < decoded.len() {
        return Err(Refusal::too_large(decoded.len()));
    }
    Ok((gzip, decoded))
}

/// Makes a certificate authority of its own, writes its PEM to `ca` and returns what serves
/// 127.0.0.1 and localhost in its name.
pub(super) fn tls(ca: &Path) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let authority_key = rcgen::KeyPair::generate()?;
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "sideline test authority");
    authority.key_usages = vec![
        rcgen::KeyUsagePurpose::KeyCertSign,
        rcgen::KeyUsagePurpose::CrlSign,
    ];
    let authority_cert = authority.self_signed(&authority_key)?;
    std::fs::write(ca, authority_cert.pem())?;
    let issuer = rcgen::Issuer::new(authority, authority_key);

    let key = rcgen::KeyPair::generate()?;
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let cert = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;
    Ok(Arc::new(config))
}
