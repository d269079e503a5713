//! What waits while the uplink is down: it outlives power cuts and reloads, and is told in the right order.

use rustix::process::Signal;
use serde_json::Value;

use crate::aws::{Fault, Times};
use crate::cloud;
use crate::field::Field;
use crate::mqtt::Client;
use crate::plan::{Plan, all_is_well, stats, xid};
use crate::proxy::{self, Proxy};
use crate::receiver::Receiver;

/// A field server whose relay goes through something that can fail.
async fn behind_a_proxy() -> (Field, Proxy, Client) {
    let plan = Plan::new()
        .expecting_cameras()
        .set("judge.recover_after", "0s");
    let mut field = Field::without_agent(plan).await;
    let way = Proxy::start(field.port());
    let url = format!("mqtt://127.0.0.1:{}", way.port());
    field.plan = field.plan.clone().set("relay.url", url);
    field.configure(&field.plan);
    field.stats(all_is_well());
    let listener = field.cloud().await;
    field.start_agent().await;
    field.until_state("healthy").await;
    (field, way, listener)
}

/// Whether an outlet has told all.
fn told(report: &Value, outlet: usize) -> bool {
    report["outlets"][outlet]["state"] == "ok" && waits(report, outlet) == 0
}

fn waits(report: &Value, outlet: usize) -> u64 {
    report["outlets"][outlet]["pending"].as_u64().unwrap_or(0)
}

/// The proof of a receiver that has heard all this.
fn proof(listener: &Client) -> Receiver {
    let mut receiver = Receiver::default();
    for message in listener.messages() {
        receiver.take_in(&message.topic, &message.payload);
    }
    receiver
}

#[tokio::test]
async fn what_waits_outlives_power_cuts_and_a_reload() {
    let (mut field, way, listener) = behind_a_proxy().await;
    field.aws.until(|log| cloud::periods(log).len() >= 2).await;
    way.fault(proxy::Fault::Refuse);
    field.aws.go_offline().await;
    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    let backlog = |report: &Value| waits(report, 0) >= 3 && waits(report, 1) >= 2;
    let before = field.until("a backlog", backlog).await;
    let offline_since = before["at"].as_str().expect("a time").to_owned();
    for outlet in [0, 1] {
        assert_eq!(before["outlets"][outlet]["state"], "retrying", "{before:#}");
    }

    field.kill().await;
    field.start_agent().await;
    let kept =
        |report: &Value| (0..2).all(|outlet| waits(report, outlet) >= waits(&before, outlet));
    let report = field.until("the backlog of the life before", kept).await;
    // Other settings, the same journal.
    let plan = field.plan.clone();
    field.configure(
        &plan
            .set("cloudwatch.detail_budget", 3)
            .set("relay.retain", false),
    );
    field.signal(Signal::HUP);
    field.says_in_log("the configuration was read again").await;
    let kept = |now: &Value| {
        let old = now["outlets"][1]["oldest_pending_s"].as_u64() >= Some(6);
        old && (0..2).all(|outlet| waits(now, outlet) >= waits(&report, outlet))
    };
    field.until("the backlog after the reload", kept).await;
    field.configure(&field.plan);
    field.kill().await;

    field.start_agent().await;
    field.aws.go_online().await;
    way.clear();
    let both = |report: &Value| told(report, 0) && told(report, 1);
    field.until("that all is told", both).await;
    assert!(field.stop().await.success(), "{}", field.log());
    listener
        .until("the farewell", |all| {
            let last = all.last().map(|one| one.json());
            last.is_some_and(|last| last["status"] == "stopped")
        })
        .await;

    let summary = proof(&listener)
        .proof()
        .unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    assert_eq!((summary.first, summary.lost), (1, 0));
    let events = listener.events();
    let opened = events
        .iter()
        .find(|event| event["code"] == "gpu.xid.79")
        .expect("the fault");
    assert_eq!(opened["hist"], true, "{opened}");
    // After the reconnect the current state goes before what was.
    let messages = listener.messages();
    let first = messages
        .iter()
        .position(|one| one.json()["hist"] == true)
        .expect("history");
    let birth = messages[..first]
        .iter()
        .rposition(|one| one.json()["status"] == "online");
    let state = &messages[birth.expect("a birth")..first];
    assert!(
        state.iter().any(|one| one.topic.ends_with("/health")),
        "{state:#?}"
    );
    // Each whole period was told, none twice; a kill costs the period that it falls into.
    let log = field.aws.log();
    let told = cloud::capacities(&log);
    let seconds = told
        .keys()
        .next_back()
        .zip(told.keys().next())
        .map(|(last, first)| last - first);
    let missing = seconds.expect("some") + 1 - i64::try_from(told.len()).expect("few");
    assert!((0..=4).contains(&missing), "{missing} of {told:?}");
    let since: jiff::Timestamp = offline_since.parse().expect("a time");
    assert!(
        told.contains_key(&(since.as_second() - 2)),
        "{since} {told:?}"
    );
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_burst_leaves_no_node_for_alive() {
    let (mut field, way, listener) = behind_a_proxy().await;
    way.fault(proxy::Fault::Refuse);
    // Many more events than fit into the window of unacknowledged messages.
    for fps in [0.0, 5.0, 0.0, 5.0] {
        field.stats(stats(fps, ("hole01", fps)));
        let state = if fps > 0.0 { "up" } else { "down" };
        let all = |report: &Value| {
            let cameras = report["cameras"].as_array().expect("cameras");
            cameras.iter().all(|camera| camera["state"] == state)
        };
        field.until(state, all).await;
    }
    let report = field
        .until("a backlog", |report| waits(report, 1) > 60)
        .await;
    way.clear();
    let connected = |report: &Value| report["outlets"][1]["state"] == "ok";
    field.until("the relay", connected).await;
    assert!(field.stop().await.success(), "{}", field.log());
    let stopped = |json: &Value| json["status"] == "stopped";
    listener.message("the farewell", "/status", stopped).await;
    let said = listener.messages().into_iter();
    let said: Vec<Value> = said.map(|one| one.json()["status"].clone()).collect();
    let said: Vec<&str> = said.iter().filter_map(Value::as_str).collect();
    assert!(said.ends_with(&["online", "stopped"]), "{said:?}");

    // The rest comes with the next life.
    field.start_agent().await;
    let all = |now: &Value| told(now, 1) && now["seq"].as_u64() > report["seq"].as_u64();
    field.until("that all is told", all).await;
    assert!(field.stop().await.success(), "{}", field.log());
    let twice = |all: &[crate::mqtt::Message]| {
        all.iter()
            .filter(|one| one.json()["status"] == "stopped")
            .count()
            == 2
    };
    listener.until("the second farewell", twice).await;
    let summary = proof(&listener)
        .proof()
        .unwrap_or_else(|wrong| panic!("{wrong:#?}"));
    assert_eq!((summary.first, summary.lost), (1, 0));
}

#[tokio::test]
async fn what_may_have_arrived_counts_once_and_is_told_apart() {
    let (mut field, _way, _listener) = behind_a_proxy().await;
    // What is cut off shall be a period's request, not one of a change of health.
    let count = cloud::periods(&field.aws.log()).len();
    field
        .aws
        .until(|log| cloud::periods(log).len() > count + 1)
        .await;
    field.aws.fault(Fault::ResetAfterStoring, Times::Next(1));
    let nobody_knows = |report: &Value| report["outlets"][0]["state"] == "retrying";
    field.until("a broken connection", nobody_knows).await;
    field
        .until("that all is told", |report| told(report, 0))
        .await;
    assert!(field.stop().await.success(), "{}", field.log());
    // It panics where a period has two.
    cloud::capacities(&field.aws.log());
    let answer = field.sideline(&["outbox", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&answer.out).expect("JSON");
    let ranges = listed["outlets"][0]["ranges"].as_array().expect("ranges");
    let unsure: Vec<_> = ranges
        .iter()
        .filter(|range| range["fate"] == "unsure")
        .collect();
    assert_eq!(unsure.len(), 1, "{listed:#}");
    assert_eq!(unsure[0]["first"], unsure[0]["last"]);
    assert_eq!(field.sideline(&["outbox", "verify"]).await.status, Some(0));
}

#[tokio::test]
async fn each_fault_of_cloudwatch_is_named_and_costs_nothing() {
    let plan = Plan::new().expecting_cameras();
    let mut field = Field::without_agent(plan).await;
    field.stats(all_is_well());
    field.start_agent().await;
    field.aws.until(|log| !cloud::periods(log).is_empty()).await;
    for (fault, state, words) in [
        (Fault::Throttle, "retrying", "Throttling"),
        (Fault::InternalError, "retrying", "Internal"),
        (Fault::Unavailable, "retrying", "ServiceUnavailable"),
        (Fault::AccessDenied, "rejected", "AccessDenied"),
        (Fault::ExpiredToken, "retrying", "ExpiredToken"),
        (Fault::ResetBeforeReading, "retrying", "reset"),
        (Fault::Garbage(200), "retrying", "captive portal"),
        (Fault::Garbage(502), "retrying", ""),
    ] {
        field.aws.fault(fault, Times::UntilCleared);
        let named = |report: &Value| {
            let outlet = &report["outlets"][0];
            let error = outlet["error"].as_str();
            outlet["state"] == state && error.is_some_and(|error| error.contains(words))
        };
        field.until(&format!("{fault:?}"), named).await;
        field.aws.clear_faults();
        let ok = |report: &Value| told(report, 0) && report["outlets"][0]["error"].is_null();
        field.until(&format!("the end of {fault:?}"), ok).await;
    }
    field.aws.go_offline().await;
    let refused = |report: &Value| {
        report["outlets"][0]["error"]
            .as_str()
            .is_some_and(|error| error.contains("refused"))
    };
    field.until("nobody there", refused).await;
    field.aws.go_online().await;
    let report = field
        .until("somebody there", |report| told(report, 0))
        .await;
    assert_eq!(report["outlets"][0]["dropped"], 0, "{report:#}");
    assert!(field.stop().await.success(), "{}", field.log());
    // What certainly did not arrive was repeated whole: only a connection that was cut may have cost a count.
    let log = field.aws.log();
    let periods = cloud::capacities(&log);
    let ends = periods.keys().next().zip(periods.keys().next_back());
    let (first, last) = ends.expect("some");
    let missing = (*first..=*last).filter(|second| !periods.contains_key(second));
    let missing: Vec<i64> = missing.collect();
    let measured: Vec<i64> = cloud::data(&log, "CpuUtilization")
        .iter()
        .map(|one| one.timestamp.as_second())
        .collect();
    assert!(
        missing.iter().all(|second| measured.contains(second)),
        "{missing:?} were lost altogether"
    );
}

#[tokio::test]
async fn a_will_that_comes_late_buries_no_live_node() {
    let (mut field, _way, listener) = behind_a_proxy().await;
    let online = |json: &Value| json["status"] == "online";
    let birth = listener.message("the birth", "/status", online).await;
    let mut will = birth.clone();
    will["status"] = "lost".into();
    let topic = "sideline/1/north/mi-0field/status";
    listener.publish(topic, will.to_string(), true).await;
    let again = |all: &[crate::mqtt::Message]| {
        let said = all
            .iter()
            .filter(|one| one.topic == topic)
            .map(|one| one.json());
        let said: Vec<Value> = said.map(|one| one["status"].clone()).collect();
        said.ends_with(&["online".into(), "lost".into(), "online".into()])
    };
    listener.until("another birth", again).await;
    assert!(field.stop().await.success());
}
