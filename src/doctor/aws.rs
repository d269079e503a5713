//! AWS: the Region, and each call that this configuration makes: reachable, and allowed.
//!
//! Whether a call is allowed is asked by making it so that it changes nothing. docs/doctor.md says how each is, and
//! what of it rests on AWS refusing in the order that it is known for.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_cloudwatch::error::ProvideErrorMetadata;
use aws_sdk_cloudwatch::operation::RequestId;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::MetricDatum;
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::check::{Check, Found, Look, timed, together};
use super::scene::{Scene, environment};
use super::{clock, ecs, reach};
use crate::clients::aws::json::{Failure, FailureKind, Json};
use crate::clients::aws::ssm::SERVICE as SSM;
use crate::clients::aws::{self, innermost};
use crate::clients::credentials::is_refusal;
use crate::config::Enabled;

/// CloudWatch refuses data that are older than two weeks: this is 1970.
const TOO_OLD_S: i64 = 86_400;

/// For each check: a way, a call, and perhaps another.
const PATIENCE: Duration = Duration::from_secs(9);

/// The type under which nothing is said.
const EMPTY_TYPE: &str = "Custom:SidelineDoctor";

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    let place = ecs::place(&scene).await;
    let asked = vec![
        asked("aws.cloudwatch", cloudwatch(&scene).boxed()).boxed(),
        asked("aws.ssm", parameters(&scene).boxed()).boxed(),
        asked("aws.ssm.compliance", compliance(&scene).boxed()).boxed(),
        asked("aws.ecs", ecs::reads(&scene, &place).boxed()).boxed(),
        asked("aws.ecs.drain", ecs::writes(&scene, &place).boxed()).boxed(),
    ];
    let asked = together(asked).await;
    let mut checks = vec![
        // All answers have told their time.
        clock::clock(scene.clock.offset()).named("clock"),
        region(&scene).named("aws.region"),
        ecs::agent(&scene, &place).named("ecs.agent"),
    ];
    checks.extend(asked);
    checks
}

/// A check that AWS has to answer in time.
async fn asked(name: &str, look: Look<'_>) -> Check {
    let late = |_| unreachable(&format!("no answer within {PATIENCE:?}"));
    let look = async { timeout(PATIENCE, look).await.unwrap_or_else(late) };
    timed(name, look.boxed()).await
}

fn region(scene: &Scene) -> Found {
    let set = "[aws] region = \"eu-west-1\"   # yours, in /etc/sideline/sideline.toml";
    if let Some(problem) = scene
        .problems
        .iter()
        .find(|one| one.contains("names no Region"))
    {
        return Found::fail(problem.clone(), set);
    }
    match &scene.identity.region {
        Some(region) if scene.config.aws.region.is_empty() => {
            Found::ok(format!("{region}, by the SSM registration"))
        }
        Some(region) => Found::ok(format!("{region}, by aws.region or the environment")),
        None if scene.wants_aws() => Found::fail("no Region is known", set),
        None if scene.credentials.file().is_none_or(std::path::Path::exists) => Found::warn(
            "there are credentials, but no Region is known: nothing is sent to CloudWatch",
            set,
        ),
        None => Found::unused("nothing here calls AWS"),
    }
}

/// A way to a service, once it is known that there is one.
///
/// # Errors
/// The check that comes instead: no Region, no credentials, or nobody there.
pub(super) async fn way(scene: &Scene, service: &str, host: &str) -> Result<Option<String>, Found> {
    let Some(region) = &scene.identity.region else {
        return Err(Found::fail(
            "not asked: no Region is known",
            "[aws] region = \"eu-west-1\"   # yours, in /etc/sideline/sideline.toml",
        ));
    };
    let endpoint = aws::endpoint(service, environment);
    let usual = || aws::usual_endpoint(host, region);
    reach::server(&endpoint.clone().unwrap_or_else(usual)).await?;
    if !scene.credentials.available().await {
        return Err(Found::warn(
            "it can be reached, but was not asked: there are no credentials",
            "sideline doctor   # again, when identity.credentials is mended",
        ));
    }
    Ok(endpoint)
}

/// PutMetricData of a datum that CloudWatch refuses for what it is: no number, and of 1970.
async fn cloudwatch(scene: &Scene) -> Found {
    match scene.config.cloudwatch.enabled {
        Enabled::Never => return Found::unused("cloudwatch.enabled is never"),
        Enabled::Auto if scene.identity.region.is_none() => {
            return Found::unused("no Region is known");
        }
        Enabled::Auto | Enabled::Always => {}
    }
    let endpoint = match way(scene, "CLOUDWATCH", "monitoring").await {
        Ok(endpoint) => endpoint,
        Err(found) => return found,
    };
    let namespace = &scene.config.cloudwatch.namespace;
    let client = aws::cloudwatch(
        &scene.aws().region,
        scene.credentials.clone(),
        endpoint,
        scene.clock.clone(),
        &scene.connections,
    );
    let datum = MetricDatum::builder()
        .metric_name("Doctor")
        .timestamp(DateTime::from_secs(TOO_OLD_S))
        .value(f64::NAN)
        .build();
    let ask = || {
        let call = client.put_metric_data().namespace(namespace);
        call.metric_data(datum.clone()).send()
    };
    let mut answer = ask().await;
    if let Err(error) = &answer
        && error.code().is_some_and(is_a_matter_of_time)
    {
        // The clock has learnt AWS's time from the refusal.
        answer = ask().await;
    }
    let error = match answer {
        Ok(answer) if answer.request_id().is_none() => {
            return portal("the answer has no request id");
        }
        // Look-alikes of CloudWatch take anything.
        Ok(_) => return Found::ok(format!("PutMetricData is allowed in namespace {namespace}")),
        Err(error) => error,
    };
    let said = |code: &str| {
        let message = error.message().unwrap_or_default();
        format!("PutMetricData: {code}: {message}")
    };
    match error.code() {
        Some(code) if code.starts_with("AccessDenied") => Found::fail(
            said(code),
            allow(
                "\"cloudwatch:PutMetricData\"",
                "\"*\"",
                Some(("cloudwatch:namespace", namespace)),
            ),
        ),
        Some(code) if is_refusal(code) || is_a_matter_of_time(code) => refused(scene, said(code)),
        Some(code) if code.starts_with("InvalidParameter") || code.starts_with("Validation") => {
            Found::ok(format!("PutMetricData is allowed in namespace {namespace}"))
        }
        Some(code) => Found::warn(said(code), "sideline doctor   # again, in a minute"),
        None if error.raw_response().is_some() => portal("it has no code of AWS's"),
        None => unreachable(&format!("PutMetricData: {}", innermost(&error))),
    }
}

/// GetParameters of the names that are configured, as the agent calls it.
async fn parameters(scene: &Scene) -> Found {
    let names = &scene.config.ssm.parameters;
    if names.is_empty() {
        return Found::unused("ssm.parameters is empty");
    }
    let input = json!({ "Names": names, "WithDecryption": true });
    let answer = match ssm(scene, "GetParameters", &input).await {
        Ok(answer) => answer,
        Err(Asked::No(found)) => return found,
        Err(Asked::Failed(failure)) if failure.kind == FailureKind::Denied => {
            if failure.said.contains("kms:Decrypt") {
                let via = format!("ssm.{}.amazonaws.com", scene.aws().region);
                let condition = Some(("kms:ViaService", via.as_str()));
                let mend = allow("\"kms:Decrypt\"", "\"KEY-ARN\"", condition);
                return Found::fail(failure.said, mend);
            }
            let region = scene.aws().region;
            let of = |name: &String| {
                let name = name.trim_start_matches('/');
                format!("\"arn:aws:ssm:{region}:*:parameter/{name}\"")
            };
            let resources: Vec<String> = names.iter().map(of).collect();
            let resources = format!("[{}]", resources.join(","));
            let mend = allow("\"ssm:GetParameters\"", &resources, None);
            return Found::fail(failure.said, mend);
        }
        Err(Asked::Failed(failure)) => return failed(scene, failure),
    };
    let list = |key: &str| {
        answer[key]
            .as_array()
            .map_or(&[][..], Vec::as_slice)
            .to_vec()
    };
    let missing = list("InvalidParameters");
    let missing: Vec<&str> = missing.iter().filter_map(Value::as_str).collect();
    let found = list("Parameters").len();
    Found::ok(match missing.is_empty() {
        true => format!("GetParameters is allowed: {found} found"),
        false => format!(
            "GetParameters is allowed: {found} found, not set is {}",
            missing.join(" ")
        ),
    })
}

/// PutComplianceItems of a type of its own, without an item.
async fn compliance(scene: &Scene) -> Found {
    if !scene.config.ssm.compliance {
        return Found::unused("ssm.compliance is false");
    }
    let Some(node) = &scene.identity.managed_instance else {
        return Found::unused("the node is not registered with SSM");
    };
    let now = scene.clock.now().wall.as_second();
    let input = json!({
        "ResourceId": node,
        "ResourceType": "ManagedInstance",
        "ComplianceType": EMPTY_TYPE,
        "ExecutionSummary": {"ExecutionTime": now},
        "Items": [],
    });
    match ssm(scene, "PutComplianceItems", &input).await {
        Ok(_) => Found::ok("PutComplianceItems is allowed"),
        Err(Asked::No(found)) => found,
        Err(Asked::Failed(failure)) => match failure.kind {
            FailureKind::Refused => Found::ok("PutComplianceItems is allowed"),
            FailureKind::Denied => {
                let region = scene.aws().region;
                let resource = format!("\"arn:aws:ssm:{region}:*:managed-instance/mi-*\"");
                let mend = allow("\"ssm:PutComplianceItems\"", &resource, None);
                Found::fail(failure.said, mend)
            }
            FailureKind::Unreachable | FailureKind::Credentials | FailureKind::Throttled => {
                failed(scene, failure)
            }
        },
    }
}

/// Why a call brought no answer.
enum Asked {
    /// It was not made, and this is the check.
    No(Found),
    /// It failed.
    Failed(Failure),
}

/// Calls SSM; a second time where the first has told the clock AWS's time.
async fn ssm(scene: &Scene, operation: &str, input: &Value) -> Result<Value, Asked> {
    let endpoint = way(scene, "SSM", "ssm").await.map_err(Asked::No)?;
    let ssm = Json::new(
        SSM,
        &scene.aws().region,
        scene.credentials.clone(),
        endpoint,
        scene.clock.clone(),
        scene.connections.clone(),
    );
    let answer = match ssm.call(operation, input).await {
        Err(failure) if failure.kind == FailureKind::Credentials => {
            ssm.call(operation, input).await
        }
        answer => answer,
    };
    answer.map_err(Asked::Failed)
}

/// A call that failed for no want of rights.
pub(super) fn failed(scene: &Scene, failure: Failure) -> Found {
    match failure.kind {
        FailureKind::Unreachable if failure.said.contains("not AWS's") => portal(&failure.said),
        FailureKind::Unreachable => unreachable(&failure.said),
        FailureKind::Credentials => refused(scene, failure.said),
        FailureKind::Throttled => {
            Found::warn(failure.said, "sideline doctor   # again, in a minute")
        }
        FailureKind::Refused | FailureKind::Denied => Found::fail(
            failure.said,
            "sideline doctor --bundle FILE   # and send it to support",
        ),
    }
}

/// The credentials are not taken.
fn refused(scene: &Scene, said: String) -> Found {
    let mend = match (scene.is_registered(), scene.credentials.file()) {
        (true, Some(_)) => {
            "sudo systemctl restart amazon-ssm-agent   # it writes new credentials".to_owned()
        }
        (_, None) => {
            "unset AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN   # or set valid ones"
                .to_owned()
        }
        (false, Some(file)) => format!("sudoedit {}   # keys that AWS knows", file.display()),
    };
    Found::fail(said, mend)
}

/// Somebody else answers.
fn portal(said: &str) -> Found {
    Found::fail(
        format!("the answer is not AWS's ({said}): a proxy or a captive portal is in between"),
        "curl -sv https://checkip.amazonaws.com; systemctl show sideline -p Environment",
    )
}

/// The connection broke or was never made.
fn unreachable(said: &str) -> Found {
    let mend = match said.to_lowercase().contains("certificate") {
        true => {
            "sudo cp proxy-ca.crt /usr/local/share/ca-certificates/ && sudo update-ca-certificates   # who breaks \
                 TLS open on the way, or whose clock is wrong?"
        }
        false => {
            "curl -sv https://checkip.amazonaws.com   # a firewall or proxy on the way cuts it"
        }
    };
    Found::fail(said.to_owned(), mend)
}

/// Signatures are only good for minutes.
fn is_a_matter_of_time(code: &str) -> bool {
    matches!(
        code,
        "RequestExpired"
            | "RequestTimeTooSkewed"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
    )
}

/// A statement for the policy of the node's role; `actions` and `resource` are JSON.
pub(super) fn allow(actions: &str, resource: &str, condition: Option<(&str, &str)>) -> String {
    let condition = condition.map_or_else(String::new, |(key, value)| {
        format!(",\"Condition\":{{\"StringEquals\":{{\"{key}\":\"{value}\"}}}}")
    });
    format!(
        "{{\"Effect\":\"Allow\",\"Action\":{actions},\"Resource\":{resource}{condition}}}   \
         # add this statement to the policy of the node's role"
    )
}
