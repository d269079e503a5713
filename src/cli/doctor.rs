//! `sideline doctor`: is the set-up right, and how is it mended?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::{load, print, socket};
use crate::config::{Config, address};
use crate::doctor::{self, State, Subject, bundle, text};
use crate::status::SOCKET;

/// How to print it, and what to keep.
#[derive(Debug, Args)]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Also pack what support wants to see into this .tar.gz: status, configuration, logs and versions, without secrets
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Where the system's own folders are
    #[arg(long, value_name = "FOLDER", default_value = "/", hide = true)]
    root: PathBuf,
}

/// Below the help.
pub(super) const ABOUT: &str = "\
It looks at the configuration, the service, the node's identity and credentials, each call to AWS that is used, brokers \
and certificates, GPUs, the kernel log, disks and the UPS, all at once and within 20 seconds. It changes nothing. What \
only the service itself can know, in its sandbox, it asks the running agent; so run it as root.
Exit status: 0; 1 a check fails; 3 it could not be done.

Examples:
  sudo sideline doctor
  sudo sideline doctor --json | jq '.checks[] | select(.state != \"ok\")'
  sudo sideline doctor --bundle /root/node.tar.gz";

/// Examines the set-up and prints what was found.
///
/// # Errors
/// The bundle can't be written; an output that can't be written.
pub fn main(
    options: &Options,
    named_socket: &Option<PathBuf>,
    config: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    super::log::quiet();
    if let Some(file) = &options.bundle
        && file.exists()
    {
        anyhow::bail!("{} is there already; name another file", file.display());
    }
    let (subject, settings) = subject(options, named_socket, config);
    let runtime = super::runtime()?;
    let visit = runtime.block_on(doctor::examine(subject.clone()));
    let examination = &visit.examination;
    if options.json {
        print(&format!("{:#}\n", serde_json::to_value(examination)?))?;
    } else {
        print(&text::draw(examination, super::colour()))?;
    }
    if let Some(file) = &options.bundle {
        let written = bundle::write(file, subject, &settings, &visit);
        let written = runtime.block_on(written)?;
        eprintln!(
            "{}: {} files, {} KiB, without secrets; look into it before you give it away",
            file.display(),
            written.members,
            written.bytes.div_ceil(1024),
        );
    }
    // A disk or a driver that hangs must not keep us.
    runtime.shutdown_background();
    Ok(match examination.worst {
        State::Ok | State::Warn => ExitCode::SUCCESS,
        State::Fail => ExitCode::FAILURE,
    })
}

/// What is to be examined, and the configuration in words. A file that is wrong is a check's matter.
fn subject(
    options: &Options,
    named_socket: &Option<PathBuf>,
    file: Option<&Path>,
) -> (Subject, String) {
    let loaded = load::load(file);
    let asked = socket(named_socket, file);
    let root = options.root.clone();
    match loaded {
        Ok(effective) => {
            let own = || effective.config.paths.run.join(SOCKET);
            let settings = effective.toml();
            let subject = Subject {
                socket: asked.unwrap_or_else(|_| own()),
                file: effective.file,
                wrong: None,
                config: effective.config,
                root,
            };
            (subject, settings)
        }
        Err(error) => {
            let config = Config::default();
            let path = file.unwrap_or(Path::new(load::FILE));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let settings = format!("# wrong: {error:#}\n{}", redacted(&text));
            let subject = Subject {
                socket: asked.unwrap_or_else(|_| config.paths.run.join(SOCKET)),
                file: Some(path.to_owned()),
                wrong: Some(format!("{error:#}")),
                config,
                root,
            };
            (subject, settings)
        }
    }
}

/// A file that can't be read as one: each line without the login of a URL.
fn redacted(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| address::redact(line).into_owned() + "\n");
    lines.collect()
}
