//! Credentials that the SSM agent renews under the agent, as it does: truncate, write, and the old ones end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use crate::cloud::{self, ESSENTIAL};
use crate::field::Field;
use crate::plan::{Plan, all_is_well};

const ROTATIONS: usize = 100;

/// AWS is sure to have seen a request with each so manieth set of keys.
const MET: usize = 10;

/// The rhythm of the renewals: so long the old keys have ended, so long the file is torn, so long it is right.
const STEP: Duration = Duration::from_millis(50);

fn key(rotation: usize) -> String {
    format!("ASIAROTATION{rotation:04}")
}

/// The file in two pieces, torn within the secret.
fn pieces(rotation: usize) -> [String; 2] {
    [
        format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = sec",
            key(rotation)
        ),
        format!(
            "ret{rotation}\naws_session_token = {}\n",
            "token".repeat(100)
        ),
    ]
}

#[tokio::test]
async fn a_hundred_renewals_lose_no_datum() {
    let plan = Plan::new().expecting_cameras();
    let mut field = Field::without_agent(plan.without_keys_in_the_environment()).await;
    field.write("credentials", pieces(0).concat());
    field.aws.accept_keys([key(0).as_str()]);
    field.start_agent().await;
    field.stats(all_is_well());
    let well = |report: &serde_json::Value| {
        report["verdict"]["state"] == "healthy" && report["cameras"][17]["state"] == "up"
    };
    field.until("health", well).await;
    field.aws.until(|log| !cloud::periods(log).is_empty()).await;

    let mut beat = interval(STEP);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.tick().await;
    for rotation in 1..=ROTATIONS {
        let [first, second] = pieces(rotation);
        field.aws.accept_keys([key(rotation).as_str()]);
        beat.tick().await;
        let file = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(field.path("credentials"));
        let mut file = file.expect("it is there");
        file.write_all(first.as_bytes()).expect("written");
        beat.tick().await;
        file.write_all(second.as_bytes()).expect("written");
        beat.tick().await;
        // Every tenth is met for certain, the others by chance, whole, torn or ended.
        if rotation % MET == 0 {
            let accepted = |log: &crate::aws::Log| {
                let key = key(rotation);
                log.requests.iter().any(|one| one.access_key == key)
            };
            field.aws.until(accepted).await;
        }
    }
    let over = Timestamp::now().as_second();
    let caught_up =
        |log: &crate::aws::Log| cloud::capacities(log).keys().any(|start| *start > over + 1);
    let log = field.aws.until(caught_up).await;

    cloud::assert_no_gap(&log);
    let keys: BTreeSet<&str> = log
        .requests
        .iter()
        .map(|one| one.access_key.as_str())
        .collect();
    let expired = log.refused_for("ExpiredTokenException");
    let (first, last) = (key(0), key(ROTATIONS));
    assert!(
        keys.contains(first.as_str()) && keys.contains(last.as_str()),
        "{keys:?}"
    );
    assert!(
        keys.len() > ROTATIONS / MET,
        "the renewals were met: {keys:?}"
    );
    assert!(
        expired > 0,
        "a request was refused in between: {:?}",
        log.refused
    );
    assert_eq!(
        expired,
        log.refused.len(),
        "and for nothing else: {:?}",
        log.refused
    );
    // Each period has all its metrics, once.
    let mut told: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for request in cloud::periods(&log).iter().skip(2) {
        for datum in &request.data {
            told.entry(datum.timestamp.as_second())
                .or_default()
                .push(&datum.name);
        }
    }
    let mut names: Vec<&str> = ESSENTIAL.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    for (second, mut data) in told {
        data.sort_unstable();
        assert_eq!(data, names, "at {second}");
    }
    let pending = |report: &serde_json::Value| {
        report["outlets"][0]["state"] == "ok" && report["outlets"][0]["pending"] == 0
    };
    let report = field.until("an empty outbox", pending).await;
    assert_eq!(report["outlets"][0]["dropped"], 0);
    assert_eq!(report["outlets"][0]["error"], serde_json::Value::Null);
    eprintln!("{} keys were used, {expired} requests refused", keys.len());
}

#[tokio::test]
async fn credentials_that_come_late_are_found() {
    let plan = Plan::new().set("cloudwatch.enabled", "always");
    let field = Field::start(plan.without_keys_in_the_environment()).await;
    let complains = |report: &serde_json::Value| {
        let error = report["outlets"][0]["error"].as_str().unwrap_or_default();
        report["outlets"][0]["state"] == "retrying" && error.contains("credentials")
    };
    field.until("a complaint", complains).await;
    let log = field.aws.log();
    assert_eq!(
        (log.requests.len(), log.refused.len()),
        (0, 0),
        "nothing is sent unsigned"
    );
    field.write("credentials", pieces(0).concat());
    let log = field.aws.until(|log| cloud::periods(log).len() >= 2).await;
    cloud::assert_no_gap(&log);
}
