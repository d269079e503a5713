//! What an answer of CloudWatch, or none, means for the data.

use std::io::ErrorKind;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_cloudwatch::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::operation::RequestId;
use aws_sdk_cloudwatch::operation::put_metric_data::{PutMetricDataError, PutMetricDataOutput};
use hyper_util::client::legacy;

use crate::clients::aws::{causes, innermost};
use crate::clients::credentials::is_refusal;

/// What a failure means for the data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nobody is there: it certainly did not arrive.
    Unreachable,
    /// It certainly did not arrive: send it again as it is.
    NotArrived,
    /// It may have arrived: never count a node twice.
    MayHaveArrived,
    /// The credentials are not taken (any more).
    Credentials,
    /// This node may not send.
    Forbidden,
    /// CloudWatch does not like the data.
    BadData,
}

/// Reads an answer; what is no success comes with words for a person.
pub(super) fn read(
    answer: Result<PutMetricDataOutput, SdkError<PutMetricDataError>>,
) -> Result<(), (Refusal, String)> {
    match answer {
        // The SDK takes any 200 for success, a captive portal's page too; AWS alone sends a request id.
        Ok(answer) if answer.request_id().is_none() => Err((
            Refusal::NotArrived,
            "the answer is not AWS's: is there a proxy or a captive portal in between?".to_owned(),
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(read_error(&error)),
    }
}

/// Reads what an error means for the data, and names it for a person.
///
/// Codes by AWS's common errors and PutMetricData's reference.
fn read_error(error: &SdkError<PutMetricDataError>) -> (Refusal, String) {
    match error {
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or("unknown error");
            let message = answer.err().message().unwrap_or_default();
            (
                read_code(code),
                format!("{code}: {message}")
                    .trim_end_matches([':', ' '])
                    .to_owned(),
            )
        }
        SdkError::TimeoutError(_) => (Refusal::MayHaveArrived, "no answer in time".to_owned()),
        _ if lacks_credentials(error) => (Refusal::Credentials, told(error)),
        SdkError::DispatchFailure(_) => (read_connection(error), told(error)),
        SdkError::ResponseError(_) | _ => (Refusal::MayHaveArrived, told(error)),
    }
}

/// A connection that was never made has carried nothing; one that breaks may break after the request went out.
fn read_connection(error: &(dyn std::error::Error + 'static)) -> Refusal {
    let unmade = causes(error).any(|cause| {
        let client = cause.downcast_ref::<legacy::Error>();
        client.is_some_and(legacy::Error::is_connect)
    });
    let nobody = causes(error).any(|cause| {
        let io = cause
            .downcast_ref::<std::io::Error>()
            .map(std::io::Error::kind);
        let kinds = [
            ErrorKind::ConnectionRefused,
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkUnreachable,
            ErrorKind::TimedOut,
        ];
        io.is_some_and(|kind| kinds.contains(&kind)) || cause.to_string() == "dns error"
    });
    match (unmade, nobody) {
        (true, true) => Refusal::Unreachable,
        (true, false) => Refusal::NotArrived,
        (false, _) => Refusal::MayHaveArrived,
    }
}

fn read_code(code: &str) -> Refusal {
    match code {
        code if is_refusal(code) => Refusal::Credentials,
        // The SDK has learnt the clock's offset from the answer and signs the next one right.
        "RequestExpired" | "RequestTimeTooSkewed" | "IncompleteSignature" => Refusal::Credentials,
        "AccessDenied" | "AccessDeniedException" | "NotAuthorized" | "OptInRequired" => {
            Refusal::Forbidden
        }
        "InternalFailure" | "InternalServiceFault" | "InternalServerError" => {
            Refusal::MayHaveArrived
        }
        code if code.starts_with("Throttl")
            || code == "LimitExceeded"
            || code == "RequestLimitExceeded"
            || code.starts_with("ServiceUnavailable") =>
        {
            Refusal::NotArrived
        }
        code if code.starts_with("Invalid")
            || code.starts_with("Missing")
            || code.starts_with("Validation")
            || code.contains("TooLarge") =>
        {
            Refusal::BadData
        }
        _ => Refusal::MayHaveArrived,
    }
}

/// Whether nothing was sent because the provider had nothing to sign with.
fn lacks_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<CredentialsError>())
}

/// The innermost cause's words, or all of them where it has none.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let text = innermost(error);
    if text.is_empty() {
        DisplayErrorContext(error).to_string()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_means_for_the_data() {
        for (code, refusal) in [
            ("ExpiredToken", Refusal::Credentials),
            ("UnrecognizedClientException", Refusal::Credentials),
            ("AccessDenied", Refusal::Forbidden),
            ("ThrottlingException", Refusal::NotArrived),
            ("InternalServiceFault", Refusal::MayHaveArrived),
            ("InvalidParameterValue", Refusal::BadData),
            ("MissingParameter", Refusal::BadData),
            ("SomethingNew", Refusal::MayHaveArrived),
        ] {
            assert_eq!(read_code(code), refusal, "{code}");
        }
    }
}
