//! A machine whose clock is wrong. A test can't set this machine's, so AWS's is off instead; jumps are a table in
//! `domain::moment`.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::aws::{Datum, Fault, Log, Times};
use crate::field::Field;
use crate::plan::Plan;

/// What is stamped may wait so long until it is sent, and still counts as stamped with this time.
const WAITED: SignedDuration = SignedDuration::from_secs(60);

/// The rules for the server that the disks and the memory of the machine under the test don't trip.
fn plan() -> Plan {
    let rules = toml::toml! {
        "host.disk*" = "off"
        "host.fs_readonly" = "off"
        "host.memory" = "off"
    };
    Plan::new().set("judge.rules", rules)
}

/// `host.clock`, where it is open.
fn finding(report: &Value) -> Option<&Value> {
    let findings = report["findings"].as_array()?;
    findings.iter().find(|one| one["code"] == "host.clock")
}

/// Whether a time is that of a clock so far ahead of ours.
fn is_of(time: Timestamp, ahead: SignedDuration) -> bool {
    (time.duration_since(Timestamp::now()) - ahead).abs() < WAITED
}

fn at(report: &Value) -> Timestamp {
    let at = report["at"].as_str().and_then(|at| at.parse().ok());
    at.expect("a time")
}

/// The last `Capacity` that was taken.
fn last(log: &Log) -> Option<&Datum> {
    let requests = log.requests.iter().rev();
    let mut data = requests.flat_map(|request| &request.data);
    data.find(|datum| datum.name == "Capacity")
}

async fn until_stamped(field: &Field, ahead: SignedDuration) {
    let stamped = |log: &Log| last(log).is_some_and(|datum| is_of(datum.timestamp, ahead));
    field.aws.until(stamped).await;
}

/// The agent beside an AWS that is `ahead`; what `host.clock` then says.
async fn check(fault: fn(SignedDuration) -> Fault, ahead: SignedDuration, words: &str) {
    let mut field = Field::without_agent(plan()).await;
    field.aws.fault(fault(ahead), Times::UntilCleared);
    field.start_agent().await;
    until_stamped(&field, ahead).await;
    let told = |report: &Value| report["outlets"][0]["pending"] == 0;
    field.until("an empty outbox", told).await;
    // What follows is stamped so too, all of it.
    field.aws.clear();
    let report = field
        .until("host.clock", |report| finding(report).is_some())
        .await;
    let found = finding(&report).expect("it is open");
    assert_eq!(
        (&found["severity"], &found["advice"], &found["subject"]),
        (&"degraded".into(), &"inspect".into(), &"host".into())
    );
    let evidence = format!("this machine's clock is {words} AWS's");
    assert_eq!(found["evidence"], evidence.as_str());
    assert!(is_of(at(&report), ahead), "{}", report["at"]);
    let log = field.aws.log();
    assert!(log.data().count() > 0, "data go on: {:?}", log.refused);
    for datum in log.data() {
        assert!(is_of(datum.timestamp, ahead), "{datum:?}");
    }

    field.aws.clear_faults();
    let gone = |report: &Value| finding(report).is_none();
    let report = field.until("host.clock to be gone", gone).await;
    assert!(is_of(at(&report), SignedDuration::ZERO), "{}", report["at"]);
    until_stamped(&field, SignedDuration::ZERO).await;
}

/// An hour, and a year, with something on top: the words of the evidence must not hang on a second.
const HOUR: SignedDuration = SignedDuration::from_secs(3_630);
const YEAR: SignedDuration = SignedDuration::from_secs(365 * 86_400 + 1_800);

#[tokio::test]
async fn a_clock_that_is_an_hour_fast() {
    check(Fault::Skew, -HOUR, "1 h 0 min ahead of").await;
}

#[tokio::test]
async fn a_clock_that_is_a_year_slow() {
    check(Fault::Skew, YEAR, "365 d 0 h behind").await;
}

#[tokio::test]
async fn a_clock_that_is_an_hour_fast_for_an_aws_that_minds() {
    check(Fault::SkewRefusing, -HOUR, "1 h 0 min ahead of").await;
}

#[tokio::test]
async fn a_clock_that_is_a_year_slow_for_an_aws_that_minds() {
    check(Fault::SkewRefusing, YEAR, "365 d 0 h behind").await;
}

#[tokio::test]
async fn the_time_that_aws_told_outlives_the_agent() {
    let mut field = Field::without_agent(plan()).await;
    field.aws.fault(Fault::Skew(HOUR), Times::UntilCleared);
    field.start_agent().await;
    until_stamped(&field, HOUR).await;
    let told = |report: &Value| is_of(at(report), HOUR);
    field.until("AWS's time", told).await;
    // As in a power cut, but for the boot: nothing is kept on the way out.
    field.kill().await;
    field.aws.go_offline().await;
    field.start_agent().await;
    let report = field.report().await;
    assert!(told(&report), "{}", report["at"]);
    let checked = field.sideline(&["check", "--json"]).await;
    let checked: Value = serde_json::from_str(&checked.out).expect("JSON");
    assert!(told(&checked), "{}", checked["at"]);
}
