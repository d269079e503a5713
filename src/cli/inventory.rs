//! `sideline inventory`: the hardware that this node remembers, and accepting a planned change.

mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{load, outbox, print};
use crate::agent;
use crate::collect::identity;
use crate::config::Config;
use crate::domain::finding::Code;
use crate::domain::inventory::{Presence, Reported};
use crate::domain::memory::{Memory, Part, RememberedGpu};
use crate::domain::report::State;
use crate::status::client;
use crate::store::inspect::{Outboxes, Unreadable};

/// What to do with the inventory.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum InventoryCommand {
    /// What this node remembers, and whether it is there now
    #[command(after_help = SHOW)]
    Show(Options),
    /// Accept a planned change: forget what is not there now
    #[command(after_help = ACCEPT)]
    Accept(Options),
    /// Let the SSM agent find what SSM Inventory is told of this node
    #[command(after_help = LINK)]
    Link,
}

/// How to print it.
#[derive(Debug, Clone, Copy, Args)]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Before the help of both.
pub(super) const ABOUT: &str = "\
A node remembers the GPUs, disks, network interfaces and memory that it once had, also across restarts: what is gone \
is a finding (gpu.missing, host.disk_missing, host.nic, host.memory_missing) until it is back, or accepted.";

const SHOW: &str = "\
It reads sideline.db in paths.state, and asks the running agent what is there now:
  here   it is there
  gone   it is not, and a finding says so
  ?      nobody can tell: no agent answers, or it can't read that now
Exit status: 0; 1 the file can't be read (only root can read the service's).

Examples:
  sideline inventory show
  sideline inventory show --json | jq '.gpus[] | select(.now == \"gone\")'";

const ACCEPT: &str = "\
After a card, a disk, a network interface or memory was taken out on purpose: the running agent forgets what it does \
not see now, with the best PCIe links of slots whose card has changed, and learns anew how quickly NVML usually answers. \
Their findings close at its next look. It forgets no GPUs while it can't read them. Only root and the user that the agent \
runs as may do this.
Exit status: 0 done; 1 something could not be judged and is remembered as before; 3 no agent answers, or it refuses.

Examples:
  sideline inventory show && sudo sideline inventory accept
  sudo sideline inventory accept --json | jq '.forgotten[].id'";

const LINK: &str = "\
The agent writes what SSM Inventory is to know (Custom:SidelineNode, Custom:SidelineGpu, Custom:SidelineDisk) into \
ssm-inventory in paths.state; the SSM agent looks into its own folder, which the service may not write to. This makes \
symbolic links there, or takes them away where the node is not registered (any more) or ssm.inventory is false; the \
unit runs it before the service starts. Where the links are right nothing is done.
Exit status: 0; 1 the SSM agent's folder can't be written to (only root can).

Example:
  sudo sideline inventory link";

/// Runs `sideline inventory …`; `config` is the global `--config`.
///
/// # Errors
/// A configuration that cannot be read or is wrong; an output that cannot be written.
pub fn run(
    command: InventoryCommand,
    socket: &Path,
    config: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    match command {
        InventoryCommand::Show(options) => show(options, socket, &outbox::folder(config)?),
        InventoryCommand::Accept(options) => accept(options, socket),
        InventoryCommand::Link => link(&load::load(config)?.config),
    }
}

fn link(config: &Config) -> anyhow::Result<ExitCode> {
    let (identity, problems) = identity::read(config, |name| std::env::var(name).ok());
    for problem in problems {
        eprintln!("sideline: {problem}");
    }
    let changes = match agent::ssm::link_inventory(config, &identity) {
        Ok(changes) => changes,
        Err(error) => {
            eprintln!("sideline: the SSM agent's folder can't be changed: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    for change in changes {
        print(&format!("{change}\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is remembered, and what the agent says of it.
struct Inventory {
    path: PathBuf,
    /// None where nothing was ever kept.
    memory: Option<Memory>,
    /// None where no agent has a report.
    reported: Option<Reported>,
}

fn show(options: Options, socket: &Path, folder: &Path) -> anyhow::Result<ExitCode> {
    let inventory = Outboxes::open(folder).and_then(|store| {
        Ok(Inventory {
            path: store.path().to_owned(),
            memory: store.memory()?,
            reported: None,
        })
    });
    let mut inventory = match inventory {
        Ok(inventory) => inventory,
        Err(error @ Unreadable { .. }) => {
            eprintln!("sideline: {error}");
            return Ok(ExitCode::FAILURE);
        }
    };
    let report = super::runtime()?.block_on(client::report(socket));
    inventory.reported = report.ok().as_ref().map(reported);
    if options.json {
        print(&format!("{:#}\n", to_json(&inventory)))?;
    } else {
        print(&text::draw(&inventory, super::colour()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a report says of the hardware; what another version says otherwise is not known.
fn reported(report: &Value) -> Reported {
    let findings = report["findings"].as_array().into_iter().flatten();
    let missing = findings.filter(|finding| finding["code"] == Code::GpuMissing.to_string());
    let card = |finding: &Value| {
        let subject = finding["subject"].as_str()?;
        subject.strip_prefix("gpu:").map(str::to_owned)
    };
    Reported {
        gpus: part(&report["gpus"]).unwrap_or_default(),
        missing: missing.filter_map(card).collect(),
        host: part(&report["host"]),
    }
}

fn part<T: DeserializeOwned>(of: &Value) -> Option<T> {
    serde_json::from_value(of.clone()).ok()
}

fn to_json(inventory: &Inventory) -> Value {
    let nothing = Memory::default();
    let memory = inventory.memory.as_ref().unwrap_or(&nothing);
    let unknown = Reported::default();
    let now = inventory.reported.as_ref().unwrap_or(&unknown);
    let gpu = |card: &RememberedGpu| {
        let link = card.pci.as_ref().and_then(|pci| memory.links.get(pci));
        json!({
            "id": card.id,
            "name": card.name,
            "pci": card.pci,
            "serial": card.serial,
            "best_link": link,
            "now": word(now.gpu(card)),
        })
    };
    let other = |part: &Part, now: Presence| json!({"id": part.id, "name": part.name, "model": part.model, "now": word(now)});
    let machine = &memory.machine;
    let disks = machine
        .drives
        .iter()
        .map(|part| other(part, now.drive(part)));
    let nics = machine.nics.iter().map(|part| other(part, now.nic(part)));
    json!({
        "version": 1,
        "path": inventory.path,
        "agent": inventory.reported.is_some(),
        "gpus": memory.inventory.iter().map(gpu).collect::<Vec<_>>(),
        "disks": disks.collect::<Vec<_>>(),
        "nics": nics.collect::<Vec<_>>(),
        "memory": {"bytes": machine.memory_bytes, "now": word(now.memory(machine))},
        "driver": memory.driver,
        "usual_answer_s": memory.usual_answer_s,
    })
}

/// For JSON: what is not known is null.
fn word(now: Presence) -> Option<&'static str> {
    match now {
        Presence::Here => Some("here"),
        Presence::Gone => Some("gone"),
        Presence::Unknown => None,
    }
}

fn accept(options: Options, socket: &Path) -> anyhow::Result<ExitCode> {
    let asked = super::runtime()?.block_on(client::accept_inventory(socket));
    let accepted = match asked {
        Ok(accepted) => accepted,
        Err(error) => {
            eprintln!("sideline: {error:#}");
            return Ok(super::exit_code(State::Unknown));
        }
    };
    if options.json {
        print(&format!("{accepted:#}\n"))?;
    } else {
        print(&text::accepted(&accepted))?;
    }
    let problems = accepted["problems"].as_array().into_iter().flatten();
    let problems: Vec<&str> = problems.filter_map(Value::as_str).collect();
    for problem in &problems {
        eprintln!("sideline: {problem}");
    }
    Ok(match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
