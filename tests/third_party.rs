//! A third party's CloudWatch takes what the agent sends, and AWS's own SDK for Python reads it back.
//!
//! The double in `servers/` was written by the authors of the agent, from the same reading of the same documents:
//! ministack and boto3 were not.

#[path = "servers/fake_nvml.rs"]
mod fake_nvml;
#[expect(dead_code, reason = "the broker stays up here")]
#[path = "servers/mosquitto.rs"]
mod mosquitto;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use rumqttc::{AsyncClient, MqttOptions, QoS};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use mosquitto::Mosquitto;

/// Nothing here takes longer; a machine that is busy with other tests may need half of it.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the agent offers.
const SLOTS: f64 = 18.0;

/// Seconds of metrics that are read back.
const SECONDS: i64 = 4;

/// The profile `essential`: name, whether Node is a dimension, unit, and the values that can be.
const ESSENTIAL: [(&str, bool, &str, f64, f64); 12] = [
    ("Capacity", false, "Count", SLOTS, SLOTS),
    ("Health", true, "None", 0.0, 0.0),
    ("GpuUtilization", true, "Percent", 42.0, 42.0),
    ("GpuMemoryUsed", true, "Percent", 22.22, 22.24),
    ("GpuTemperature", true, "None", 58.0, 61.0),
    ("GpuFaults", true, "Count", 0.0, 0.0),
    ("CamerasUp", true, "Count", 18.0, 18.0),
    ("CameraFpsRatio", true, "None", 1.0, 1.02),
    ("CpuUtilization", true, "Percent", 0.0, 100.0),
    ("MemoryUsed", true, "Percent", 0.1, 100.0),
    ("DiskUsed", true, "Percent", 0.1, 100.0),
    ("OutboxAge", true, "Seconds", 0.0, 60.0),
];

#[tokio::test]
async fn a_third_party_understands_every_metric() {
    let python = venv("python");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (cloud, url) = soon("ministack", ministack(folder.path())).await;
    let addresses = listening(&cloud);
    assert!(
        !addresses.is_empty() && addresses.iter().all(|one| one.starts_with("127.0.0.1:")),
        "ministack listens beyond this machine: {addresses:?}"
    );
    let broker = Mosquitto::start();
    let _agent = soon("the agent", agent(folder.path(), &broker, &url)).await;
    let socket = folder.path().join("run/status.sock");

    let (from, to) = soon("a healthy node", reported(&socket, &broker)).await;
    let read = Command::new(python)
        .arg(root("tests/third_party/list_metrics.py"))
        .args([&url, &from.to_string(), &to.to_string()])
        .output();
    let read = soon("boto3", read).await.expect("python starts");
    let words = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "boto3 can't read: {words}");
    let read: Read = serde_json::from_slice(&read.stdout).expect("the script prints JSON");

    let listed: BTreeSet<_> = read.metrics.into_iter().collect();
    let expected: BTreeSet<_> = ESSENTIAL.iter().map(|row| metric(row.0, row.1)).collect();
    assert_eq!(listed, expected);
    for (name, _, unit, least, most) in ESSENTIAL {
        let points = &read.statistics[name];
        assert!(!points.is_empty(), "{name} has no values in {from}..{to}");
        for point in points {
            let low = least - 1e-6 <= point.minimum;
            let high = point.maximum <= most + 1e-6;
            assert!(low && high && point.unit == unit, "{name}: {point:?}");
        }
    }
    let both_cards = &read.statistics["GpuTemperature"];
    assert!(
        both_cards.iter().all(|point| {
            point.minimum == 58.0 && point.maximum == 61.0 && point.sample_count >= 2.0
        }),
        "every card is in one datum: {both_cards:?}"
    );
    // The sum is what the site can carry, the count how many nodes live: one node, one datum a period.
    let sums = &read.capacity["sum"];
    assert!(!sums.is_empty(), "no Capacity in {from}..{to}");
    assert!(sums.iter().all(|sum| *sum == SLOTS), "{sums:?}");
    let nodes = &read.capacity["samplecount"];
    assert!(nodes.iter().all(|count| *count == 1.0), "{nodes:?}");
}

/// What the script prints.
#[derive(Deserialize)]
struct Read {
    metrics: Vec<Metric>,
    statistics: BTreeMap<String, Vec<Point>>,
    capacity: BTreeMap<String, Vec<f64>>,
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Metric {
    namespace: String,
    name: String,
    dimensions: BTreeMap<String, String>,
}

/// One second of one metric.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Point {
    sample_count: f64,
    minimum: f64,
    maximum: f64,
    unit: String,
}

fn metric(name: &str, of_node: bool) -> Metric {
    let site = ("Site".to_owned(), "north".to_owned());
    let node = ("Node".to_owned(), "mi-0third".to_owned());
    Metric {
        namespace: "Sideline".into(),
        name: name.into(),
        dimensions: [site].into_iter().chain(of_node.then_some(node)).collect(),
    }
}

/// Plays Frigate until the node has been healthy and CloudWatch has taken some seconds of that: from when to when.
async fn reported(socket: &Path, broker: &Mosquitto) -> (i64, i64) {
    let frigate = frigate(broker);
    let stats = stats();
    let mut from = None;
    let mut span = None;
    let mut last = Value::Null;
    let ended = sideline::status::client::watch(socket, |report| {
        last.clone_from(report);
        // Frigate keeps nothing at the broker: who subscribes late hears the next one.
        frigate.try_publish("frigate/stats", QoS::AtMostOnce, false, stats.as_str())?;
        let at = second(&report["at"]).expect("a report has a time");
        if from.is_none() && is_healthy(report) {
            // The second that is being filled holds what was before.
            from = Some(at + 1);
        }
        let cloud = outlet(report, "cloudwatch");
        let sent = second(&cloud["last_success"]).filter(|_| cloud["pending"] == 0);
        span = from
            .zip(sent.map(|sent| sent - 1))
            .filter(|(from, to)| to - from >= SECONDS);
        anyhow::ensure!(span.is_none(), "enough");
        Ok(())
    });
    let ended = tokio::time::timeout(PATIENCE / 2, ended).await;
    span.unwrap_or_else(|| panic!("not healthy or not sent ({ended:?}): {last:#}"))
}

fn is_healthy(report: &Value) -> bool {
    let all = |list: &str, state: &str, count: usize| {
        let list = report[list].as_array().expect("a report has this list");
        list.len() == count && list.iter().all(|one| one["state"] == state)
    };
    report["verdict"]["state"] == "healthy" && all("cameras", "up", 18) && all("gpus", "ok", 2)
}

fn outlet<'a>(report: &'a Value, name: &str) -> &'a Value {
    let outlets = report["outlets"].as_array();
    let outlets = outlets.expect("a report has outlets");
    let named = outlets.iter().find(|outlet| outlet["name"] == name);
    named.expect("every outlet is listed")
}

fn second(time: &Value) -> Option<i64> {
    let time: Timestamp = time.as_str()?.parse().expect("RFC 3339");
    Some(time.as_second())
}

fn frigate(broker: &Mosquitto) -> AsyncClient {
    let url = broker.url();
    let (_, port) = url.rsplit_once(':').expect("a port");
    let mut options = MqttOptions::new("frigate", "127.0.0.1", port.parse().expect("a number"));
    options.set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut events) = AsyncClient::new(options, 64);
    tokio::spawn(async move { while events.poll().await.is_ok() {} });
    client
}

/// Frigate 0.17's statistics, with all cameras delivering.
fn stats() -> String {
    let text = include_str!("fixtures/frigate/stats-0.17.json");
    let mut stats: Value = serde_json::from_str(text).expect("the fixture is JSON");
    let cameras = stats["cameras"].as_object_mut().expect("cameras");
    for camera in cameras.values_mut().filter(|one| one["camera_fps"] == 0.0) {
        camera["camera_fps"] = json!(5.0);
    }
    stats.to_string()
}

/// A third party's AWS, and its address.
async fn ministack(folder: &Path) -> (Child, String) {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
        .port();
    let mut cloud = Command::new(venv("ministack"))
        // It would listen on every interface, and leave files in the home folder.
        .env("BIND_HOST", "127.0.0.1")
        .env("GATEWAY_PORT", port.to_string())
        // A broker of its own, on a port of everybody's.
        .env("IOT_MTLS_ENABLED", "0")
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("ministack starts");
    let log = cloud.stderr.take().expect("it is piped");
    let url = format!("http://127.0.0.1:{port}");
    until_it_says(log, &format!("Running on {url}")).await;
    (cloud, url)
}

/// The real agent, with two cards that only a library pretends.
async fn agent(folder: &Path, broker: &Mosquitto, cloud: &str) -> Child {
    let binary = Path::new(env!("CARGO_BIN_EXE_sideline"));
    let library = fake_nvml::library();
    let card = |celsius: u32| json!({"preset": "l4", "temperature": celsius});
    let cards = json!({"gpus": [card(61), card(58)]});
    let file = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("the temporary folder can be written");
    };
    file("gpus.json", &cards.to_string());
    file("kernel.log", "");
    let expected: String = (1..=18)
        .map(|hole| format!("hole{hole:02} = {{ fps = 5 }}\n"))
        .collect();
    // How this very machine does must not decide.
    let settings = format!(
        r#"
[node]
id = "mi-0third"
site = "north"
slots = {SLOTS}
[paths]
state = "{folder}/state"
run = "{folder}/run"
[host]
every = "1s"
[gpu]
every = "1s"
library = "{library}"
[kernel_log]
path = "{folder}/kernel.log"
[[cameras.source]]
kind = "frigate"
url = "{broker}"
[cameras.expect]
{expected}
[judge.rules]
"host.*" = "off"
[aws]
region = "eu-west-1"
ecs_agent = ""
[cloudwatch]
period = "1s"
"#,
        folder = folder.display(),
        library = library.display(),
        broker = broker.url(),
    );
    file("sideline.toml", &settings);
    let mut agent = Command::new(binary)
        .args(["run", "--config"])
        .arg(folder.join("sideline.toml"))
        .env("AWS_ENDPOINT_URL", cloud)
        .env("AWS_ACCESS_KEY_ID", "AKIAAGENT")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("FAKE_NVML_STATE", folder.join("gpus.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the agent starts");
    let log = agent.stderr.take().expect("it is piped");
    until_it_says(log, "started").await;
    agent
}

/// Reads a program's log until these words come; the rest is read away, so that it never waits for us.
async fn until_it_says(log: impl AsyncRead + Unpin + Send + 'static, words: &str) {
    let mut lines = BufReader::new(log).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await.expect("a log is text") {
        said += &line;
        said.push('\n');
        if line.contains(words) {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return;
        }
    }
    panic!("it ended before it said {words:?}:\n{said}");
}

/// Every address that a process takes TCP connections at, as /proc tells it.
fn listening(process: &Child) -> Vec<String> {
    const LISTEN: &str = "0A";
    let process = process.id().expect("it runs");
    let open = fs::read_dir(format!("/proc/{process}/fd")).expect("our own child");
    let open: BTreeSet<PathBuf> = open
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .collect();
    let sockets = ["tcp", "tcp6"].map(|kind| {
        let table = fs::read_to_string(format!("/proc/{process}/net/{kind}"));
        table.unwrap_or_default()
    });
    let lines = sockets.iter().flat_map(|table| table.lines());
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let ours = open.contains(Path::new(&format!("socket:[{inode}]")));
            (ours && *state == LISTEN).then(|| address.replacen("0100007F:", "127.0.0.1:", 1))
        })
        .collect()
}

/// A program of the private Python environment.
fn venv(program: &str) -> PathBuf {
    let path = root("target/venv/bin").join(program);
    assert!(path.exists(), "run tests/run once: it makes target/venv");
    path
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
