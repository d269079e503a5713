//! A field server in a folder: broker, Frigate, cards, kernel log, AWS, and the real agent among them.
#![allow(dead_code, reason = "the latency benchmark uses a part of it")]

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::aws::Aws;
use crate::fake_nvml::library;
use crate::mosquitto::Mosquitto;
use crate::mqtt::{self, Client, Says};
use crate::plan::Plan;

/// No condition here takes longer; most take milliseconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
const SIDELINE: &str = env!("CARGO_BIN_EXE_sideline");

/// Stands in the log before what each life of the agent says.
const LIFE: &str = "=== a life begins\n";

/// Of a longer log the oldest lives are forgotten when a new one begins.
const LOG_BYTES: usize = 4 << 20;

/// A field server. Dropping it ends everything.
pub(crate) struct Field {
    agent: Option<Child>,
    frigate: JoinHandle<()>,
    says: watch::Sender<Says>,
    log: watch::Sender<String>,
    pub(crate) plan: Plan,
    pub(crate) broker: Mosquitto,
    pub(crate) aws: Aws,
    folder: TempDir,
}

/// What a command of `sideline` answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Field {
    /// Everything is there and the agent runs; Frigate is there, but says nothing of cameras yet.
    pub(crate) async fn start(plan: Plan) -> Self {
        let mut field = Field::without_agent(plan).await;
        field.start_agent().await;
        field
    }

    /// Everything but the agent.
    pub(crate) async fn without_agent(plan: Plan) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let broker = Mosquitto::start();
        let (says, heard) = watch::channel(Says {
            available: Some("online"),
            stats: None,
        });
        let field = Field {
            agent: None,
            frigate: tokio::spawn(mqtt::frigate(port(&broker), heard)),
            says,
            log: watch::Sender::new(String::new()),
            plan,
            broker,
            aws: Aws::start().await,
            folder,
        };
        field.write("kernel.log", "");
        field.gpus(&field.plan.gpus);
        field.configure(&field.plan);
        field
    }

    /// Starts the agent, and waits until it says so.
    pub(crate) async fn start_agent(&mut self) {
        self.launch_agent();
        self.says_in_log(" started").await;
    }

    /// Starts the agent.
    pub(crate) fn launch_agent(&mut self) {
        self.log.send_modify(|log| {
            while log.len() > LOG_BYTES
                && let Some(second) = log[LIFE.len()..].find(LIFE)
            {
                log.drain(..LIFE.len() + second);
            }
            log.push_str(LIFE);
        });
        let mut agent = self
            .command(&["run"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = agent.stderr.take().expect("it is piped");
        let log = self.log.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(lines).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                log.send_modify(|log| *log += &format!("{line}\n"));
            }
        });
        self.agent = Some(agent);
    }

    /// Runs `sideline` with these arguments to its end.
    pub(crate) async fn sideline(&self, arguments: &[&str]) -> Answer {
        answer(self.command(arguments), arguments).await
    }

    /// The same as another user, a member of `group`; only root can.
    pub(crate) async fn sideline_as(&self, user: u32, group: u32, arguments: &[&str]) -> Answer {
        let mut command = self.command(arguments);
        command.uid(user).gid(group);
        answer(command, arguments).await
    }

    /// `sideline` with these arguments, as the agent is started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(SIDELINE);
        command
            .arg("--config")
            .arg(self.path("sideline.toml"))
            .args(arguments)
            .env_clear()
            .env("FAKE_NVML_STATE", self.path("gpus.json"))
            .env("AWS_ENDPOINT_URL", self.aws.url())
            .envs(self.plan.environment.clone())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Writes a configuration; the agent reads it at its start and on HUP.
    pub(crate) fn configure(&self, plan: &Plan) {
        let text = toml::to_string(&plan.config).expect("a table is TOML");
        let text = text
            .replace("{folder}", &self.folder.path().display().to_string())
            .replace("{library}", &library().display().to_string())
            .replace("{port}", &self.port().to_string())
            .replace("{aws}", &self.aws.url());
        self.write("sideline.toml", text);
    }

    /// Lets the Frigate say this of its cameras from now on.
    pub(crate) fn stats(&self, stats: impl Into<String>) {
        self.says
            .send_modify(|says| says.stats = Some(stats.into()));
    }

    /// Lets the Frigate say nothing, and the broker forget that it ever said something.
    pub(crate) async fn silence_frigate(&self) {
        let topic = "frigate/available";
        let listener = Client::subscribed(self.port(), "silence", topic).await;
        self.says.send_replace(Says::default());
        let cleared = |all: &[mqtt::Message]| all.iter().any(|one| one.payload.is_empty());
        listener.until("silence", cleared).await;
    }

    /// Lets the Frigate say that it is there, and nothing of cameras.
    pub(crate) fn frigate_is_there(&self) {
        self.says
            .send_modify(|says| says.available = Some("online"));
    }

    /// The cards from now on. Renamed into place: the library reads it at every call.
    pub(crate) fn gpus(&self, state: &Value) {
        self.write("gpus.json.new", state.to_string());
        fs::rename(self.path("gpus.json.new"), self.path("gpus.json")).expect("renamed");
    }

    /// Adds a line to the kernel log.
    pub(crate) fn kernel_says(&self, line: &str) {
        let mut log = OpenOptions::new()
            .append(true)
            .open(self.path("kernel.log"))
            .expect("it is there");
        // One write, as the kernel's log grows.
        let line = format!("{line}\n");
        log.write_all(line.as_bytes()).expect("written");
    }

    /// The report of now.
    pub(crate) async fn report(&self) -> Value {
        match sideline::status::client::report(&self.socket()).await {
            Ok(report) => report,
            Err(error) => panic!("no report: {error:#}\n{}", self.log()),
        }
    }

    /// Follows the reports until one is so, and returns it.
    pub(crate) async fn until(&self, what: &str, is_so: impl FnMut(&Value) -> bool) -> Value {
        self.until_within(PATIENCE, what, is_so).await
    }

    /// As [`Field::until`], for what takes its time.
    pub(crate) async fn until_within(
        &self,
        patience: Duration,
        what: &str,
        mut is_so: impl FnMut(&Value) -> bool,
    ) -> Value {
        let last = RefCell::new(Value::Null);
        let mut reached = false;
        let follow = sideline::status::client::watch;
        let socket = self.socket();
        let follow = follow(&socket, |report| {
            last.replace(report.clone());
            reached = is_so(report);
            anyhow::ensure!(!reached, "that is it");
            Ok(())
        });
        let ended = tokio::time::timeout(patience, follow).await;
        let last = last.into_inner();
        if !reached {
            let how = ended.map_or_else(|_| format!("{patience:?}"), |ended| format!("{ended:?}"));
            panic!(
                "waited in vain for {what} ({how}); the last report:\n{last:#}\nthe log:\n{}",
                self.log()
            );
        }
        last
    }

    /// Waits for a verdict.
    pub(crate) async fn until_state(&self, state: &str) -> Value {
        self.until(state, |report| report["verdict"]["state"] == state)
            .await
    }

    /// What the agent has logged in its latest life.
    pub(crate) fn log(&self) -> String {
        latest_life(&self.log.borrow()).to_owned()
    }

    /// All that all lives of the agent have logged, but for the oldest of very many.
    pub(crate) fn whole_log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until this stands in the log of the latest life.
    pub(crate) async fn says_in_log(&self, words: &str) {
        let mut log = self.log.subscribe();
        let said = log.wait_for(|log| latest_life(log).contains(words));
        let said = tokio::time::timeout(PATIENCE, said).await.is_ok();
        assert!(said, "{words:?} was never logged:\n{}", self.log());
    }

    /// The agent's process.
    pub(crate) fn pid(&self) -> u32 {
        let agent = self.agent.as_ref().and_then(Child::id);
        agent.expect("the agent runs")
    }

    /// Sends the agent a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.pid()).ok();
        let pid = id.and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("the agent runs");
        rustix::process::kill_process(pid, signal).expect("our own child");
    }

    /// Waits for the agent's end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut agent = self.agent.take().expect("the agent runs");
        let ended = tokio::time::timeout(PATIENCE, agent.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("the agent does not end:\n{}", self.log()));
        ended.expect("our own child")
    }

    /// Stops the agent as systemd does, and returns how it ended.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    /// Ends the agent as a power cut would.
    pub(crate) async fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.ended().await;
    }

    /// A client that hears what the agent relays, from what is retained on.
    pub(crate) async fn cloud(&self) -> Client {
        Client::subscribed(self.port(), "cloud", "sideline/#").await
    }

    /// The broker's port.
    pub(crate) fn port(&self) -> u16 {
        port(&self.broker)
    }

    /// A path below the server's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file below the server's folder.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("written");
    }

    /// The agent's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/status.sock")
    }

    /// `GET path` on the socket: the status line and headers, and the body.
    pub(crate) async fn get(&self, path: &str) -> (String, String) {
        let exchange = async {
            let mut stream = UnixStream::connect(self.socket()).await?;
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        let answer = answer.expect("in time").expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        self.frigate.abort();
    }
}

async fn answer(mut command: Command, arguments: &[&str]) -> Answer {
    let run = command.output();
    let run = tokio::time::timeout(PATIENCE, run).await;
    let output = run
        .unwrap_or_else(|_| panic!("sideline {arguments:?} does not end"))
        .expect("the program starts");
    Answer {
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn port(broker: &Mosquitto) -> u16 {
    let url = broker.url();
    let port = url.rsplit(':').next().expect("a port");
    port.parse().expect("a number")
}

fn latest_life(log: &str) -> &str {
    log.rsplit_once(LIFE).map_or(log, |(_, latest)| latest)
}
