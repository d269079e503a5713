//! Work that leaves a node and comes back: the real agent beside an ECS that can be scripted.

use std::time::Duration;

use serde_json::{Value, json};

use crate::aws::ecs::{Cluster, Instance};
use crate::aws::{Aws, Call, Fault, Log, Times};
use crate::field::Field;
use crate::mqtt::{Client, Message};
use crate::plan::{Plan, all_is_well};

/// Nobody on any machine.
const NOBODY: u32 = 65534;

/// One card, and everything quick.
fn plan() -> Plan {
    let mut plan = Plan::new()
        .set("failover.mode", "drain")
        .set("failover.hold", "6s")
        .set("failover.probation", "2s");
    plan.gpus = card(&json!({}));
    plan
}

fn card(changes: &Value) -> Value {
    let mut card = json!({"preset": "l4"});
    if let (Some(card), Some(changes)) = (card.as_object_mut(), changes.as_object()) {
        card.extend(changes.clone());
    }
    json!({ "gpus": [card] })
}

/// Four nodes; the first is this one and runs two tasks.
fn yard() -> (Cluster, String) {
    let mut yard = Cluster::named("yard");
    let arns = ["a1", "a2", "a3", "a4"].map(|id| yard.register(id));
    let own = arns[0].clone();
    yard.instances
        .entry(own.clone())
        .and_modify(|own| own.running = 2);
    (yard, own)
}

/// A healthy field in that cluster.
async fn field(plan: Plan) -> (Field, String) {
    let mut field = Field::without_agent(plan).await;
    let (yard, own) = yard();
    field.aws.serve_cluster(yard, &own);
    field.start_agent().await;
    well(&field).await;
    (field, own)
}

/// Waits until the node carries everything, and knows its place.
async fn well(field: &Field) {
    field.stats(all_is_well());
    let well = |report: &Value| {
        report["verdict"]["state"] == "healthy"
            && report["capacity"]["available"] == 18
            && report["outlets"][3]["last_success"].is_string()
    };
    field.until("health and a place", well).await;
}

fn own<T>(field: &Field, arn: &str, look: impl FnOnce(&mut Instance) -> T) -> T {
    field
        .aws
        .cluster(|yard| look(yard.instances.get_mut(arn).expect("registered")))
}

/// The card falls off the bus.
fn fail(field: &Field) {
    field.gpus(&card(&json!({"lost": true})));
}

fn heal(field: &Field) {
    field.gpus(&card(&json!({})));
}

async fn until_stands(field: &Field, state: &str) -> Value {
    let stands = |report: &Value| report["failover"]["state"] == state;
    field.until(state, stands).await
}

fn is_drained(log: &Log) -> bool {
    log.calls
        .iter()
        .any(|call| call.body["status"] == "DRAINING")
}

/// The claim was taken off: the last call of a way back.
fn is_released(log: &Log) -> bool {
    let takes_off = |call: &Call| call.target.ends_with("DeleteAttributes");
    log.calls.iter().any(takes_off)
}

/// What was asked of ECS that changes something, in order.
fn changes(aws: &Aws) -> Vec<String> {
    let short = |call: &Call| {
        let name = call.target.rsplit('.').next().unwrap_or_default();
        let (what, whom) = match name {
            "UpdateContainerInstancesState" => {
                (&call.body["status"], &call.body["containerInstances"][0])
            }
            "PutAttributes" | "DeleteAttributes" => {
                (&json!(name), &call.body["attributes"][0]["targetId"])
            }
            _ => return None,
        };
        // A container instance goes by its ARN or by the last part of it.
        let whom = whom.as_str().and_then(|whom| whom.rsplit('/').next());
        Some(format!("{} {}", what.as_str()?, whom?))
    };
    aws.log().calls.iter().filter_map(short).collect()
}

#[tokio::test]
async fn a_dead_card_moves_the_work_away_and_back() {
    let (field, arn) = field(plan()).await;
    let cloud = field.cloud().await;
    assert!(field.path("run/fit").exists());

    fail(&field);
    let report = until_stands(&field, "draining").await;
    assert_eq!(report["capacity"]["available"], 0);
    assert!(!field.path("run/fit").exists());
    field.aws.until(is_drained).await;
    let claim = own(&field, &arn, |own| own.attributes["sideline.claim"].clone());
    assert!(claim.starts_with("gpu.lost@20"), "{claim}");
    // ECS stops its tasks.
    own(&field, &arn, |own| own.running = 0);
    until_stands(&field, "drained").await;

    heal(&field);
    let report = until_stands(&field, "probation").await;
    assert_eq!(
        report["capacity"],
        json!({"slots": 18, "available": 0, "because": "verdict"})
    );
    assert!(!field.path("run/fit").exists());
    let report = until_stands(&field, "in_service").await;
    assert_eq!(report["capacity"]["available"], 18);
    assert!(field.path("run/fit").exists());
    field.aws.until(is_released).await;
    own(&field, &arn, |own| {
        assert_eq!((&*own.status, own.attributes.len()), ("ACTIVE", 0));
    });

    let steps: Vec<String> = steps(&cloud, 5).await;
    assert_eq!(
        steps,
        ["holding", "draining", "drained", "probation", "in_service"]
    );
    let expected = ["PutAttributes", "DRAINING", "ACTIVE", "DeleteAttributes"];
    let expected = expected.map(|call| format!("{call} a1"));
    assert_eq!(
        changes(&field.aws),
        expected,
        "nothing else, and no other instance"
    );
}

/// The states that the relay told, once there are so many.
async fn steps(cloud: &Client, count: usize) -> Vec<String> {
    let is_step =
        |one: &&Message| one.topic.ends_with("/event") && one.json()["kind"] == "failover";
    let enough = |all: &[Message]| all.iter().filter(is_step).count() >= count;
    let all = cloud.until("the steps", enough).await;
    let state = |one: &Message| one.json()["state"].as_str().unwrap_or_default().to_owned();
    all.iter().filter(is_step).map(state).collect()
}

#[tokio::test]
async fn it_only_observes_by_default() {
    let mut plan = plan();
    plan.config["failover"]["mode"] = "observe".into();
    let mut field = Field::without_agent(plan).await;
    let (yard, own) = yard();
    field.aws.serve_cluster(yard, &own);
    field.start_agent().await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    fail(&field);
    let report = until_stands(&field, "drained").await;
    assert_eq!(report["failover"]["mode"], "observe");
    let status = field.sideline(&["status"]).await;
    assert!(
        status.out.contains("would be drained; since"),
        "{}",
        status.out
    );
    heal(&field);
    let back = |report: &Value| report["capacity"]["available"] == 18;
    let report = field.until("its capacity, which is its own", back).await;
    assert_eq!(report["failover"]["state"], "probation");
    let calls = field.aws.log().calls;
    assert!(
        calls
            .iter()
            .all(|call| !call.target.contains("ContainerService")),
        "{calls:?}"
    );
}

#[tokio::test]
async fn killed_in_any_state_it_goes_on() {
    let (mut field, arn) = field(plan().set("failover.probation", "6s")).await;
    for (state, next) in [
        ("holding", "draining"),
        ("draining", "drained"),
        ("drained", "probation"),
        ("probation", "in_service"),
    ] {
        match state {
            "holding" => fail(&field),
            "draining" => {}
            "drained" => own(&field, &arn, |own| own.running = 0),
            _ => heal(&field),
        }
        until_stands(&field, state).await;
        field.kill().await;
        field.start_agent().await;
        field.stats(all_is_well());
        let report = field.until("its first report", |_| true).await;
        assert_eq!(report["failover"]["state"], state, "after the restart");
        assert_eq!(report["capacity"]["available"], 0, "{state}");
        // Nothing that a restart makes unknown moves it on.
        if state == "holding" || state == "probation" {
            until_stands(&field, next).await;
        }
    }
    well(&field).await;
    field.aws.until(is_released).await;
    let updates = changes(&field.aws);
    let of = |status: &str| updates.iter().filter(|one| one.starts_with(status)).count();
    assert_eq!(
        (of("DRAINING"), of("ACTIVE"), of("DeleteAttributes")),
        (1, 1, 1),
        "{updates:?}"
    );

    let order = ["maintenance", "on", "--for", "1h", "--reason", "new lens"];
    let answer = field.sideline(&order).await;
    assert_eq!(answer.status, Some(0), "{answer:?}");
    field.kill().await;
    field.start_agent().await;
    let report = field.until("its first report", |_| true).await;
    assert_eq!(report["failover"]["state"], "maintenance");
    assert_eq!(report["failover"]["reason"], "new lens");
}

#[tokio::test]
async fn an_operators_drain_is_left_alone() {
    let (field, arn) = field(plan()).await;
    own(&field, &arn, |own| {
        own.status = "DRAINING".to_owned();
        own.running = 0;
    });
    // Its tasks leave, so it looks.
    let report = until_stands(&field, "maintenance").await;
    assert_eq!(
        report["failover"]["reason"],
        "drained in ECS, not by sideline"
    );
    let offered = json!({"slots": 18, "available": 0, "because": "maintenance"});
    assert_eq!(report["capacity"], offered);
    fail(&field);
    field.until_state("failing").await;
    let answer = field.sideline(&["maintenance", "off"]).await;
    assert_eq!(answer.status, Some(1), "{answer:?}");
    assert!(answer.out.contains("not by sideline"), "{answer:?}");
    heal(&field);
    field.until_state("healthy").await;
    assert_eq!(field.report().await["failover"]["state"], "maintenance");
    assert_eq!(changes(&field.aws), [""; 0]);
}

#[tokio::test]
async fn what_ecs_refuses_is_a_finding_and_no_drain() {
    let (field, arn) = field(plan()).await;
    field.aws.fault_on(
        "ListContainerInstances",
        Fault::AccessDenied,
        Times::UntilCleared,
    );
    fail(&field);
    let held = |report: &Value| report["failover"]["held_back"].is_string();
    let report = field.until("a drain that is held back", held).await;
    assert_eq!(report["failover"]["state"], "holding");
    let finding = |report: &Value, code: &str| {
        let findings = report["findings"].as_array().cloned().unwrap_or_default();
        findings.into_iter().find(|one| one["code"] == code)
    };
    let found = |report: &Value| finding(report, "agent.drain_held").is_some();
    let report = field.until("a finding that says so", found).await;
    let denied = finding(&report, "agent.ecs").expect("a finding");
    assert_eq!(denied["severity"], "degraded");
    let said = denied["evidence"].as_str().unwrap_or_default();
    assert!(said.contains("ListContainerInstances"), "{said}");
    assert_eq!(report["outlets"][3]["state"], "rejected");
    assert_eq!(own(&field, &arn, |own| own.status.clone()), "ACTIVE");

    field.aws.clear_faults();
    field
        .aws
        .fault_on("ListContainerInstances", Fault::Throttle, Times::Next(1));
    until_stands(&field, "draining").await;
}

#[tokio::test]
async fn maintenance_and_drills_are_ordered_seen_and_end() {
    let (field, arn) = field(plan()).await;
    let cloud = field.cloud().await;
    let order = ["maintenance", "on", "--for", "1h", "--reason", "new lens"];
    let answer = field.sideline(&order).await;
    assert_eq!((answer.status, &*answer.err), (Some(0), ""), "{answer:?}");
    assert!(
        answer
            .out
            .starts_with("carries 0 of 18 slots (maintenance)\nmaintenance until 20"),
        "{answer:?}"
    );
    field.aws.until(is_drained).await;
    assert_eq!(field.sideline(&["fit"]).await.status, Some(1));
    let health = |health: &Value| health["because"] == "maintenance" && health["available"] == 0;
    cloud
        .message("health in maintenance", "/health", health)
        .await;
    let answer = field.sideline(&["maintenance", "off", "--json"]).await;
    assert_eq!(answer.status, Some(0), "{answer:?}");
    let stands: Value = serde_json::from_str(&answer.out).expect("JSON");
    assert_eq!(stands["failover"]["state"], "in_service");
    field.aws.until(is_released).await;
    assert_eq!(own(&field, &arn, |own| own.status.clone()), "ACTIVE");

    let answer = field
        .sideline(&["drill", "--for", "4s", "--slots", "5"])
        .await;
    assert_eq!(answer.status, Some(0), "{answer:?}");
    assert!(
        answer
            .out
            .starts_with("carries 5 of 18 slots (drill)\ndrill: at most 5 slots until 20"),
        "{answer:?}"
    );
    let report = field.report().await;
    assert_eq!(
        report["capacity"],
        json!({"slots": 18, "available": 5, "because": "drill"})
    );
    assert_eq!(report["verdict"]["state"], "healthy");
    assert_eq!(
        field.sideline(&["fit"]).await.status,
        Some(0),
        "a part is still offered"
    );
    let over = |event: &Value| event["what"] == "drill ended";
    cloud.message("the end of the drill", "/event", over).await;
    let started = |event: &Value| event["what"] == "drill started" && event["slots"] == 5;
    cloud
        .message("the start of the drill", "/event", started)
        .await;
    let whole = |report: &Value| report["capacity"]["available"] == 18;
    field.until("the whole capacity", whole).await;
    assert_eq!(own(&field, &arn, |own| own.status.clone()), "ACTIVE");

    // Wrong orders, and who may not give any.
    for (order, says) in [
        (vec!["drill"], "--for"),
        (vec!["drill", "--for", "0s"], "must be 1s to 30d"),
        (vec!["drill", "--for", "31d"], "it must last 1s to 30d"),
        (vec!["maintenance", "on", "--for", "soon"], "is no duration"),
        (vec!["maintenance", "on", "--reason", "a\nb"], "on one line"),
    ] {
        let answer = field.sideline(&order).await;
        assert_eq!(answer.status, Some(3), "{order:?}: {answer:?}");
        assert!(answer.err.contains(says), "{order:?}: {answer:?}");
    }
    if rustix::process::geteuid().is_root() {
        use std::os::unix::fs::PermissionsExt;
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(field.path(""), open).expect("our own folder");
        let group = rustix::process::getegid().as_raw();
        let drill = ["drill", "--for", "1h"];
        let refused = field.sideline_as(NOBODY, group, &drill).await;
        let expected = "sideline: the agent says: only root may give it orders\n";
        assert_eq!((refused.status, &*refused.err), (Some(3), expected));
    }
}

/// Four nodes that share a cluster; each has its own AWS but for ECS.
#[tokio::test]
async fn a_bad_threshold_for_all_drains_no_more_than_the_share() {
    let shared = Aws::start().await;
    let (yard, _) = yard();
    let arns: Vec<String> = yard.instances.keys().cloned().collect();
    shared.serve_cluster(yard, &arns[0]);
    // Without its other guard: that a change to all holds back everybody.
    let mut plan = plan()
        .set("failover.changes", "0s")
        .set("failover.hold", "8s");
    let ecs = ("AWS_ENDPOINT_URL_ECS".to_owned(), shared.url());
    plan.environment.push(ecs);
    let mut fields = Vec::new();
    for (number, arn) in arns.iter().enumerate() {
        let plan = plan.clone().set("node.id", format!("mi-0field{number}"));
        let mut field = Field::without_agent(plan).await;
        field
            .aws
            .metadata(json!({"Cluster": "yard", "ContainerInstanceArn": arn}));
        field.start_agent().await;
        fields.push(field);
    }
    for field in &fields {
        well(field).await;
    }
    // A threshold that every card is above, and a rule that makes much of it.
    for field in &fields {
        let mut bad = field
            .plan
            .clone()
            .set("judge.gpu_celsius", 40)
            .set("judge.gpu_hot_after", "1s");
        let rules = bad.config["judge"]["rules"].as_table_mut();
        rules
            .expect("a table")
            .insert("gpu.hot".to_owned(), "failing".into());
        field.configure(&bad);
        field.signal(rustix::process::Signal::HUP);
    }
    let mut states = Vec::new();
    for field in &fields {
        let decided = |report: &Value| {
            let failover = &report["failover"];
            let is_out = failover["state"] == "draining" || failover["state"] == "drained";
            is_out || failover["held_back"].is_string()
        };
        let report = field.until("a decision", decided).await;
        states.push(report["failover"].clone());
    }
    let draining = |yard: &mut Cluster| {
        let all = yard.instances.values();
        all.filter(|one| one.status == "DRAINING").count()
    };
    let drained = Aws::until(&shared, |log| {
        let drains = |call: &&Call| call.body["status"] == "DRAINING";
        log.calls.iter().filter(drains).count() >= 2
    });
    tokio::time::timeout(Duration::from_secs(30), drained)
        .await
        .expect("in time");
    assert_eq!(shared.cluster(draining), 2, "{states:#?}");
    let held = states
        .iter()
        .filter(|one| one["held_back"].is_string())
        .count();
    assert!(held >= 2, "{states:#?}");
    for field in &fields {
        // Each acts on nobody but itself.
        let report = field.report().await;
        let own = &report["failover"]["container_instance"];
        let status = shared.cluster(|yard| {
            yard.instances[own.as_str().unwrap_or_default()]
                .status
                .clone()
        });
        assert_eq!(
            status == "DRAINING",
            ["draining", "drained"].contains(&report["failover"]["state"].as_str().unwrap_or("")),
            "{report:#}"
        );
    }
}
