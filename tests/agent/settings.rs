//! Configuration from SSM: laid over the file, refused, tried, taken back, kept for a start without uplink.

use std::os::unix::fs::PermissionsExt;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::field::Field;
use crate::plan::{Plan, all_is_well};

const FLEET: &str = "/sideline/fleet";
const SITE: &str = "/sideline/site/north";
const NODE: &str = "/sideline/node/mi-0field";

/// A field whose file names three parameters.
fn plan() -> Plan {
    Plan::new()
        .set("ssm.parameters", vec![FLEET, SITE, NODE])
        .set("ssm.every", "1m")
}

/// The evidence of `agent.config_rejected`, where it is open.
fn rejected(report: &Value) -> Option<&str> {
    let findings = report["findings"].as_array()?;
    let found = findings
        .iter()
        .find(|one| one["code"] == "agent.config_rejected");
    found.and_then(|one| one["evidence"].as_str())
}

fn slots(slots: u64) -> impl Fn(&Value) -> bool {
    move |report| report["capacity"]["slots"] == slots
}

/// What the agent has kept.
fn kept(field: &Field) -> Value {
    let text = std::fs::read(field.path("state/settings.json")).expect("it is there");
    serde_json::from_slice(&text).expect("it is JSON")
}

async fn origins(field: &Field) -> Value {
    let shown = field.sideline(&["config", "show", "--json"]).await;
    serde_json::from_str(&shown.out).expect("JSON")
}

#[tokio::test]
async fn parameters_are_laid_over_the_file_and_a_wrong_one_is_left_out() {
    let mut field = Field::without_agent(plan()).await;
    field.aws.ssm(|ssm| ssm.put(FLEET, "[node]\nslots = 12\n"));
    let north = "[judge]\nmemory_percent = 97\n";
    field.aws.ssm(|ssm| ssm.put_secret(SITE, north));
    field.start_agent().await;
    field.stats(all_is_well());
    let report = field.until("12 slots", slots(12)).await;
    assert_eq!(rejected(&report), None);
    let session = kept(&field)["trial"]["since"].clone();
    assert!(session.is_string(), "{}", kept(&field));

    let shown = field.sideline(&["config", "show"]).await.out;
    for line in [
        "# parameter /sideline/fleet version 1",
        "# parameter /sideline/site/north version 1",
        "# parameter /sideline/node/mi-0field: none is in force",
        "# the parameters are on trial since 20",
        "# parameter /sideline/fleet:2",
        "# parameter /sideline/site/north:2",
    ] {
        assert!(shown.contains(line), "{line}\n{shown}");
    }
    let json = origins(&field).await;
    assert_eq!(json["origins"]["node.slots"], "parameter /sideline/fleet:2");
    let file = field.path("sideline.toml").display().to_string();
    let site = json["origins"]["node.site"].as_str().unwrap_or_default();
    assert!(site.starts_with(&format!("{file}:")), "{site}");
    assert_eq!(json["parameters"][1], json!({"name": SITE, "version": 1}));

    // One wrong version beside one right one: the old one stays in force, whole.
    let wrong = "[node]\nslots = 7\nslot = 8\n[paths]\nstate = '/tmp'\n";
    field.aws.ssm(|ssm| ssm.put(FLEET, wrong));
    field
        .aws
        .ssm(|ssm| ssm.put(NODE, "judge.disk_ignore = ['/a']"));
    field.signal(Signal::HUP);
    let report = field
        .until("a refusal", |report| rejected(report).is_some())
        .await;
    let evidence = "parameter /sideline/fleet (version 2):3:1: unknown key \"slot\" in [node]; \
                    did you mean \"slots\"?; and 1 more";
    assert_eq!(rejected(&report), Some(evidence));
    assert_eq!(report["verdict"]["state"], "degraded");
    assert_eq!(report["capacity"]["slots"], 12, "{}", field.log());
    let whole = "parameter /sideline/fleet (version 2):5:9: paths.state must not be set by a \
                 parameter unless the file has ssm.allow_commands = true";
    field.says_in_log(whole).await;
    let json = origins(&field).await;
    assert_eq!(json["parameters"][0]["version"], 1);
    let ignored = &json["origins"]["judge.disk_ignore"];
    assert_eq!(ignored, "parameter /sideline/node/mi-0field:1");
    let notes = json["notes"].to_string();
    assert!(
        notes.contains("refused: parameter /sideline/fleet"),
        "{notes}"
    );

    // Put right, and one taken away.
    field.aws.ssm(|ssm| {
        ssm.put(FLEET, "[node]\nslots = 6\n");
        ssm.delete(NODE);
    });
    field.signal(Signal::HUP);
    let right = |report: &Value| slots(6)(report) && rejected(report).is_none();
    field.until("6 slots", right).await;
    let origins = origins(&field).await["origins"].clone();
    assert_eq!(origins["judge.disk_ignore"], "default");
    assert_eq!(
        field.until_state("healthy").await["capacity"]["available"],
        6
    );
}

#[tokio::test]
async fn a_set_that_the_agent_does_not_survive_is_taken_back_and_not_tried_again() {
    let mut field = Field::without_agent(plan()).await;
    field.aws.ssm(|ssm| ssm.put(FLEET, "node.slots = 12"));
    field.start_agent().await;
    field.until("12 slots", slots(12)).await;
    // A stop is not its fault.
    assert!(field.stop().await.success());
    field.start_agent().await;
    let report = field.until("12 slots", slots(12)).await;
    assert_eq!(rejected(&report), None);

    field.kill().await;
    field.start_agent().await;
    let report = field
        .until("the file's", |report| rejected(report).is_some())
        .await;
    let told = rejected(&report).unwrap_or_default();
    let evidence = "parameter /sideline/fleet (version 1) was taken back: the agent ended with it";
    assert!(told.starts_with(evidence), "{told}");
    assert_eq!(report["capacity"]["slots"], 18);
    // SSM still has it, and it is left alone: in this life and in the next.
    for life in 0..2 {
        let asked = |report: &Value| report["outlets"][2]["last_success"].is_string();
        let report = field.until("an answer of SSM", asked).await;
        assert_eq!(report["capacity"]["slots"], 18, "{life}\n{}", field.log());
        assert!(rejected(&report).is_some(), "{report}");
        assert_eq!(kept(&field)["trial"], Value::Null);
        field.kill().await;
        field.start_agent().await;
    }
    // Until it changes.
    field.aws.ssm(|ssm| ssm.put(FLEET, "node.slots = 9"));
    field.signal(Signal::HUP);
    let right = |report: &Value| slots(9)(report) && rejected(report).is_none();
    field.until("9 slots", right).await;
    assert_eq!(kept(&field)["refused"], json!([]));
}

#[tokio::test]
async fn what_the_parts_cannot_be_started_with_is_taken_back_at_once() {
    let mut field = Field::without_agent(plan().set("ssm.allow_commands", true)).await;
    field
        .aws
        .ssm(|ssm| ssm.put(FLEET, "node.slots = 12\npaths.run = '/proc/nowhere'"));
    field.start_agent().await;
    let report = field
        .until("a refusal", |report| rejected(report).is_some())
        .await;
    let told = rejected(&report).unwrap_or_default();
    assert!(told.contains("(version 1) was taken back: "), "{told}");
    assert!(told.contains("/proc/nowhere"), "{told}");
    assert_eq!(report["capacity"]["slots"], 18);
    field.aws.ssm(|ssm| ssm.put(FLEET, "node.slots = 12"));
    field.signal(Signal::HUP);
    field.until("12 slots", slots(12)).await;
    let pid = field.pid();
    assert!(pid > 0, "it is the same life");
}

#[tokio::test]
async fn a_node_without_uplink_starts_with_what_it_had() {
    let mut field = Field::without_agent(plan()).await;
    field.aws.ssm(|ssm| ssm.put(FLEET, "node.slots = 12"));
    field.start_agent().await;
    field.until("12 slots", slots(12)).await;
    assert!(field.stop().await.success());
    let target = "AmazonSSM.GetParameters";
    field
        .aws
        .answer_error(target, 500, "InternalServerError", "");
    field.start_agent().await;
    let asked = |report: &Value| slots(12)(report) && report["outlets"][2]["error"].is_string();
    field.until("12 slots, and SSM is down", asked).await;
    // Commands that look by themselves see the same.
    let checked = field.sideline(&["check", "--json"]).await;
    let checked: Value = serde_json::from_str(&checked.out).expect("JSON");
    assert_eq!(checked["capacity"]["slots"], 12);
    // A copy that somebody took away comes back with a reload.
    std::fs::remove_file(field.path("state/settings.json")).expect("it was there");
    field.signal(Signal::HUP);
    field.says_in_log("the configuration was read again").await;
    assert_eq!(kept(&field)["good"], json!([]));
    assert!(kept(&field)["trial"].is_object(), "{}", kept(&field));
    assert!(field.stop().await.success());

    // A copy that is damaged is told, and passed over.
    field.write("state/settings.json", "{\"version\":1,");
    field.start_agent().await;
    field
        .says_in_log("settings.json can't be read: it is damaged")
        .await;
    field.until("18 slots", slots(18)).await;
    let notes = origins(&field).await["notes"].to_string();
    assert!(notes.contains("it is damaged"), "{notes}");
    assert!(field.stop().await.success());

    // Where the file names no parameters, the copy means nothing.
    field.plan = Plan::new();
    field.configure(&field.plan);
    field.start_agent().await;
    assert_eq!(origins(&field).await["notes"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_tried() {
    let mut field = Field::without_agent(plan()).await;
    // Where the new copy is to be written there is a folder.
    let obstacle = field.path("state/settings.json.new/x");
    std::fs::create_dir_all(&obstacle).expect("a folder");
    field.aws.ssm(|ssm| ssm.put(FLEET, "node.slots = 12"));
    field.start_agent().await;
    let report = field
        .until("a refusal", |report| rejected(report).is_some())
        .await;
    let told = rejected(&report).unwrap_or_default();
    let why = "no new parameters are taken: settings.json can't be written: ";
    assert!(told.starts_with(why), "{told}");
    assert_eq!(report["capacity"]["slots"], 18);
    std::fs::remove_dir_all(field.path("state/settings.json.new")).expect("our own");
    field.signal(Signal::HUP);
    let right = |report: &Value| slots(12)(report) && rejected(report).is_none();
    field.until("12 slots", right).await;
}

#[tokio::test]
async fn a_file_that_is_wrong_is_told_until_it_is_right() {
    let field = Field::start(Plan::new()).await;
    field.write("sideline.toml", "[node]\nslots = 0\nsight = ''\n");
    field.signal(Signal::HUP);
    let report = field
        .until("a refusal", |report| rejected(report).is_some())
        .await;
    let file = field.path("sideline.toml").display().to_string();
    let seen = rejected(&report).unwrap_or_default();
    assert!(
        seen.starts_with(&format!("{file}:2:9: node.slots must be")),
        "{seen}"
    );
    assert!(seen.ends_with("; and 1 more"), "{seen}");
    assert_eq!(report["capacity"]["slots"], 18);
    field.configure(&field.plan);
    field.signal(Signal::HUP);
    field
        .until("peace", |report| rejected(report).is_none())
        .await;
}

#[tokio::test]
async fn secrets_in_parameters_stay_secret() {
    let plan = plan().set("ssm.allow_commands", true);
    let mut field = Field::without_agent(plan).await;
    let secret = "relay.url = 'mqtt://me:hunter2@127.0.0.1'\nnode.slots = 12";
    field.aws.ssm(|ssm| {
        ssm.put_secret(FLEET, secret);
        // Somebody's password, under the wrong name.
        ssm.put_secret(SITE, "aHVudGVyMg==");
    });
    field.start_agent().await;
    let report = field.until("12 slots", slots(12)).await;
    let told = "parameter /sideline/site/north (version 1):1:";
    assert!(
        rejected(&report).is_some_and(|it| it.starts_with(told)),
        "{report}"
    );
    let shown = field.sideline(&["config", "show"]).await.out;
    assert!(shown.contains("mqtt://me:***@127.0.0.1"), "{shown}");
    let json = origins(&field).await.to_string();
    for text in [shown, json, report.to_string(), field.whole_log()] {
        for secret in ["hunter2", "aHVudGVyMg"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    let copy = field.path("state/settings.json");
    let mode = std::fs::metadata(&copy).expect("it is there").permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_parameter_can_be_checked_before_it_is_put() {
    let field = Field::without_agent(plan()).await;
    field.write("fleet.toml", "judge.disk_degraded_percent = 97\n");
    field.write("site.toml", "[node]\nslot = 1\n[paths]\nrun = '/x'\n");
    field.write("node.toml", "judge.disk_failing_percent = 96\n");
    let [file, fleet, site, node] =
        ["sideline.toml", "fleet.toml", "site.toml", "node.toml"].map(|name| {
            let path = field.path(name);
            path.display().to_string()
        });
    let check = |over: &[&str]| {
        let mut arguments = vec!["config", "check", &file];
        arguments.extend(over.iter().flat_map(|file| ["--over", file]));
        let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
        arguments
    };
    for (over, status, err) in [
        (vec![], 0, String::new()),
        (vec![fleet.as_str()], 0, String::new()),
        (vec![node.as_str()], 0, String::new()),
        // Each is right over the file, but not together.
        (
            vec![fleet.as_str(), node.as_str()],
            1,
            format!(
                "{node}:1:30: judge.disk_degraded_percent must be at most \
                 judge.disk_failing_percent, 96, is 97\n"
            ),
        ),
        (
            vec![site.as_str(), fleet.as_str()],
            1,
            format!(
                "{site}:2:1: unknown key \"slot\" in [node]; did you mean \"slots\"?\n\
                 {site}:4:7: paths.run must not be set by a parameter unless the file has \
                 ssm.allow_commands = true\n"
            ),
        ),
    ] {
        let arguments = check(&over);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = field.sideline(&arguments).await;
        assert_eq!((answer.status, answer.err), (Some(status), err), "{over:?}");
    }
}
