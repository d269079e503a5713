//! What the world does to an agent: missing files, wrong files, servers that are not there.

use serde_json::Value;

use crate::cloud;
use crate::field::{Answer, Field};
use crate::mqtt::Client;
use crate::plan::{Plan, all_is_well, xid};

/// Exit status of what could not be done at all: the monitoring plugins' "unknown".
const COULD_NOT: Option<i32> = Some(3);

#[tokio::test]
async fn a_configuration_that_is_not_there_or_wrong_in_three_places() {
    let field = Field::without_agent(Plan::new()).await;
    let file = field.path("sideline.toml").display().to_string();
    let lines =
        |answer: &Answer| -> Vec<String> { answer.err.lines().map(str::to_owned).collect() };

    std::fs::remove_file(&file).expect("it was there");
    for command in ["run", "check", "status", "fit"] {
        let answer = field.sideline(&[command]).await;
        assert_eq!(answer.status, COULD_NOT, "{command}: {answer:?}");
        let expected =
            format!("sideline: {file} cannot be read: No such file or directory (os error 2)");
        assert_eq!(lines(&answer), [expected], "{command}");
        assert_eq!(answer.out, "");
    }

    field.write(
        "sideline.toml",
        "[node]\nslots = 0\n[host]\nevry = '1s'\n[gpu]\ndeadline = 'soon'\n",
    );
    let problems = [
        format!("{file}:2:9: node.slots must be 1 to 100000, is 0"),
        format!("{file}:4:1: unknown key \"evry\" in [host]; did you mean \"every\"?"),
        format!("{file}:6:12: "),
    ];
    for (command, status) in [
        (&["run"][..], COULD_NOT),
        (&["config", "check", &file], Some(1)),
    ] {
        let answer = field.sideline(command).await;
        assert_eq!(answer.status, status, "{command:?}: {answer:?}");
        let told = lines(&answer);
        assert_eq!(told.len(), 3, "{command:?}: {told:#?}");
        for (told, problem) in told.iter().zip(&problems) {
            let told = told.strip_prefix("sideline: ").unwrap_or(told);
            assert!(
                told.starts_with(problem),
                "{command:?}: {told} is not {problem}"
            );
        }
    }
    assert!(
        !field.path("run").exists() && !field.path("state").exists(),
        "nothing was begun"
    );
}

#[tokio::test]
async fn no_agent_and_two_agents() {
    let mut field = Field::without_agent(Plan::new()).await;
    let socket = field.socket().display().to_string();
    let nobody = |answer: Answer, status: i32| {
        assert_eq!(answer.status, Some(status), "{answer:?}");
        let line = format!("sideline: no agent answers at {socket} (");
        assert!(answer.err.starts_with(&line), "{}", answer.err);
        assert!(
            answer.err.contains("`sideline run` starts one"),
            "{}",
            answer.err
        );
        assert_eq!(answer.err.lines().count(), 1, "one line: {}", answer.err);
        assert_eq!(answer.out, "");
    };
    nobody(field.sideline(&["status"]).await, 3);
    nobody(field.sideline(&["status", "--json"]).await, 3);
    nobody(field.sideline(&["fit"]).await, 1);

    // The run folder is made; a socket that an earlier life left behind is no other agent.
    field.start_agent().await;
    field.kill().await;
    assert!(field.socket().exists());
    nobody(field.sideline(&["status"]).await, 3);
    field.start_agent().await;

    let second = field.sideline(&["run"]).await;
    assert_eq!(second.status, COULD_NOT, "{second:?}");
    let expected = format!("sideline: another agent answers at {socket}; stop it first");
    assert!(second.err.contains(&expected), "{}", second.err);
    // The first one is as it was.
    assert!(field.socket().exists());
    field.until_state("healthy").await;
}

#[tokio::test]
async fn a_broker_that_comes_late_gets_everything() {
    let mut field = Field::without_agent(Plan::new()).await;
    field.broker.kill();
    field.start_agent().await;
    let waits = |report: &Value| {
        let relay = &report["outlets"][1];
        let error = relay["error"].as_str().unwrap_or_default();
        report["findings"][0]["code"] == "ingest.down"
            && relay["state"] == "retrying"
            && error.contains("connection refused")
            && relay["pending"].as_u64() > Some(2)
    };
    let report = field.until("a node without a broker", waits).await;
    assert_eq!(report["verdict"]["state"], "degraded");
    assert_eq!(
        report["capacity"]["available"], 18,
        "the hardware carries them all"
    );
    assert_eq!(field.sideline(&["status"]).await.status, Some(1));
    assert_eq!(field.sideline(&["fit"]).await.status, Some(0));
    field.kernel_says(&xid(13));
    field
        .until("an Xid", |report| {
            report["findings"].as_array().map(Vec::len) == Some(2)
        })
        .await;

    field.broker.restart();
    let cloud = field.cloud().await;
    field.stats(all_is_well());
    field.until_state("healthy").await;
    let back = |event: &Value| {
        event["kind"] == "verdict" && event["state"] == "healthy" && event["was"] == "degraded"
    };
    cloud.message("health", "/event", back).await;
    let events = cloud.events();
    let numbers: Vec<u64> = events
        .iter()
        .filter_map(|event| event["seq"].as_u64())
        .collect();
    assert_eq!(
        numbers,
        (1..=numbers.len() as u64).collect::<Vec<_>>(),
        "{events:#?}"
    );
    field
        .until("relay", |report| {
            report["outlets"][1]["state"] == "ok" && report["outlets"][1]["pending"] == 0
        })
        .await;
}

#[tokio::test]
async fn a_broker_full_of_junk() {
    let field = Field::without_agent(Plan::new()).await;
    let vandal = Client::new(field.port(), "vandal");
    vandal
        .publish("frigate/stats", vec![b'{'; 1 << 20], true)
        .await;
    vandal
        .publish("frigate/hole01/status/detect", vec![0xff; 1 << 10], true)
        .await;
    vandal
        .publish("frigate/ /enabled/state", "PERHAPS", true)
        .await;
    let mut field = field;
    field.start_agent().await;
    field.until_state("healthy").await;
    vandal
        .publish("frigate/stats", "[".repeat(1 << 20), false)
        .await;
    vandal
        .publish(
            "frigate/stats",
            r#"{"cameras":{"a/b":{"camera_fps":1e999},"":{}}}"#,
            false,
        )
        .await;
    field.stats(all_is_well());
    let cameras = |report: &Value| {
        report["cameras"].as_array().map(Vec::len) == Some(18)
            && report["cameras"][0]["state"] == "up"
    };
    let report = field.until("18 cameras", cameras).await;
    assert_eq!(report["verdict"]["state"], "healthy");
    let words = field.log().matches("WARN").count();
    assert!(words <= 4, "junk fills no log:\n{}", field.log());
    assert!(field.stop().await.success());
}

#[tokio::test]
async fn a_registration_that_is_garbage_costs_only_the_name_it_would_have_given() {
    let mut plan = Plan::new().set("aws.region", "");
    plan.config["node"]
        .as_table_mut()
        .expect("a section")
        .remove("id");
    let field = Field::without_agent(plan.clone()).await;
    let mut field = field;
    field.write("registration", b"\x00\xff{\"ManagedInstanceID\":");
    field.start_agent().await;
    let report = field.until_state("healthy").await;
    assert_eq!(report["node"]["id"], report["node"]["hostname"]);
    assert_eq!(
        report["outlets"][0]["state"], "off",
        "no region, no CloudWatch"
    );
    assert!(field.log().contains("registration"), "{}", field.log());
    assert!(field.stop().await.success());

    field.write(
        "registration",
        r#"{"ManagedInstanceID":"mi-0123456789abcdef0","Region":"eu-west-1"}"#,
    );
    field.start_agent().await;
    let report = field.until_state("healthy").await;
    assert_eq!(report["node"]["id"], "mi-0123456789abcdef0");
    let log = field.aws.until(|log| !cloud::periods(log).is_empty()).await;
    let health = cloud::data(&log, "Health");
    assert_eq!(health[0].dimensions["Node"], "mi-0123456789abcdef0");
}
