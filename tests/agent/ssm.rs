//! SSM and this node: parameters that are fetched, what Inventory and Compliance are told, credentials that end.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::{Fault, Log, Times};
use crate::field::Field;
use crate::plan::{CARDS, Plan, all_is_well, cards, xid};

const NODE: &str = "mi-0123456789abcdef0";
const FLEET: &str = "/sideline/fleet";
const OWN: &str = "/sideline/node/mi-0123456789abcdef0";

/// SSM is first asked within 10 s, and what has changed is told when it has settled for 30 s and a minute is over.
const SETTLES: Duration = Duration::from_secs(120);

fn plan() -> Plan {
    let names = vec![FLEET.to_owned(), OWN.to_owned()];
    Plan::new().expecting_cameras().set("ssm.parameters", names)
}

/// The same server, as a managed instance.
async fn registered(plan: Plan) -> Field {
    let field = Field::without_agent(plan).await;
    let registration = json!({"ManagedInstanceID": NODE, "Region": "eu-west-1"});
    field.write("registration", registration.to_string());
    field
}

fn calls<'a>(log: &'a Log, operation: &'a str) -> impl Iterator<Item = &'a Value> {
    let is = move |target: &str| target == format!("AmazonSSM.{operation}");
    let calls = log.calls.iter().filter(move |call| is(&call.target));
    calls.map(|call| &call.body)
}

fn ssm(report: &Value) -> &Value {
    let outlets = report["outlets"].as_array().expect("a list");
    let ssm = outlets.iter().find(|outlet| outlet["name"] == "ssm");
    ssm.expect("there is one")
}

#[tokio::test]
async fn parameters_are_fetched_and_trouble_with_it_is_told() {
    let mut field = Field::without_agent(plan()).await;
    field.aws.ssm(|ssm| ssm.put_secret(FLEET, "[host]\n"));
    field
        .aws
        .fault_on("GetParameters", Fault::Unavailable, Times::Next(1));
    field.start_agent().await;
    let retries = |report: &Value| ssm(report)["state"] == "retrying";
    let report = field.until("a retry", retries).await;
    let error = ssm(&report)["error"].as_str().expect("it says why");
    assert!(
        error.starts_with("GetParameters: ServiceUnavailable"),
        "{error}"
    );
    let works = |report: &Value| ssm(report)["state"] == "ok";
    let report = field.until("an answer", works).await;
    assert!(ssm(&report)["last_success"].is_string(), "{report:#}");
    let log = field.aws.log();
    let asked: Vec<&Value> = calls(&log, "GetParameters").collect();
    assert_eq!(
        asked,
        [&json!({"Names": [FLEET, OWN], "WithDecryption": true})]
    );
    field
        .says_in_log(&format!("SSM has no such parameters names=[\"{OWN}\"]"))
        .await;
}

#[tokio::test]
async fn a_role_that_may_not_is_told_so() {
    let mut field = Field::without_agent(plan()).await;
    field
        .aws
        .fault_on("GetParameters", Fault::AccessDenied, Times::UntilCleared);
    field.start_agent().await;
    let rejected = |report: &Value| ssm(report)["state"] == "rejected";
    let report = field.until("a refusal", rejected).await;
    let error = ssm(&report)["error"].as_str().expect("it says why");
    assert!(error.starts_with("GetParameters: AccessDenied"), "{error}");
    // The credentials are good: it is the role that is not.
    assert_eq!(report["findings"], json!([]));
}

#[tokio::test]
async fn a_managed_instance_has_its_inventory_and_its_compliance() {
    let mut field = registered(Plan::new().expecting_cameras()).await;
    field.start_agent().await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    let custom = field.path(NODE).join("inventory/custom");
    let read = |name: &str| -> Option<Value> {
        let text = fs::read(custom.join(name)).ok()?;
        serde_json::from_slice(&text).ok()
    };
    field
        .until("the inventory", |_| read("sideline-gpus.json").is_some())
        .await;
    let gpus = read("sideline-gpus.json").expect("it is there");
    assert_eq!(gpus["TypeName"], "Custom:SidelineGpu");
    let uuids: Vec<&Value> = gpus["Content"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|card| &card["Uuid"])
        .collect();
    assert_eq!(uuids, CARDS);
    field
        .until("the node", |_| read("sideline-node.json").is_some())
        .await;
    let node = read("sideline-node.json").expect("it is there");
    assert_eq!(node["Content"][0]["Slots"], "18");

    let said = || field.aws.ssm(|ssm| ssm.compliance(NODE, "Custom:Sideline"));
    let is_told = |log: &Log| calls(log, "PutComplianceItems").next().is_some();
    let is_well = field.until_within(SETTLES, "compliance", |_| is_told(&field.aws.log()));
    is_well.await;
    let items = said().expect("it was told").items;
    assert_eq!((items.len(), items[0].status.as_str()), (1, "COMPLIANT"));

    // A card fails: one call more says so, however often it is looked at.
    field.gpus(&cards(&json!({"lost": true})));
    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    let tells_more = |_: &Value| calls(&field.aws.log(), "PutComplianceItems").count() == 2;
    field.until_within(SETTLES, "the change", tells_more).await;
    let items = said().expect("it was told").items;
    let xid = items
        .iter()
        .find(|item| item.id.starts_with("gpu.xid.79 gpu:"));
    let xid = xid.expect("it is among them");
    assert_eq!(
        (xid.severity.as_str(), xid.status.as_str()),
        ("CRITICAL", "NON_COMPLIANT")
    );

    // What is switched off is taken away.
    let off = Plan::new()
        .set("ssm.inventory", false)
        .set("ssm.compliance", false);
    field.configure(&off);
    field.signal(rustix::process::Signal::HUP);
    let gone = |_: &Value| fs::read_link(custom.join("sideline-gpus.json")).is_err();
    let report = field.until("no links", gone).await;
    assert_eq!(ssm(&report)["state"], "off");
    assert!(!field.path("state/ssm-inventory").exists());
}

#[tokio::test]
async fn a_machine_that_is_no_managed_instance_tells_ssm_nothing() {
    let mut field = Field::without_agent(Plan::new().expecting_cameras()).await;
    field.start_agent().await;
    field.stats(all_is_well());
    let report = field.until_state("healthy").await;
    assert_eq!(ssm(&report)["state"], "off");
    assert_eq!(report["identity"]["ssm_agent"], "none");
    assert_eq!(report["identity"]["managed_instance"], Value::Null);
    assert_eq!(report["identity"]["credentials"]["source"], "environment");
    assert!(!field.log().contains("SSM"), "{}", field.log());
    assert!(!field.path("state/ssm-inventory").exists());
}

/// The SSM agent's note on credentials that it renewed so many minutes ago.
fn renewed(field: &Field, minutes: i64) {
    let now = jiff::Timestamp::now();
    let at = now - jiff::SignedDuration::from_mins(minutes);
    let note = json!({
        "InstanceId": NODE,
        "ShareFile": field.path("credentials"),
        "CredentialsRetrievedAt": at,
        "CredentialsExpiresAt": at + jiff::SignedDuration::from_mins(60),
    });
    fs::create_dir_all(field.path("runtimeconfig")).expect("a folder");
    field.write("runtimeconfig/identity_config.json", note.to_string());
}

#[tokio::test]
async fn credentials_that_expire_are_seen_and_told() {
    let mut field = registered(plan().without_keys_in_the_environment()).await;
    let keys = "[default]\naws_access_key_id = ASIAFIELD\naws_secret_access_key = secret\naws_session_token = token\n";
    field.write("credentials", keys);
    renewed(&field, 10);
    field.start_agent().await;
    let knows = |report: &Value| report["identity"]["ssm_agent"] == "renews";
    let report = field.until("the identity", knows).await;
    let identity = &report["identity"];
    assert_eq!(identity["managed_instance"], NODE);
    assert_eq!(identity["region"], "eu-west-1");
    let credentials = &identity["credentials"];
    assert_eq!(credentials["source"], "file");
    assert_eq!(credentials["long_lived"], false);
    let left = credentials["expires_in_s"].as_i64().expect("it is known");
    assert!((2_900..=3_000).contains(&left), "{left}");
    let (_, metrics) = field.get("/metrics").await;
    assert!(
        metrics.contains("sideline_credentials_expire_seconds 29"),
        "{metrics}"
    );

    // Nobody renews them, and AWS takes them no more: half a minute until that is seen, and one more that counts.
    renewed(&field, 61);
    field.aws.revoke_key("ASIAFIELD");
    let told = |report: &Value| {
        let findings = report["findings"].as_array().expect("a list");
        findings
            .iter()
            .any(|one| one["code"] == "agent.credentials")
    };
    let report = field.until_within(SETTLES, "agent.credentials", told).await;
    let status = field.sideline(&["status"]).await;
    assert!(
        status
            .out
            .contains(&format!("identity {NODE}: credentials expired")),
        "{}",
        status.out
    );
    assert_eq!(report["capacity"]["available"], 18, "{report:#}");

    // The SSM agent wakes.
    renewed(&field, 0);
    field.aws.accept_keys(["ASIAFIELD"]);
    field
        .until_within(SETTLES, "its end", |report| !told(report))
        .await;
}
