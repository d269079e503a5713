//! The proof at the end of `tests/bench/crash` finds what is lost, counted twice, or never comes.
#![allow(
    dead_code,
    reason = "the proof is what is tested; it needs only the types of the rest"
)]

#[path = "servers/aws.rs"]
mod aws;
#[path = "servers/fake_nvml.rs"]
mod fake_nvml;
#[path = "agent/field.rs"]
mod field;
#[path = "servers/mosquitto.rs"]
mod mosquitto;
#[path = "agent/mqtt.rs"]
mod mqtt;
#[path = "agent/plan.rs"]
mod plan;
#[path = "../benches/crash/proof.rs"]
mod proof;
#[path = "servers/receiver.rs"]
mod receiver;
#[path = "../benches/crash/tally.rs"]
mod tally;
#[path = "../benches/crash/witness.rs"]
mod witness;

use std::process::ExitStatus;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use aws::{Datum, Log, Request};
use field::Answer;
use mqtt::Message;
use proof::Evidence;
use witness::Witness;

/// Waits after a kill: a period, a change of health, an event.
const WAITED: [&str; 3] = [
    r#"{"outlet":"cloudwatch","number":7,"at":"2026-11-22T19:36:12Z","metrics":["Capacity","Health","OutboxAge"]}"#,
    r#"{"outlet":"cloudwatch","number":8,"at":"2026-11-22T19:36:14.2Z","metrics":["Health"]}"#,
    r#"{"outlet":"relay","number":2,"at":"2026-11-22T19:36:12Z"}"#,
];

fn answer(out: impl Into<String>) -> Answer {
    Answer {
        status: Some(0),
        out: out.into(),
        err: String::new(),
    }
}

fn list(pending: u64, ranges: &Value) -> Answer {
    let outlets = json!([
        {"name": "cloudwatch", "pending": pending, "ranges": ranges},
        {"name": "relay", "pending": 0, "ranges": []},
    ]);
    answer(json!({"outlets": outlets}).to_string())
}

fn event(seq: u64) -> Message {
    let payload =
        json!({"v": 1, "ts": "2026-11-22T19:36:12Z", "seq": seq, "boot": "b", "kind": "agent"});
    Message {
        at: Timestamp::UNIX_EPOCH,
        topic: "sideline/1/north/mi-0field/event".to_owned(),
        payload: payload.to_string().into(),
        retained: false,
    }
}

fn datum(name: &str, at: &str) -> Datum {
    Datum {
        name: name.to_owned(),
        dimensions: [("Site".to_owned(), "north".to_owned())].into(),
        timestamp: at.parse().expect("RFC 3339"),
        stamped: true,
        value: None,
        values: vec![1.0],
        counts: vec![1.0],
        statistic_values: None,
        unit: None,
        storage_resolution: Some(1),
    }
}

fn request(data: Vec<Datum>) -> Arc<Request> {
    Arc::new(Request {
        at: Timestamp::UNIX_EPOCH,
        access_key: String::new(),
        headers: hyper::HeaderMap::new(),
        gzip: true,
        body_bytes: 0,
        decoded_bytes: 0,
        namespace: "Sideline".to_owned(),
        data,
        strict: false,
    })
}

/// Of a node that lost nothing: what waited has arrived.
fn sound() -> Evidence {
    let period = "2026-11-22T19:36:12Z";
    let mut witness = Witness::default();
    witness.read(&answer(WAITED.join("\n")));
    Evidence {
        ended: ExitStatus::default(),
        farewell: true,
        log: "said".to_owned(),
        messages: vec![event(1), event(2), event(2), event(3)],
        cloudwatch: Log {
            requests: vec![
                request(vec![
                    datum("Capacity", period),
                    datum("Health", period),
                    datum("OutboxAge", period),
                ]),
                request(vec![datum("Health", "2026-11-22T19:36:14.2Z")]),
            ],
            ..Log::default()
        },
        list: list(0, &json!([{"first": 1, "last": 8, "fate": "sent"}])),
        verify: answer(""),
        witness,
    }
}

/// Takes a metric's data out of the requests from this one on.
fn without(evidence: &mut Evidence, name: &str) {
    for request in &mut evidence.cloudwatch.requests {
        let data = request.data.iter().filter(|one| one.name != name);
        *request = self::request(data.cloned().collect());
    }
}

#[test]
fn a_node_that_lost_nothing() {
    let proof = sound().weigh();
    assert!(proof.violations.is_empty(), "{:?}", proof.violations);
    let table: Vec<String> = proof
        .tally
        .to_string()
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "events 3",
        "events that came once more 1",
        "events seen waiting after a kill 1",
        "periods with Capacity 1",
        "periods told without Capacity 0",
        "requests seen waiting after a kill 2",
        "numbers listed as sent 8",
    ] {
        assert!(
            table.contains(&line.to_owned()),
            "no {line:?} in {table:#?}"
        );
    }
}

/// What is wrong, how it came, and what is said of it; nothing, where it is excused.
type Case<'a> = (&'a str, &'a dyn Fn(&mut Evidence), &'a str);

#[test]
fn each_loss_is_found_and_each_excuse_heard() {
    let listed = |fate: &str| list(0, &json!([{"first": 7, "last": 8, "fate": fate}]));
    let of_period =
        "CloudWatch: 7 of 2026-11-22T19:36:12Z still waited after a kill and never came";
    let cases: [Case<'_>; 16] = [
        (
            "an event that never came",
            &|it| it.messages.truncate(1),
            "relay: 2 still waited after a kill",
        ),
        (
            "a gap",
            &|it| {
                it.messages.remove(1);
                it.messages.remove(1);
            },
            "relay: 2 is missing",
        ),
        (
            "a beginning",
            &|it| {
                it.messages.remove(0);
            },
            "the journal begins with 2",
        ),
        (
            "a second Capacity",
            &|it| {
                let again = it.cloudwatch.requests[0].clone();
                it.cloudwatch.requests.push(again);
            },
            "CloudWatch: Capacity of 2026-11-22T19:36:12Z has 2 samples",
        ),
        (
            "a Capacity of two",
            &|it| {
                let mut two = datum("Capacity", "2026-11-22T19:36:12Z");
                two.counts = vec![2.0];
                without(it, "Capacity");
                it.cloudwatch.requests.push(request(vec![two]));
            },
            "CloudWatch: Capacity of 2026-11-22T19:36:12Z has 2 samples",
        ),
        (
            "no Capacity",
            &|it| without(it, "Capacity"),
            "CloudWatch: no Capacity ever came",
        ),
        (
            "a period without its age",
            &|it| without(it, "OutboxAge"),
            of_period,
        ),
        (
            "the same, unsure",
            &|it| {
                without(it, "OutboxAge");
                it.list = listed("unsure");
            },
            of_period,
        ),
        (
            "the same, expired",
            &|it| {
                without(it, "OutboxAge");
                it.list = listed("expired");
            },
            "",
        ),
        (
            "a change that never came",
            &|it| {
                it.cloudwatch.requests.pop();
            },
            "CloudWatch: 8 of 2026-11-22T19:36:14.2Z",
        ),
        (
            "something left",
            &|it| it.list = list(3, &json!([])),
            "cloudwatch: 3 still wait in the end",
        ),
        (
            "a list that is none",
            &|it| it.list = answer("{}"),
            "sideline outbox list --json: no outlets",
        ),
        (
            "a list with a hole",
            &|it| it.list = list(0, &json!([{"first": 1}])),
            "sideline outbox list --json: not as promised",
        ),
        (
            "a store that is not whole",
            &|it| it.verify.status = Some(1),
            "sideline outbox verify: ended with Some(1)",
        ),
        (
            "no farewell",
            &|it| it.farewell = false,
            "the relay never said that it stopped",
        ),
        (
            "no such command",
            &|it| {
                it.witness.read(&Answer {
                    status: Some(3),
                    out: String::new(),
                    err: "error: what?".to_owned(),
                });
            },
            "sideline outbox export --json ended with Some(3): error: what?",
        ),
    ];
    for (what, change, found) in cases {
        let mut evidence = sound();
        change(&mut evidence);
        let violations = evidence.weigh().violations;
        match found {
            "" => assert!(violations.is_empty(), "{what}: {violations:#?}"),
            found => assert!(
                violations.iter().any(|one| one.starts_with(found)),
                "{what}: no {found:?} in {violations:#?}"
            ),
        }
    }
}

#[test]
fn what_the_witness_cannot_read_is_said() {
    for (line, why) in [
        ("what?", "expected value at line 1 column 1"),
        (r#"{"outlet":"relay"}"#, "no number"),
        (
            r#"{"outlet":"cloudwatch","number":1,"metrics":[]}"#,
            "no time",
        ),
        (
            r#"{"outlet":"cloudwatch","number":1,"at":"2026-11-22T19:36:12Z"}"#,
            "no metrics",
        ),
        (
            r#"{"outlet":"ssm","number":1}"#,
            r#"no such outlet is promised: Some("ssm")"#,
        ),
        (
            r#"{"outlet":"cloudwatch","number":7,"at":"2026-11-22T19:36:13Z","metrics":["Health"]}"#,
            "the number was another row's before",
        ),
    ] {
        let mut witness = sound().witness;
        witness.read(&answer(line));
        let said = format!("sideline outbox export --json: {why}: {line}");
        assert_eq!(witness.complaints, [said]);
    }
}
