//! `doctor --bundle`: what support wants to see of a node, in one file, without a secret in it.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use aws_credential_types::provider::ProvideCredentials;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::scene::{Scene, Subject, environment, read};
use super::secrets::Secrets;
use super::{Visit, gpu};
use crate::collect::identity::ecs::page;
use crate::config::Config;
use crate::config::address::Broker;
use crate::domain::outbox::Fate;
use crate::store::inspect::{self, Outboxes};
use crate::store::{Destination, settings};

/// No member is longer.
const LONGEST: usize = 8 << 20;

/// Lines of the service's journal, and of the kernel's.
const JOURNAL: &str = "5000";
const KERNEL: &str = "2000";

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// How many members it has.
    pub members: usize,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Writes a bundle (.tar.gz, readable by its owner alone) about a visit. `settings` is the configuration in force, or
/// what stands instead. What can't be had is a member that says why.
///
/// # Errors
/// The file is there already, or can't be written.
pub async fn write(
    file: &Path,
    subject: Subject,
    settings: &str,
    visit: &Visit,
) -> anyhow::Result<Bundle> {
    let shown = file.display();
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    let opened = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{shown} is there already; name another file")
        }
        opened => opened.with_context(|| format!("{shown} can't be written"))?,
    };
    let scene = Scene::alone(subject);
    let secrets = secrets(&scene).await;
    let members = members(&scene, settings, visit).await;
    let count = members.len();
    let packed = pack(opened, &members, &secrets);
    if packed.is_err() {
        // Half a bundle is no use to anybody.
        let _ = std::fs::remove_file(file);
    }
    let bytes = packed.with_context(|| format!("{shown} can't be written"))?;
    Ok(Bundle {
        members: count,
        bytes,
    })
}

/// Puts all members into a folder in the archive, each scrubbed.
fn pack(
    file: std::fs::File,
    members: &[(&str, Result<String, String>)],
    secrets: &Secrets,
) -> io::Result<u64> {
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    for (name, text) in members {
        let text = match text {
            Ok(text) => secrets.scrub(text),
            Err(why) => secrets.scrub(&format!("not to be had: {why}\n")),
        };
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_mtime(now);
        header.set_size(text.len() as u64);
        archive.append_data(&mut header, format!("sideline/{name}"), text.as_bytes())?;
    }
    let mut file = archive.into_inner()?.finish()?;
    file.flush()?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// All that a bundle holds.
async fn members(
    scene: &Scene,
    settings: &str,
    visit: &Visit,
) -> Vec<(&'static str, Result<String, String>)> {
    let pretty = |value: &Value| format!("{value:#}\n");
    let examination = serde_json::to_value(&visit.examination).unwrap_or_default();
    let status = visit.report.as_ref().map(pretty).map_err(Clone::clone);
    let state = &scene.config.paths.state;
    let (journal, kernel, unit, show) = tokio::join!(
        scene.ask(
            "journalctl",
            &[
                "-u",
                "sideline",
                "-n",
                JOURNAL,
                "--no-pager",
                "-o",
                "short-iso"
            ],
            LONGEST
        ),
        scene.ask(
            "journalctl",
            &["-k", "-n", KERNEL, "--no-pager", "-o", "short-iso"],
            LONGEST
        ),
        scene.ask("systemctl", &["cat", "--no-pager", "sideline"], LONGEST),
        scene.ask("systemctl", &["show", "--no-pager", "sideline"], LONGEST),
    );
    vec![
        ("doctor.json", Ok(pretty(&examination))),
        ("status.json", status),
        ("config.toml", Ok(settings.to_owned())),
        (settings::FILE, parameters(state)),
        ("outbox.json", outbox(state).map(|list| pretty(&list))),
        ("inventory.json", Ok(pretty(&inventory(state)))),
        ("versions.json", Ok(pretty(&versions(scene).await))),
        ("journal.txt", journal),
        ("kernel.txt", kernel),
        ("unit.txt", unit),
        ("unit-properties.txt", show),
    ]
}

/// The parameters of SSM without what stands in them: `config.toml` shows what comes of it.
fn parameters(folder: &Path) -> Result<String, String> {
    let kept = settings::read(folder).map_err(|error| error.to_string())?;
    let mut kept = kept.ok_or("SSM never gave any")?;
    let trial = kept.trial.iter_mut();
    let trial = trial.flat_map(|trial| &mut trial.parameters);
    for parameter in kept.good.iter_mut().chain(trial) {
        parameter.value = format!("{} bytes", parameter.value.len());
    }
    serde_json::to_string_pretty(&kept).map_err(|error| error.to_string())
}

fn outbox(folder: &Path) -> Result<Value, String> {
    let outboxes = Outboxes::open(folder).map_err(|error| error.to_string())?;
    let mut outlets = Vec::new();
    for of in Destination::ALL {
        let journal = outboxes.journal(of).map_err(|error| error.to_string())?;
        let lost = |fate: Fate| -> u64 {
            let gone = journal.gone.iter().filter(|gone| gone.fate == fate);
            gone.map(inspect::Gone::count).sum()
        };
        let fates = Fate::ALL.map(|fate| (fate.name().to_owned(), json!(lost(fate))));
        outlets.push(json!({
            "name": of.name(),
            "pending": journal.pending,
            "bytes": journal.bytes,
            "oldest": journal.span.map(|(oldest, _)| oldest),
            "newest": journal.span.map(|(_, newest)| newest),
            "fates": Value::Object(fates.into_iter().collect()),
        }));
    }
    Ok(json!({ "path": outboxes.path(), "outlets": outlets }))
}

/// The hardware that the agent remembers.
fn inventory(folder: &Path) -> Value {
    let memory = inspect::memory(folder);
    json!({
        "gpus": memory.inventory,
        "machine": memory.machine,
        "driver": memory.driver,
        "restarts": memory.restarts,
    })
}

async fn versions(scene: &Scene) -> Value {
    let line = |path: &str| {
        let text = read(&scene.system(path)).ok()?;
        Some(text.trim().to_owned())
    };
    let first = |text: Result<String, String>| match text {
        Ok(text) => text.lines().next().unwrap_or_default().trim().to_owned(),
        Err(why) => format!("not to be had: {why}"),
    };
    let few = 4 << 10;
    let (systemd, ssm_agent) = tokio::join!(
        scene.ask("systemctl", &["--version"], few),
        scene.ask("amazon-ssm-agent", &["-version"], few),
    );
    let ecs = page(&scene.config.aws.ecs_agent, "/v1/metadata").await;
    let ecs = ecs.map(|page| String::from_utf8_lossy(&page).into_owned());
    json!({
        "sideline": env!("CARGO_PKG_VERSION"),
        "kernel": line("proc/version"),
        "os": line("etc/os-release"),
        "nvidia": gpu::loaded(scene),
        "ssm_agent": first(ssm_agent),
        "ecs_agent": ecs.unwrap_or_else(|why| format!("not to be had: {why:#}")),
        "systemd": first(systemd),
    })
}

/// What must not leave the machine, as far as it is known.
async fn secrets(scene: &Scene) -> Secrets {
    let mut secrets = Secrets::default();
    for name in [
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ACCESS_KEY_ID",
    ] {
        if let Some(value) = environment(name) {
            secrets.know(&value);
        }
    }
    if let Ok(credentials) = scene.credentials.provide_credentials().await {
        secrets.know(credentials.access_key_id());
        secrets.know(credentials.secret_access_key());
        secrets.know(credentials.session_token().unwrap_or_default());
    }
    for password in passwords(&scene.config) {
        secrets.know(&password);
    }
    secrets
}

fn passwords(config: &Config) -> Vec<String> {
    let sources = config
        .cameras
        .source
        .iter()
        .map(|source| source.url.as_str());
    let urls = sources.chain([config.relay.url.as_str()]);
    let brokers = urls.filter_map(|url| Broker::parse(url).ok());
    let mut passwords: Vec<String> = brokers.filter_map(|broker| broker.password).collect();
    // As they stand in a URL, too.
    let encoded: Vec<String> = passwords
        .iter()
        .map(|password| {
            let all = percent_encoding::NON_ALPHANUMERIC;
            percent_encoding::utf8_percent_encode(password, all).to_string()
        })
        .collect();
    passwords.extend(encoded);
    passwords
}
