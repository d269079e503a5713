//! A set-up in which all is well, to be broken: a system in a folder, AWS, a broker, cards, and the program.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::aws::Aws;
use crate::aws::ecs::Cluster;
use crate::fake_nvml::library;
use crate::mosquitto::Mosquitto;

/// The program under test.
const SIDELINE: &str = env!("CARGO_BIN_EXE_sideline");

/// Doctor promises 20 s; a machine that runs all tests at once gets more.
const PATIENCE: Duration = Duration::from_secs(60);

/// The identities that the fake library gives its cards.
pub(crate) const CARDS: [&str; 2] = [
    "GPU-00000001-5ced-4e11-8e5c-000000000001",
    "GPU-00000002-5ced-4e11-8e5c-000000000002",
];

/// What the fake library calls its driver.
const DRIVER: &str = "550.90.07";

const CONFIG: &str = r#"
[node]
site = "north"
slots = 18
[paths]
state = "{folder}/state"
run = "{folder}/run"
[gpu]
library = "{library}"
[kernel_log]
path = "{folder}/kernel.log"
[[cameras.source]]
kind = "frigate"
url = "{broker}"
[aws]
registration = "{folder}/ssm/registration"
credentials = "{folder}/credentials"
ecs_agent = "{aws}"
[relay]
url = "{broker}"
[ssm]
parameters = ["/sideline/fleet"]
[failover]
mode = "drain"
[ups]
enabled = "never"
[outbox]
max_bytes = "1MiB"
"#;

/// A systemctl that prints what stands in a file named like the unit.
const SYSTEMCTL: &str = "#!/bin/sh\nfor word; do [ -e \"{root}/units/$word\" ] && cat \"{root}/units/$word\"; done; exit 0\n";

/// A unit that is as the package has it.
pub(crate) const UNIT: &str = "LoadState=loaded\nActiveState=active\nSubState=running\nResult=success\n\
    UnitFileState=enabled\nNRestarts=0\nNeedDaemonReload=no\nProtectSystem=strict\n\
    CapabilityBoundingSet=\nStandardInput=file\n";

/// A set-up.
pub(crate) struct Setup {
    folder: TempDir,
    pub(crate) aws: Aws,
    pub(crate) broker: Mosquitto,
    pub(crate) config: String,
    pub(crate) environment: Vec<(String, String)>,
    /// As what user doctor runs; `None`: as we do.
    pub(crate) user: Option<u32>,
}

impl Setup {
    /// One in which all is well, but that no agent runs.
    pub(crate) async fn new() -> Self {
        let setup = Setup {
            folder: tempfile::tempdir().expect("a temporary folder"),
            aws: Aws::start().await,
            broker: Mosquitto::start(),
            config: CONFIG.to_owned(),
            environment: Vec::new(),
            user: None,
        };
        let mut cluster = Cluster::named("field");
        let arn = cluster.register("0123456789abcdef0123456789abcdef");
        setup.aws.serve_cluster(cluster, &arn);
        for (file, text) in [
            ("kernel.log", ""),
            (
                "state/settings.json",
                "{\"version\":1,\"good\":[{\"name\":\"/sideline/fleet\",\"version\":3,\"value\":\"\"}],\"trial\":null,\"refused\":[]}",
            ),
            (
                "root/etc/passwd",
                "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
            ),
            ("root/etc/group", "root:x:0:\nsideline:x:998:ann\n"),
            (
                "root/etc/ecs/ecs.config",
                "ECS_CLUSTER=field\nECS_ENABLE_GPU_SUPPORT=true\n",
            ),
            ("root/run/systemd/system/.keep", ""),
            ("root/sys/module/nvidia/version", "550.90.07\n"),
            ("root/dev/nvidiactl", ""),
            ("root/dev/nvidia0", ""),
            ("root/dev/nvidia1", ""),
            ("root/units/sideline.service", UNIT),
            (
                "root/units/amazon-ssm-agent.service",
                "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\n",
            ),
            (
                "ssm/registration",
                "{\"ManagedInstanceID\":\"mi-0123456789abcdef0\",\"Region\":\"eu-west-1\"}",
            ),
        ] {
            setup.write(file, text);
        }
        let root = setup.path("root").display().to_string();
        setup.program("systemctl", &SYSTEMCTL.replace("{root}", &root));
        setup.program(
            "amazon-ssm-agent",
            "#!/bin/sh\necho SSM Agent version: 3.3.1345.0\n",
        );
        setup.program("journalctl", "#!/bin/sh\necho a line of the journal\n");
        setup.cards(&json!({"gpus": [{"preset": "l4"}, {"preset": "rtx4090"}]}));
        setup.ecs_believes_in(&CARDS, DRIVER);
        setup.credentials("ASIAFIELD", Some("a-token-of-the-field"));
        setup.renewed(SignedDuration::from_mins(10), SignedDuration::from_mins(50));
        setup.mode("state/settings.json", 0o600);
        setup.mode("state", 0o700);
        setup
    }

    /// A file of the set-up.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with its folders.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        let folder = path.parent().expect("it is in a folder");
        fs::create_dir_all(folder).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    /// Takes a file or a folder away.
    pub(crate) fn remove(&self, name: &str) {
        let path = self.path(name);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("a folder");
        } else {
            fs::remove_file(path).expect("a file");
        }
    }

    /// Sets who may do what with a file.
    pub(crate) fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).expect("a file of ours");
    }

    /// Puts a program into the system.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let file = format!("root/usr/bin/{name}");
        self.write(&file, script);
        self.mode(&file, 0o755);
    }

    /// Changes a word of a unit.
    pub(crate) fn unit(&self, from: &str, to: &str) {
        assert!(UNIT.contains(from), "{from} is not in the unit");
        self.write("root/units/sideline.service", &UNIT.replace(from, to));
    }

    /// What the cards are: the fake library's state.
    pub(crate) fn cards(&self, state: &Value) {
        self.write("gpus.json", &state.to_string());
    }

    /// What ecs-init has written when it started.
    pub(crate) fn ecs_believes_in(&self, cards: &[&str], driver: &str) {
        let belief = json!({"DriverVersion": driver, "GPUIDs": cards});
        self.write(
            "root/var/lib/ecs/gpu/nvidia-gpu-info.json",
            &belief.to_string(),
        );
    }

    /// Writes the credentials' file, as old as one that is whole.
    pub(crate) fn credentials(&self, key: &str, token: Option<&str>) {
        let token = token.map_or_else(String::new, |token| {
            format!("aws_session_token = {token}\n")
        });
        let text = format!(
            "[default]\naws_access_key_id = {key}\naws_secret_access_key = secret-key-of-the-field\n{token}"
        );
        self.write("credentials", &text);
        self.mode("credentials", 0o600);
        let file = fs::File::options()
            .append(true)
            .open(self.path("credentials"));
        let minute_ago = std::time::SystemTime::now() - Duration::from_secs(60);
        let file = file.expect("it was just written");
        file.set_modified(minute_ago).expect("a file of ours");
    }

    /// What the SSM agent says of its last renewal: so long ago, and good for so much longer.
    pub(crate) fn renewed(&self, ago: SignedDuration, left: SignedDuration) {
        let now = Timestamp::now();
        let note = json!({
            "ShareFile": self.path("credentials"),
            "CredentialsRetrievedAt": now - ago,
            "CredentialsExpiresAt": now + left,
        });
        self.write("ssm/runtimeconfig/identity_config.json", &note.to_string());
    }

    /// Replaces a part of the configuration.
    pub(crate) fn set(&mut self, from: &str, to: &str) {
        assert!(
            self.config.contains(from),
            "{from} is not in the configuration"
        );
        self.config = self.config.replace(from, to);
    }

    /// Writes the configuration, and returns `sideline` with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let text = self
            .config
            .replace("{folder}", &self.folder.path().display().to_string())
            .replace("{library}", &library().display().to_string())
            .replace("{broker}", &self.broker.url())
            .replace("{aws}", &self.aws.url());
        self.write("sideline.toml", &text);
        let mut command = Command::new(SIDELINE);
        command
            .arg("--config")
            .arg(self.path("sideline.toml"))
            .args(arguments)
            .env_clear()
            .env("FAKE_NVML_STATE", self.path("gpus.json"))
            .env("AWS_ENDPOINT_URL", self.aws.url())
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Runs doctor with these arguments; its exit status, and what it printed.
    pub(crate) async fn doctor(&self, arguments: &[&str]) -> (i32, String, String) {
        let root = self.path("root");
        let root = root.to_str().expect("a path in UTF-8");
        let mut command = self.command(&["doctor", "--root", root]);
        let run = command.args(arguments).output();
        let ended = tokio::time::timeout(PATIENCE, run).await;
        let output = ended.expect("doctor ends").expect("the program starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let status = output.status.code().expect("no signal ends it");
        (status, text(&output.stdout), text(&output.stderr))
    }

    /// What doctor finds, and its exit status.
    pub(crate) async fn examine(&self) -> (i32, Value) {
        let (status, out, err) = self.doctor(&["--json"]).await;
        let found = serde_json::from_str(&out);
        (
            status,
            found.unwrap_or_else(|why| panic!("{why}: {out}{err}")),
        )
    }

    /// Starts an agent, and waits until it has a report. It is killed when it is dropped.
    pub(crate) async fn start_agent(&self) -> Child {
        self.start_agent_in(&[]).await
    }

    /// The same through a program that starts it, such as `unshare`.
    pub(crate) async fn start_agent_in(&self, wrapper: &[&str]) -> Child {
        let bare = self.command(&["run"]);
        let bare = bare.as_std();
        let mut words = wrapper.iter().map(OsStr::new).chain([bare.get_program()]);
        let mut command = Command::new(words.next().expect("the program at least"));
        let agent = command
            .args(words)
            .args(bare.get_args())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(
                bare.get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let answers = async {
            // Each look is a program of its own, which is pause enough.
            while !self.is_answered().await {}
        };
        tokio::time::timeout(PATIENCE, answers)
            .await
            .expect("the agent answers");
        agent
    }

    async fn is_answered(&self) -> bool {
        let asked = self.command(&["status", "--json"]).output().await;
        asked.is_ok_and(|output| {
            serde_json::from_slice::<Value>(&output.stdout)
                .is_ok_and(|report| report["seq"].is_u64())
        })
    }
}

/// A path below another, as text.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
