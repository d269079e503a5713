//! The field server of the demo: broker, cameras, GPUs, kernel log, and the real agent.

use std::cell::Cell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rumqttc::{AsyncClient, EventLoop, MqttOptions, QoS};
use serde_json::{Map, json};

use crate::fake_nvml;

/// One box in a shed.
pub(crate) struct Field {
    folder: tempfile::TempDir,
    port: u16,
    agent: Child,
    frigate: AsyncClient,
    pump: tokio::task::JoinHandle<()>,
    unplugged: Cell<bool>,
}

impl Field {
    pub(crate) async fn set_up(aws_url: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let library = fake_nvml::library();
        let port = start_broker()?;
        write_config(folder.path(), port, library)?;
        fs::write(folder.path().join("kernel.log"), "")?;
        write_gpus(folder.path(), &json!({}))?;
        let agent = start_agent(folder.path(), aws_url)?;
        let (frigate, events) = connect(port, "frigate");
        let pump = tokio::spawn(pump(events));
        frigate.try_publish("frigate/available", QoS::AtLeastOnce, true, "online")?;
        let field = Field {
            folder,
            port,
            agent,
            frigate,
            pump,
            unplugged: Cell::new(false),
        };
        tokio::task::yield_now().await;
        Ok(field)
    }

    /// A client for what the agent relays upstream; here it is the same broker.
    pub(crate) fn relay(&self) -> anyhow::Result<EventLoop> {
        let (client, events) = connect(self.port, "cloud");
        client.try_subscribe("sideline/#", QoS::AtLeastOnce)?;
        Ok(events)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/status.sock")
    }

    /// What Frigate 0.17 publishes, once a second here instead of once a minute.
    pub(crate) fn publish_stats(&self) -> anyhow::Result<()> {
        let cameras: Map<_, _> = (1..=18)
            .map(|hole| {
                let dark = self.unplugged.get() && hole == 7;
                let fps = if dark {
                    0.0
                } else {
                    24.0 + f64::from(hole % 3) / 2.0
                };
                (
                    format!("hole{hole:02}"),
                    json!({"camera_fps": fps, "process_fps": fps, "skipped_fps": 0.0}),
                )
            })
            .collect();
        let stats = json!({"cameras": cameras, "service": {"version": "0.17.2"}});
        self.frigate
            .try_publish("frigate/stats", QoS::AtMostOnce, false, stats.to_string())?;
        Ok(())
    }

    pub(crate) fn lose_a_gpu(&self) -> anyhow::Result<()> {
        write_gpus(self.folder.path(), &json!({"lost": true}))?;
        let mut log = OpenOptions::new()
            .append(true)
            .open(self.folder.path().join("kernel.log"))?;
        writeln!(
            log,
            "NVRM: Xid (PCI:0000:02:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
        )?;
        Ok(())
    }

    pub(crate) fn give_the_gpu_back(&self) -> anyhow::Result<()> {
        write_gpus(self.folder.path(), &json!({}))
    }

    pub(crate) fn unplug_a_camera(&self) -> anyhow::Result<()> {
        self.unplugged.set(true);
        Ok(())
    }

    pub(crate) fn check_agent(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.agent.try_wait()? {
            let log = fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default();
            bail!("the agent ended ({status}):\n{log}");
        }
        Ok(())
    }

    pub(crate) async fn tear_down(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.agent);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        // The agent's farewell goes through the double in this very runtime: it must not be blocked.
        let gone = tokio::task::spawn_blocking(move || self.agent.wait());
        let status = tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .context("the agent did not stop")???;
        self.pump.abort();
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }
}

fn write_config(folder: &Path, port: u16, library: &Path) -> anyhow::Result<()> {
    let config = format!(
        r#"
[node]
id = "mi-0demo"
site = "north-course"
slots = 18
[paths]
state = "{folder}/state"
run = "{folder}/run"
[host]
every = "2s"
[gpu]
every = "2s"
deadline = "1s"
library = "{library}"
[kernel_log]
path = "{folder}/kernel.log"
[[cameras.source]]
kind = "frigate"
url = "mqtt://127.0.0.1:{port}"
[cameras]
down_after = "3s"
[judge]
recover_after = "3s"
[aws]
region = "eu-west-1"
ecs_agent = ""
[cloudwatch]
period = "5s"
[relay]
url = "mqtt://127.0.0.1:{port}"
"#,
        folder = folder.display(),
        library = library.display(),
    );
    Ok(fs::write(folder.join("sideline.toml"), config)?)
}

/// Two cards; `second` changes the second one. Written beside and renamed: the library reads it at every call.
fn write_gpus(folder: &Path, second: &serde_json::Value) -> anyhow::Result<()> {
    let mut card =
        json!({"preset": "rtx4090", "pci_bus_id": "00000000:02:00.0", "temperature": 58});
    if let (Some(card), Some(changes)) = (card.as_object_mut(), second.as_object()) {
        card.extend(changes.clone());
    }
    let first = json!({"preset": "rtx4090", "pci_bus_id": "00000000:01:00.0", "temperature": 61});
    let fresh = folder.join("gpus.json.new");
    fs::write(&fresh, json!({"gpus": [first, card]}).to_string())?;
    Ok(fs::rename(fresh, folder.join("gpus.json"))?)
}

fn start_agent(folder: &Path, aws_url: &str) -> anyhow::Result<Child> {
    let log = fs::File::create(folder.join("agent.log"))?;
    Ok(Command::new(std::env::current_exe()?)
        .args(["run", "--config"])
        .arg(folder.join("sideline.toml"))
        .env("AWS_ENDPOINT_URL", aws_url)
        .env("AWS_ACCESS_KEY_ID", "AKIADEMO")
        .env("AWS_SECRET_ACCESS_KEY", "demo")
        .env("FAKE_NVML_STATE", folder.join("gpus.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?)
}

/// An MQTT broker in a thread of this program.
fn start_broker() -> anyhow::Result<u16> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let config: rumqttd::Config = serde_json::from_value(json!({
        "id": 0,
        "router": {"max_connections": 10, "max_outgoing_packet_count": 200,
            "max_segment_size": 1_048_576, "max_segment_count": 10},
        "v4": {"1": {"name": "demo", "listen": format!("127.0.0.1:{port}"), "next_connection_delay_ms": 1,
            "connections": {"connection_timeout_ms": 5000, "max_payload_size": 65_536, "max_inflight_count": 100}}},
    }))?;
    std::thread::spawn(move || {
        if let Err(error) = rumqttd::Broker::new(config).start() {
            eprintln!("demo: the broker ended: {error}");
        }
    });
    Ok(port)
}

fn connect(port: u16, name: &str) -> (AsyncClient, EventLoop) {
    AsyncClient::new(MqttOptions::new(name, "127.0.0.1", port), 64)
}

/// Keeps a connection going, and comes back when the broker was not up yet.
async fn pump(mut events: EventLoop) {
    loop {
        if events.poll().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
