//! A planned change of the hardware, from the fault that it looks like to its acceptance, and after.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::field::Field;
use crate::plan::{CARDS, Plan, all_is_well, cards, xid};

/// Nobody on any machine.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn a_card_that_is_taken_out_is_missed_until_that_is_accepted() {
    let mut field = Field::start(Plan::new()).await;
    let cloud = field.cloud().await;
    field.stats(all_is_well());
    let well = |report: &Value| {
        report["verdict"]["state"] == "healthy" && report["gpus"][1]["state"] == "ok"
    };
    field.until("health", well).await;
    assert_eq!(now(&field, 1).await, json!("here"));
    // Nothing is gone, so nothing is forgotten.
    let accepted = accept(&field).await;
    assert_eq!(accepted, json!({"forgotten": [], "problems": []}));
    assert_eq!(now(&field, 1).await, json!("here"));

    // It has failed, is taken out and stays away.
    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    assert!(field.stop().await.success());
    field.gpus(&cards(&json!({"missing": true})));
    assert_eq!(now(&field, 1).await, Value::Null, "no agent can tell");
    field.start_agent().await;
    field.stats(all_is_well());
    let missed = |report: &Value| {
        codes(report) == ["gpu.xid.79", "gpu.missing"]
            && report["capacity"]["available"] == 9
            && report["host"].is_object()
    };
    let report = field.until("half a node", missed).await;
    assert_eq!(report["verdict"]["state"], "failing");
    assert_eq!(now(&field, 1).await, json!("gone"));
    assert_eq!(now(&field, 0).await, json!("here"));

    // It is not for everybody to accept that.
    if rustix::process::geteuid().is_root() {
        refuses_nobody(&field).await;
        assert_eq!(codes(&field.report().await), ["gpu.xid.79", "gpu.missing"]);
    }

    let accepted = accept(&field).await;
    let gpu = json!({"kind": "gpu", "id": CARDS[1], "name": "NVIDIA GeForce RTX 4090"});
    assert_eq!(accepted["forgotten"][0], gpu);
    assert_eq!(accepted["problems"], json!([]));
    let whole = |report: &Value| {
        report["verdict"]["state"] == "healthy" && report["capacity"]["available"] == 18
    };
    let report = field.until("a node of one card", whole).await;
    assert_eq!(report["findings"], json!([]));
    let told = |event: &Value| event["what"] == "inventory accepted";
    let told = cloud.message("the acceptance", "/event", told).await;
    let closed =
        |event: &Value| event["kind"] == "finding_closed" && event["code"] == "gpu.missing";
    let closed = cloud.message("the close", "/event", closed).await;
    assert!(told["seq"].as_u64() < closed["seq"].as_u64());

    // What was answered was kept.
    field.kill().await;
    assert_eq!(
        shown(&field).await["gpus"].as_array().map(Vec::len),
        Some(1)
    );
    field.start_agent().await;
    field.stats(all_is_well());
    let report = field.until("the same node", whole).await;
    assert_eq!(report["findings"], json!([]));
    assert_eq!(report["gpus"].as_array().map(Vec::len), Some(1));

    // The card may come back, and is remembered anew.
    field.gpus(&cards(&json!({})));
    let two = |report: &Value| report["gpus"][1]["state"] == "ok";
    field.until("two cards", two).await;
    assert_eq!(now(&field, 1).await, json!("here"));
    let report = field.report().await;
    assert_eq!(report["findings"], json!([]));
}

/// Another user may look, in the agent's group, and not accept; a stranger may not even look.
async fn refuses_nobody(field: &Field) {
    let folder = field.path("");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder, open).expect("our own folder");
    let group = rustix::process::getegid().as_raw();
    let status = ["status", "--json"];
    let member = field.sideline_as(NOBODY, group, &status).await;
    assert_eq!(member.status, Some(2), "{member:?}");
    let stranger = field.sideline_as(NOBODY, NOBODY, &status).await;
    assert_eq!(stranger.status, Some(3), "{stranger:?}");
    assert!(
        stranger.err.contains("usermod -aG sideline"),
        "{stranger:?}"
    );
    let accept = ["inventory", "accept"];
    let refused = field.sideline_as(NOBODY, group, &accept).await;
    assert_eq!(refused.status, Some(3), "{refused:?}");
    let expected = "sideline: the agent says: only root may give it orders\n";
    assert_eq!((&*refused.err, &*refused.out), (expected, ""));
}

#[tokio::test]
async fn cards_that_can_not_be_read_are_not_forgotten() {
    let field = Field::start(Plan::new()).await;
    field.stats(all_is_well());
    let two = |report: &Value| report["gpus"][1]["state"] == "ok";
    field.until("two cards", two).await;
    let mut hung = cards(&json!({"missing": true}));
    hung["hang"] = json!(["nvmlDeviceGetCount"]);
    field.gpus(&hung);
    let hung = |report: &Value| codes(report) == ["gpu.hung"];
    field.until("a driver that hangs", hung).await;

    let answer = field.sideline(&["inventory", "accept"]).await;
    assert_eq!(answer.status, Some(1), "{answer:?}");
    assert_eq!(answer.out, "nothing was forgotten\n");
    let problem = "sideline: the GPUs can't be read now (NVML does not answer); nothing of them was forgotten\n";
    assert_eq!(answer.err, problem);
    assert_eq!(
        shown(&field).await["gpus"].as_array().map(Vec::len),
        Some(2)
    );
    assert_eq!(now(&field, 1).await, Value::Null);
}

#[tokio::test]
async fn without_an_agent_it_is_shown_and_not_accepted() {
    let field = Field::without_agent(Plan::new()).await;
    let shown = field.sideline(&["inventory", "show"]).await;
    let none = field.path("state/sideline.db");
    assert_eq!(shown.status, Some(0), "{shown:?}");
    assert_eq!(
        shown.out.trim_end(),
        cut(&format!("inventory   none yet: {}", none.display()))
    );

    let answer = field.sideline(&["inventory", "accept"]).await;
    assert_eq!(answer.status, Some(3), "{answer:?}");
    let expected = "sideline: only a running agent knows what is there now: no agent answers at ";
    assert!(answer.err.starts_with(expected), "{answer:?}");
    assert_eq!(answer.out, "");
}

/// A line as the terminal shows it.
fn cut(line: &str) -> String {
    sideline::status::page::short(line, sideline::status::page::WIDTH)
}

async fn accept(field: &Field) -> Value {
    let answer = field.sideline(&["inventory", "accept", "--json"]).await;
    assert_eq!((answer.status, &*answer.err), (Some(0), ""), "{answer:?}");
    serde_json::from_str(&answer.out).expect("JSON")
}

async fn shown(field: &Field) -> Value {
    let answer = field.sideline(&["inventory", "show", "--json"]).await;
    assert_eq!(answer.status, Some(0), "{answer:?}");
    serde_json::from_str(&answer.out).expect("JSON")
}

/// Whether a remembered card is there now, once it is remembered.
async fn now(field: &Field, card: usize) -> Value {
    let shown = shown(field).await;
    let card = &shown["gpus"][card];
    assert!(card["id"].is_string(), "{shown:#}");
    card["now"].clone()
}

fn codes(report: &Value) -> Vec<&str> {
    let findings = report["findings"].as_array().into_iter().flatten();
    findings.filter_map(|one| one["code"].as_str()).collect()
}
