//! Stops, crashes, restarts and reloads: what each life tells of itself, and what it leaves to the next.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};
use sideline::domain::memory::Memory;
use sideline::domain::moment::{Moment, Now};
use sideline::store::{FILE, Keep, Limits, Store, inspect};

use crate::aws::{Fault, Log, Times};
use crate::cloud;
use crate::field::Field;
use crate::mqtt::Client;
use crate::plan::{CARDS, Plan, all_is_well, xid};

/// Checks that the journal's numbers have no hole, and that what came twice (QoS 1) is the same but for `hist`.
fn assert_whole(events: &[Value]) {
    let mut journal = BTreeMap::new();
    for event in events {
        let mut event = event.clone();
        event.as_object_mut().expect("an object").remove("hist");
        let number = event["seq"].as_u64().expect("a number");
        let first = journal.entry(number).or_insert_with(|| event.clone());
        assert_eq!(first, &event, "{events:#?}");
    }
    let (first, last) = (journal.keys().next(), journal.keys().next_back());
    let (first, last) = first.zip(last).expect("some event");
    assert!(journal.keys().copied().eq(*first..=*last), "{events:#?}");
}

/// Words of the status topic, oldest first; repetitions are left out.
fn presences(cloud: &Client) -> Vec<Value> {
    let mut all = cloud.messages();
    all.retain(|message| message.topic == "sideline/1/north/mi-0field/status");
    let mut all: Vec<Value> = all.iter().map(crate::mqtt::Message::json).collect();
    all.dedup();
    all
}

async fn status(cloud: &Client, word: &str) -> Value {
    cloud
        .message(word, "/status", |json| json["status"] == word)
        .await
}

/// Waits for a birth so many sessions after the first.
async fn born_again(cloud: &Client, first: &Value, later: u64) -> Value {
    let session = first["session"].as_u64().map(|session| session + later);
    let born = |json: &Value| json["status"] == "online" && json["session"].as_u64() == session;
    cloud
        .message(&format!("session {session:?}"), "/status", born)
        .await
}

/// What a client that subscribes now gets of a topic.
async fn retained(field: &Field, topic: &str) -> Value {
    let topic = format!("sideline/1/north/mi-0field/{topic}");
    let late = Client::subscribed(field.port(), "late", &topic).await;
    let messages = late.until(&topic, |all| !all.is_empty()).await;
    assert!(messages[0].retained);
    messages[0].json()
}

#[tokio::test]
async fn a_stop_is_orderly_and_leaves_nothing_untold() {
    let mut field = Field::start(Plan::new()).await;
    let cloud = field.cloud().await;
    let birth = status(&cloud, "online").await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    field.aws.until(|log| !cloud::periods(log).is_empty()).await;
    // The uplink is gone for a while: what it should have got waits.
    field.aws.fault(Fault::Unavailable, Times::UntilCleared);
    let waits = |report: &Value| {
        report["outlets"][0]["state"] == "retrying"
            && report["outlets"][0]["pending"].as_u64() >= Some(3)
    };
    let report = field.until("a backlog", waits).await;
    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    field.aws.clear_faults();
    assert!(field.stop().await.success(), "{}", field.log());
    let at = report["at"]
        .as_str()
        .and_then(|at| at.parse::<jiff::Timestamp>().ok());

    let stopped = retained(&field, "status").await;
    let expected =
        json!({"v": 1, "status": "stopped", "boot": birth["boot"], "session": birth["session"]});
    assert_eq!(stopped, expected);
    let last = |event: &Value| event["kind"] == "agent" && event["what"] == "stopped";
    cloud.message("the last event", "/event", last).await;
    assert_whole(&cloud.events());
    let log = field.aws.log();
    cloud::assert_no_gap(&log);
    let until = cloud::capacities(&log).into_keys().next_back();
    assert!(until >= at.map(|at| at.as_second() - 1), "{until:?} {at:?}");
    let health: Vec<f64> = cloud::data(&log, "Health")
        .iter()
        .map(|one| one.values[0])
        .collect();
    assert!(
        health.contains(&2.0),
        "the fault that was found during the outage: {health:?}"
    );
    assert!(!field.socket().exists(), "the socket is taken away");
    assert_eq!(field.sideline(&["status"]).await.status, Some(3));
}

#[tokio::test]
async fn a_farewell_knocks_at_a_closed_door_only_so_often() {
    let mut field = Field::start(Plan::new()).await;
    field.aws.until(|log| !cloud::periods(log).is_empty()).await;
    field.aws.fault(Fault::Unavailable, Times::UntilCleared);
    field.aws.until(|log| !log.refused.is_empty()).await;
    field.aws.clear();
    assert!(field.stop().await.success(), "{}", field.log());
    let knocks = field.aws.log().refused.len();
    assert!(knocks <= 10, "{knocks} requests in a farewell of 3 s");
}

#[tokio::test]
async fn a_crash_is_told_by_the_will_and_the_next_life_goes_on_where_it_was() {
    let mut field = Field::start(Plan::new()).await;
    let cloud = field.cloud().await;
    let birth = status(&cloud, "online").await;
    assert_eq!(birth["agent"], env!("CARGO_PKG_VERSION"));
    field.stats(all_is_well());
    field.until_state("healthy").await;
    field.kernel_says(&xid(79));
    field.until_state("failing").await;
    let nine = |log: &Log| cloud::capacities(log).values().any(|slots| *slots == 9.0);
    field.aws.until(nine).await;
    let failing = |event: &Value| event["kind"] == "verdict" && event["state"] == "failing";
    cloud.message("the verdict", "/event", failing).await;
    let before = field.report().await;

    // Nobody can say how the cameras do after the restart, so that unknown is there to be seen.
    field.silence_frigate().await;
    let idle = |report: &Value| report["outlets"][1]["pending"] == 0;
    field.until("all that happened was told", idle).await;
    field.kill().await;
    let lost = status(&cloud, "lost").await;
    assert_eq!(
        (&lost["boot"], &lost["session"]),
        (&birth["boot"], &birth["session"])
    );
    assert_eq!(retained(&field, "status").await, lost);
    field.aws.clear();

    field.start_agent().await;
    let newer = |json: &Value| {
        json["status"] == "online" && json["session"].as_u64() > birth["session"].as_u64()
    };
    cloud.message("a new birth", "/status", newer).await;
    // The fault outlives the agent: known at once, and counted once.
    let report = field.until_state("failing").await;
    assert_eq!(report["capacity"]["available"], 9);
    let findings = report["findings"].as_array().expect("findings");
    let xids: Vec<&Value> = findings
        .iter()
        .filter(|one| one["code"] == "gpu.xid.79")
        .collect();
    assert_eq!(xids.len(), 1, "{findings:#?}");
    assert_eq!(xids[0]["count"], 1, "{}", xids[0]);
    assert_eq!(xids[0]["subject"], format!("gpu:{}", CARDS[1]));
    assert!(before["seq"].as_u64() < report["seq"].as_u64());
    let log = field.aws.until(|log| cloud::periods(log).len() >= 2).await;
    let slots: Vec<f64> = cloud::capacities(&log).into_values().collect();
    assert!(
        slots.iter().all(|slots| *slots == 9.0),
        "never more in between: {slots:?}"
    );
    let verdict = |event: &Value| event["kind"] == "verdict" && event["was"] == "unknown";
    cloud
        .message("a verdict from unknown", "/event", verdict)
        .await;
    assert_whole(&cloud.events());
    let said: Vec<Value> = presences(&cloud)
        .iter()
        .map(|one| one["status"].clone())
        .collect();
    assert_eq!(said, ["online", "lost", "online"]);
}

#[tokio::test]
async fn a_restart_is_no_health_and_no_loss_of_capacity() {
    let mut field = Field::start(Plan::new()).await;
    let cloud = field.cloud().await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    field
        .aws
        .until(|log| cloud::capacities(log).values().any(|slots| *slots == 18.0))
        .await;
    field.silence_frigate().await;
    assert!(field.stop().await.success());
    field.aws.clear();

    field.start_agent().await;
    // Frigate is not heard: nothing is known, the last capacity holds, and new work is not taken.
    let log = field.aws.until(|log| cloud::periods(log).len() >= 2).await;
    let report = field.report().await;
    assert_eq!(report["verdict"]["state"], "unknown");
    assert_eq!(report["capacity"]["available"], 18);
    assert!(cloud::capacities(&log).values().all(|slots| *slots == 18.0));
    let health: Vec<f64> = cloud::data(&log, "Health")
        .iter()
        .map(|one| one.values[0])
        .collect();
    assert!(health.iter().all(|state| *state == 3.0), "{health:?}");
    assert_eq!(field.sideline(&["status"]).await.status, Some(3));
    assert_eq!(field.sideline(&["fit"]).await.status, Some(1));
    let health = retained(&field, "health").await;
    assert_eq!(
        (&health["state"], &health["available"]),
        (&json!("unknown"), &json!(18))
    );

    field.frigate_is_there();
    field.stats(all_is_well());
    field.until_state("healthy").await;
    assert_eq!(field.sideline(&["fit"]).await.status, Some(0));
    let healthy =
        |event: &Value| event["was"] == "unknown" && event["seq"].as_u64() > report["seq"].as_u64();
    cloud.message("health", "/event", healthy).await;
    assert_whole(&cloud.events());
}

#[tokio::test]
async fn a_hangup_applies_a_good_configuration_and_survives_a_bad_one() {
    let mut field = Field::start(Plan::new()).await;
    let cloud = field.cloud().await;
    let birth = status(&cloud, "online").await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    // One fault that the kernel tells of once, and one that is seen only as long as somebody looks.
    field.kernel_says(&xid(79));
    field.gpus(&crate::plan::cards(&json!({"lost": true})));
    let nine = |report: &Value| {
        report["capacity"]["available"] == 9
            && report["findings"].as_array().map(Vec::len) == Some(2)
    };
    field.until("9 of 18", nine).await;

    field.configure(&field.plan.clone().set("node.slots", 12));
    field.signal(Signal::HUP);
    field.says_in_log("the configuration was read again").await;
    let six = |report: &Value| {
        report["capacity"] == json!({"slots": 12, "available": 6, "because": "verdict"})
    };
    let report = field.until("6 of 12", six).await;
    assert_eq!(
        report["verdict"]["state"], "failing",
        "what was seen is not forgotten"
    );
    assert_eq!(report["findings"][0]["count"], 1);
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(2));

    field.write("sideline.toml", "[node]\nslots = 0\nsite = \n");
    field.signal(Signal::HUP);
    field
        .says_in_log("the old configuration stays in force")
        .await;
    let report = field.until("6 of 12", six).await;
    assert_eq!(report["node"]["site"], "north");
    let later = |log: &Log| cloud::capacities(log).values().next_back() == Some(&6.0);
    field.aws.until(later).await;

    // To those outside nothing has happened but what was changed.
    let events = cloud.events();
    assert!(
        events.iter().all(|event| event["kind"] != "finding_closed"),
        "{events:#?}"
    );
    let removed =
        |one: &crate::mqtt::Message| one.topic.contains("/cam/") && one.payload.is_empty();
    let removed: Vec<String> = cloud
        .messages()
        .into_iter()
        .filter(removed)
        .map(|one| one.topic)
        .collect();
    assert!(removed.is_empty(), "cameras were taken away: {removed:?}");

    // A connection whose settings did not change has lived on through both.
    assert_eq!(
        cloud
            .messages()
            .iter()
            .filter(|one| one.topic.ends_with("/status"))
            .count(),
        1
    );
    field.kill().await;
    let lost = status(&cloud, "lost").await;
    assert_eq!(lost["session"], birth["session"]);
    field.configure(&field.plan);
    field.start_agent().await;
    born_again(&cloud, &birth, 1).await;
    field.until("9 of 18", nine).await;
    assert_whole(&cloud.events());
}

/// Lets the agent have lived last in another boot: what it remembered is `memory`, and its last sign of life was so long
/// before this boot began.
async fn lived_before(field: &Field, memory: Memory, away: Duration) {
    let state = field.path("state");
    let up = std::fs::read_to_string("/proc/uptime").expect("the kernel tells");
    let up = up
        .split(' ')
        .next()
        .and_then(|up| up.parse().ok())
        .expect("seconds");
    let began = SystemTime::now() - Duration::from_secs_f64(up);
    let now = Now {
        moment: Moment::after_boot(Duration::from_secs(3600)),
        wall: Timestamp::try_from(began - away).expect("a time"),
        sure: true,
    };
    let limits = Limits {
        bytes: 64 << 20,
        age: Duration::from_secs(14 * 86_400),
    };
    let (store, _) = Store::open(&state, limits, &memory.boot, now)
        .await
        .expect("it opens");
    let events = Vec::new();
    let kept = store
        .keep(Keep {
            now,
            memory,
            events,
        })
        .expect("it lives");
    kept.await.expect("it is kept");
    drop(store);
    // Its thread ends by itself, and lets go of the folder.
    let lock = File::open(state.join("sideline.mark")).expect("it is there");
    lock.lock().expect("it can be had");
    for file in [FILE.to_owned(), format!("{FILE}-wal")] {
        if let Ok(file) = File::options().write(true).open(state.join(file)) {
            file.set_modified(began - away).expect("our own file");
        }
    }
}

#[tokio::test]
async fn a_restart_that_nobody_asked_for_is_told_and_a_wanted_one_is_not() {
    let mut field = Field::without_agent(Plan::new().judging(&["host.unclean_restart"])).await;
    field.stats(all_is_well());
    let restart = |report: &Value| {
        let findings = report["findings"].as_array()?;
        let found = findings
            .iter()
            .find(|one| one["code"] == "host.unclean_restart");
        found.cloned()
    };
    let other = Memory {
        boot: "other".to_owned(),
        ..Memory::default()
    };
    lived_before(&field, other, Duration::from_secs(330)).await;
    field.start_agent().await;
    let report = field
        .until("the restart", |report| restart(report).is_some())
        .await;
    let found = restart(&report).expect("it was just seen");
    assert_eq!(
        (&found["subject"], &found["severity"], &found["advice"]),
        (&json!("host"), &json!("info"), &json!("none"))
    );
    let evidence = found["evidence"].as_str().expect("words");
    assert!(
        evidence.starts_with("the server started again, 5 min "),
        "{evidence}"
    );
    // It is history, and costs nothing; an agent that starts again in the same boot tells the same.
    let report = field.until_state("healthy").await;
    assert_eq!(report["capacity"]["available"], 18);
    field.kill().await;
    field.start_agent().await;
    let report = field.until_state("healthy").await;
    let again = restart(&report).expect("it is remembered");
    assert_eq!(again["evidence"], found["evidence"], "told once");

    // Stopped before the machine was: nothing happened.
    assert!(field.stop().await.success(), "{}", field.log());
    let memory = inspect::memory(&field.path("state"));
    assert!(memory.stopped && memory.restarts.len() == 1, "{memory:?}");
    let wanted = |restarts| Memory {
        boot: "another".to_owned(),
        restarts,
        ..memory.clone()
    };
    lived_before(&field, wanted(Vec::new()), Duration::from_secs(60)).await;
    field.start_agent().await;
    let report = field.until_state("healthy").await;
    assert_eq!(restart(&report), None);
    assert!(field.stop().await.success(), "{}", field.log());
    // What came before an earlier boot says nothing of this one.
    let mut earlier = memory.restarts.clone();
    earlier[0].boot = "earlier".to_owned();
    lived_before(&field, wanted(earlier), Duration::from_secs(60)).await;
    field.start_agent().await;
    let report = field.until_state("healthy").await;
    assert_eq!(restart(&report), None);
}
