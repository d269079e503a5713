//! Passwords of brokers and cameras, and AWS keys, stay where they were written.

use std::os::unix::process::ExitStatusExt;

use serde_json::Value;

use crate::field::{Field, PATIENCE};
use crate::plan::{Plan, xid};

const STATS: [&str; 5] = [
    include_str!("../fixtures/frigate/stats-0.8.json"),
    include_str!("../fixtures/frigate/stats-0.12.json"),
    include_str!("../fixtures/frigate/stats-0.13.json"),
    include_str!("../fixtures/frigate/stats-0.17.json"),
    include_str!("../fixtures/frigate/stats-0.18.json"),
];

/// In the brokers' addresses, in the cameras' addresses within Frigate's stats, and of AWS.
const SECRETS: [&str; 4] = [
    "br0ker-s3cret",
    "upstr3am-s3cret",
    "fixture-s3cret",
    "secret-key-of-the-field",
];

#[tokio::test]
async fn no_password_is_ever_told() {
    let upstream = "mqtt://node:upstr3am-s3cret@127.0.0.1:{port}";
    let mut plan = Plan::new().set("relay.url", upstream).expecting_cameras();
    plan.config["cameras"]["source"][0]["url"] =
        "mqtt://viewer:br0ker-s3cret@127.0.0.1:{port}".into();
    plan.environment
        .push(("SIDELINE_LOG".to_owned(), "trace".to_owned()));
    assert!(STATS.iter().any(|stats| stats.contains("fixture-s3cret")));

    let mut field = Field::start(plan).await;
    let cloud = field.cloud().await;
    let mut told = Vec::new();
    for (number, stats) in (1..).zip(STATS) {
        field.stats(stats);
        // A line of each version's, so that the next one is waited for.
        field.kernel_says(&xid(number));
        let all = |report: &Value| {
            report["cameras"].as_array().map(Vec::len) == Some(18)
                && report["findings"]
                    .to_string()
                    .contains(&format!("gpu.xid.{number}"))
        };
        told.push(field.until("18 cameras", all).await.to_string());
    }
    // Trouble makes talkative: a broker that goes, keys that are refused, a configuration that is wrong.
    field.aws.revoke_key("AKIAFIELD");
    let refused = |report: &Value| report["outlets"][0]["state"] == "retrying";
    told.push(field.until("refused keys", refused).await.to_string());
    told.extend(field.aws.log().refused.iter().map(|one| format!("{one:?}")));
    told.extend(
        cloud
            .messages()
            .iter()
            .map(|one| format!("{} {}", one.topic, one.json())),
    );
    field.broker.kill();
    let gone = |report: &Value| report["outlets"][1]["state"] == "retrying";
    told.push(field.until("no broker", gone).await.to_string());
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["check", "--json"],
        &["config", "show"],
        &["config", "show", "--json"],
    ] {
        let answer = field.sideline(command).await;
        told.push(format!("{command:?} {} {}", answer.out, answer.err));
    }
    for path in ["/v1/report", "/metrics", "/v1/fit"] {
        told.push(field.get(path).await.1);
    }
    for wrong in [
        "mqtt://viewer:br0ker-s3cret@",
        "http://viewer:br0ker-s3cret@127.0.0.1",
    ] {
        let mut plan = field.plan.clone();
        plan.config["cameras"]["source"][0]["url"] = wrong.into();
        field.configure(&plan);
        let file = field.path("sideline.toml").display().to_string();
        let answer = field.sideline(&["config", "check", &file]).await;
        told.push(format!("{} {}", answer.out, answer.err));
    }
    let log = field.aws.log();
    told.extend(log.requests.iter().map(|one| format!("{one:?}")));
    told.extend(log.calls.iter().map(|one| format!("{one:?}")));
    // Also what the disk keeps, before and after it is tidied up.
    told.extend(kept(&field));
    field.stop().await;
    let log = field.whole_log();
    assert!(log.contains("TRACE"), "the log is as talkative as can be");
    told.push(log);
    let kept = kept(&field);
    assert!(!kept.is_empty(), "something is kept");
    told.extend(kept);

    assert!(
        told.iter().any(|text| text.contains("hole07")),
        "something was told at all"
    );
    for secret in SECRETS {
        let leaks = told.iter().filter_map(|text| {
            let at = text.find(secret)?;
            let from = text.floor_char_boundary(at.saturating_sub(200));
            text.get(from..at + secret.len())
        });
        let leaks: Vec<&str> = leaks.collect();
        assert!(leaks.is_empty(), "{secret} is told: {leaks:#?}");
    }
}

/// A crash leaves no keys in a file, whatever the limits of who started the agent.
#[tokio::test]
async fn neither_agent_nor_probe_leaves_a_core_dump() {
    let folder = tempfile::tempdir().unwrap();
    let sideline = env!("CARGO_BIN_EXE_sideline");
    let config = folder.path().join("sideline.toml");
    let paths = folder.path().display();
    std::fs::write(
        &config,
        format!("[paths]\nstate = '{paths}'\nrun = '{paths}'\n"),
    )
    .unwrap();
    let agent = ["--config", config.to_str().unwrap(), "run"];
    // The first shows that one would be left here.
    for (program, arguments, comm, dumps) in [
        ("/bin/cat", &[][..], "cat", true),
        (sideline, &agent, "sideline", false),
        (sideline, &["probe", "gpus"], "sideline-probe", false),
    ] {
        let mut process = tokio::process::Command::new("prlimit")
            .arg("--core=unlimited")
            .arg(program)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let id = process.id().unwrap();
        let socket = folder.path().join("status.sock");
        let runs = || {
            let named = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap();
            named.trim() == comm && (comm != "sideline" || socket.exists())
        };
        let running = async {
            while !runs() {
                tokio::task::yield_now().await;
            }
        };
        let running = tokio::time::timeout(PATIENCE, running).await;
        assert!(running.is_ok(), "{program} {arguments:?} runs");
        let pid = rustix::process::Pid::from_raw(id.cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
        let status = process.wait().await.unwrap();
        assert_eq!(
            status.core_dumped(),
            dumps,
            "{program} {arguments:?} {status}"
        );
    }
}

/// The files in the state folder.
fn kept(field: &Field) -> Vec<String> {
    let files = std::fs::read_dir(field.path("state")).expect("it is there");
    files
        .flatten()
        .filter_map(|file| std::fs::read(file.path()).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}
