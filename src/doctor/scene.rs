//! What every check looks at: the settings, who the node is, and what the running agent says.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::clients::aws::Connections;
use crate::clients::credentials::NodeCredentials;
use crate::clock::Clock;
use crate::collect::identity::{self, Identity};
use crate::collect::program::{Program, Ran, run, words};
use crate::config::{self, Config, Enabled, FailoverMode};
use crate::status::client;

/// The agent answers at once, or is busy with something that is a finding by itself.
const ANSWER: Duration = Duration::from_secs(3);

/// No program that is asked takes longer.
const PROGRAM: Duration = Duration::from_secs(8);

/// What is read of a small file.
const LONGEST_FILE: u64 = 1 << 20;

/// What is to be examined.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The configuration in force, or the defaults where the file is wrong.
    pub config: Config,
    /// The file it was read from, if there is one.
    pub file: Option<PathBuf>,
    /// What is wrong with the file: a line each.
    pub wrong: Option<String>,
    /// Where the agent listens.
    pub socket: PathBuf,
    /// Where the system's own folders (/proc, /sys, /dev, /etc, /usr, /var) are; what the configuration names is not
    /// below it.
    pub root: PathBuf,
}

impl Subject {
    /// What the agent knows of itself.
    pub(super) fn inside(config: Config) -> Self {
        Subject {
            config,
            file: None,
            wrong: None,
            socket: PathBuf::new(),
            root: "/".into(),
        }
    }
}

/// The subject, and what all checks need to know of it.
pub(super) struct Scene {
    pub(super) config: Config,
    pub(super) file: Option<PathBuf>,
    pub(super) wrong: Option<String>,
    pub(super) socket: PathBuf,
    root: PathBuf,
    pub(super) identity: Identity,
    /// What is wrong with who the node is.
    pub(super) problems: Vec<String>,
    pub(super) clock: Clock,
    pub(super) credentials: NodeCredentials,
    pub(super) connections: Connections,
    /// The running agent's report, or why there is none.
    pub(super) report: Result<Value, String>,
}

impl Scene {
    /// Asks the agent first: some checks lean on its report.
    pub(super) async fn set(subject: Subject) -> Self {
        let asked = timeout(ANSWER, client::report(&subject.socket)).await;
        let report = match asked {
            Ok(Ok(report)) => Ok(report),
            Ok(Err(error)) => Err(format!("{error:#}")),
            Err(_) => Err(format!("the agent does not answer within {ANSWER:?}")),
        };
        Scene {
            report,
            ..Scene::alone(subject)
        }
    }

    /// Without asking anybody.
    pub(super) fn alone(subject: Subject) -> Self {
        let (identity, problems) = identity::read(&subject.config, environment);
        let clock = Clock::start(None);
        Scene {
            credentials: NodeCredentials::new(&subject.config.aws, environment, clock.clone()),
            config: subject.config,
            file: subject.file,
            wrong: subject.wrong,
            socket: subject.socket,
            root: subject.root,
            identity,
            problems,
            clock,
            connections: Connections::default(),
            report: Err("nobody was asked".into()),
        }
    }

    /// A file or folder of the system; `path` is written without its first slash.
    pub(super) fn system(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Whether systemd has started this machine (sd_booted(3)).
    pub(super) fn has_systemd(&self) -> bool {
        self.system("run/systemd/system").exists()
    }

    /// The findings that the agent has with this code, or whose code begins so where `code` ends in a dot.
    pub(super) fn findings(&self, code: &str) -> Vec<&Value> {
        let report = self.report.as_ref().ok();
        let all = report.and_then(|report| report["findings"].as_array());
        let of_code = |finding: &&Value| {
            let is = finding["code"].as_str().unwrap_or_default();
            is == code || code.ends_with('.') && is.starts_with(code)
        };
        all.into_iter().flatten().filter(of_code).collect()
    }

    /// Whether anything here is to call AWS.
    pub(super) fn wants_aws(&self) -> bool {
        let region = self.identity.region.is_some();
        let config = &self.config;
        let cloudwatch = match config.cloudwatch.enabled {
            Enabled::Always => true,
            Enabled::Auto => region,
            Enabled::Never => false,
        };
        let compliance = config.ssm.compliance && self.identity.managed_instance.is_some();
        cloudwatch
            || compliance
            || !config.ssm.parameters.is_empty()
            || config.failover.mode == FailoverMode::Drain
    }

    /// Whether the node has registered with SSM, as far as this user may see.
    pub(super) fn is_registered(&self) -> bool {
        self.identity.managed_instance.is_some()
    }

    /// The settings of AWS with the region that was found.
    pub(super) fn aws(&self) -> config::Aws {
        config::Aws {
            region: self.identity.region.clone().unwrap_or_default(),
            ..self.config.aws.clone()
        }
    }

    /// What a program of the system writes to its standard output, at most `output` bytes of it.
    ///
    /// # Errors
    /// It is not there, ends badly, or takes too long; for a person.
    pub(super) async fn ask(
        &self,
        program: &str,
        arguments: &[&str],
        output: usize,
    ) -> Result<String, String> {
        let folders = ["usr/bin", "bin", "usr/sbin", "sbin"];
        let mut files = folders
            .map(|folder| self.system(folder).join(program))
            .into_iter();
        let Some(file) = files.find(|file| file.exists()) else {
            return Err(format!("there is no {program}"));
        };
        let mut command = vec![file.display().to_string()];
        command.extend(arguments.iter().map(|word| (*word).to_owned()));
        let asked = Program {
            command,
            user: None,
            timeout: PROGRAM,
            output,
        };
        match run(asked).await {
            Ran::Ended { output, status } if status.success() || !output.is_empty() => {
                Ok(String::from_utf8_lossy(&output).into_owned())
            }
            Ran::Ended { status, .. } => Err(format!("{program} {}", words(status))),
            Ran::NotStarted(why) => Err(why),
            Ran::TimedOut { .. } => Err(format!("{program} does not end within {PROGRAM:?}")),
        }
    }
}

/// A variable of the environment; an empty one counts as not set.
pub(super) fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Whether we are root.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The text of a small file.
///
/// # Errors
/// As reading it has; it is no file, or longer than a mebibyte.
pub(super) fn read(path: &Path) -> io::Result<String> {
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = Vec::new();
    File::open(path)?
        .take(LONGEST_FILE)
        .read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether only somebody else may look: told apart from what is wrong.
pub(super) fn is_hidden(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied && !is_root()
}

/// What helps a user who may not look.
pub(super) const AS_ROOT: &str = "sudo sideline doctor";
