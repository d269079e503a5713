//! Arguments → one subcommand. A subcommand talks and decides nothing.

pub mod check;
pub mod config;
pub mod doctor;
pub mod explain;
pub mod fit;
pub mod inventory;
pub mod load;
pub mod log;
pub mod maintenance;
pub mod manual;
pub mod outbox;
pub mod record;
pub mod replay;
pub mod run;
pub mod status;
pub mod timing;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::DumpableBehavior;

use crate::config::Paths;
use crate::domain::report::State;
use crate::status::SOCKET;

/// Watches an on-prem camera server and tells the cloud how much it can carry.
#[derive(Debug, Parser)]
#[command(name = "sideline", version, propagate_version = true, max_term_width = 80, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Configuration file [default: /etc/sideline/sideline.toml if it exists, else built-in defaults]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    config: Option<PathBuf>,

    /// Socket of the agent to ask [default: status.sock in paths.run]
    #[arg(long, global = true, value_name = "FILE", help_heading = GLOBAL)]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

const GLOBAL: &str = "Options of every command";

const AFTER_HELP: &str = "\
Try it on this machine, without configuration, cloud or GPU:
  sideline check            look once and tell what is wrong
  sideline run              the agent, in the foreground; Ctrl-C ends it
  sideline status --watch   in another terminal

Exit status of status and check: 0 healthy, 1 degraded, 2 failing, 3 unknown.
A command line that is wrong exits with 3, too.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent: watch, judge, tell the cloud
    #[command(
        after_help = "It stops on Ctrl-C or TERM, and reads its configuration again on HUP, from the file and from SSM. The systemd unit starts it so.\nSIDELINE_LOG=debug makes its log talkative."
    )]
    Run,
    /// Ask the running agent how this node does
    #[command(after_help = STATES)]
    Status(status::Options),
    /// Look once and judge; needs no running agent
    #[command(after_help = STATES)]
    Check(check::Options),
    /// Exit 0 while this node may take new work, 1 while it may not
    #[command(
        after_help = "In a systemd unit:   ExecCondition=/usr/bin/sideline fit\nIn a worker script:  sideline fit || exit 75"
    )]
    Fit,
    /// Take the node out of service by hand, and bring it back
    #[command(subcommand, after_help = maintenance::ABOUT)]
    Maintenance(maintenance::MaintenanceCommand),
    /// Rehearse a failure: tell the cloud less than the node carries, for a bounded time
    #[command(after_help = maintenance::DRILL)]
    Drill(maintenance::DrillOptions),
    /// Look into the outbox: what waits to be sent, what was lost
    #[command(subcommand, after_help = outbox::ABOUT)]
    Outbox(outbox::OutboxCommand),
    /// Show the hardware that this node remembers; accept a planned change
    #[command(subcommand, after_help = inventory::ABOUT)]
    Inventory(inventory::InventoryCommand),
    /// Check the set-up; each line with what was seen and how it is mended
    #[command(after_help = doctor::ABOUT)]
    Doctor(doctor::Options),
    /// Say what a finding code means, who is at fault and what to do
    #[command(after_help = explain::ABOUT)]
    Explain(explain::Options),
    /// Judge recorded kernel logs and readings, and tell when the verdict would have changed and why
    #[command(after_help = replay::ABOUT)]
    Replay(replay::Options),
    /// Write this node's readings into a file, for replay
    #[command(after_help = record::ABOUT)]
    Record(record::Options),
    /// Check, show and explain the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Write man pages and shell completions into a folder
    #[command(after_help = manual::ABOUT)]
    Manual(manual::Options),
    /// Read hardware through a vendor's library, for the agent
    #[command(subcommand, hide = true)]
    Probe(Probe),
}

const STATES: &str = "Exit status: 0 healthy, 1 degraded, 2 failing, 3 unknown.";

#[derive(Debug, Subcommand)]
enum Probe {
    /// GPUs through NVML: a line of JSON a reading and an event
    Gpus {
        /// libnvidia-ml.so.1; empty: the loader's
        #[arg(long, default_value = "")]
        library: String,
    },
}

/// Runs the subcommand that the arguments name.
///
/// # Errors
/// What the subcommand could not do, for a person.
pub fn main() -> anyhow::Result<ExitCode> {
    if let Some(library) = probe_of(std::env::args_os().skip(1)) {
        keep_to_oneself();
        crate::collect::gpus::probe::main(&library)?;
        return Ok(ExitCode::SUCCESS);
    }
    command()
}

/// All that is not a probe, kept out of its stack.
#[inline(never)]
fn command() -> anyhow::Result<ExitCode> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(told) => {
            // A reader that goes early, as `head` does, is no error.
            let _ = told.print();
            // clap's own 2 would tell a monitoring system that the node is failing.
            return Ok(match told.use_stderr() {
                true => exit_code(State::Unknown),
                false => ExitCode::SUCCESS,
            });
        }
    };
    let config = arguments.config.as_deref();
    match arguments.command {
        Command::Run if arguments.socket.is_some() => {
            anyhow::bail!("--socket is for commands that ask; run listens at {SOCKET} in paths.run")
        }
        Command::Run => run::main(config),
        Command::Status(options) => status::main(&options, &socket(&arguments.socket, config)?),
        Command::Check(options) => check::main(&options, config),
        Command::Fit => fit::main(&socket(&arguments.socket, config)?),
        Command::Maintenance(command) => {
            maintenance::main(command, &socket(&arguments.socket, config)?)
        }
        Command::Drill(options) => {
            maintenance::drill(&options, &socket(&arguments.socket, config)?)
        }
        Command::Outbox(command) => outbox::run(command, config),
        Command::Inventory(command) => {
            inventory::run(command, &socket(&arguments.socket, config)?, config)
        }
        Command::Doctor(options) => doctor::main(&options, &arguments.socket, config),
        Command::Explain(options) => explain::main(&options),
        Command::Replay(options) => replay::main(&options, config),
        Command::Record(options) => record::main(&options, config),
        Command::Config(command) => config::run(command, config),
        Command::Manual(options) => manual::main(&options),
        Command::Probe(Probe::Gpus { library }) => {
            crate::collect::gpus::probe::main(&library)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The library of a GPU probe, where the arguments are those that the agent starts one with. It stays beside the agent
/// for ever, and the parser's tables would be the larger part of its memory.
fn probe_of(arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let words: Option<Vec<String>> = arguments.map(|word| word.into_string().ok()).collect();
    match words?.as_slice() {
        [probe, gpus] if probe == "probe" && gpus == "gpus" => Some(String::new()),
        [probe, gpus, flag, library]
            if probe == "probe" && gpus == "gpus" && flag == "--library" =>
        {
            Some(library.clone())
        }
        _ => None,
    }
}

/// Where the running agent listens: for an ordinary user without one of their own, the service.
fn socket(named: &Option<PathBuf>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(socket) = named {
        return Ok(socket.clone());
    }
    let service = Paths::default().run.join(SOCKET);
    match load::load(config) {
        Ok(loaded) => {
            let own = loaded.config.paths.run.join(SOCKET);
            let ask_service = loaded.file.is_none() && !own.exists() && service.exists();
            Ok(if ask_service { service } else { own })
        }
        // The file may be for root's eyes alone; the socket is for its group's, too.
        Err(_) if config.is_none() && service.exists() => Ok(service),
        Err(error) => Err(error),
    }
}

/// Prints a text; a reader that goes early, as `head` does, is no error.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// The exit status of a state: the convention of monitoring plugins.
fn exit_code(state: State) -> ExitCode {
    ExitCode::from(state.code())
}

/// A runtime for one thread: the agent is small, and so are the commands that ask it.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Keeps what this process holds, keys and passwords among it, out of core dumps and other programs' reach.
fn keep_to_oneself() {
    // Refused by nobody; and without it all works as well.
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Whether standard output wants colour: a terminal, and nobody said `NO_COLOR` (no-color.org).
fn colour() -> bool {
    use std::io::IsTerminal;
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !refused && !dumb
}
