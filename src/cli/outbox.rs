//! `sideline outbox`: what waits to be sent, what became of the rest, and whether the store is whole.

mod export;
mod text;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{load, print};
use crate::config::Paths;
use crate::store::inspect::{Gone, Journal, Outboxes, Soundness, Unreadable};
use crate::store::{Destination, FILE};

/// What to do with the outbox.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum OutboxCommand {
    /// What waits, and which numbers were sent or lost
    #[command(after_help = LIST)]
    List(Options),
    /// Whether the store is whole: exit 0 if it is, else 1
    #[command(after_help = VERIFY)]
    Verify(Options),
    /// Print every record that waits, as a line of JSON
    #[command(after_help = EXPORT)]
    Export(Options),
}

/// How to print it.
#[derive(Debug, Clone, Copy, Args)]
pub struct Options {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Before the help of all three.
pub(super) const ABOUT: &str = "\
Each reads sideline.db in paths.state, also while the agent runs, and changes nothing. Only root can read the \
service's. Exit status 1: it can't be read.";

const LIST: &str = "\
Records are numbered by outlet: `cloudwatch` has a period's metrics or a change of health a number, `relay` an event \
(its seq). Every number waits or has a fate:
  sent      it arrived
  unsure    it arrived, but for its Capacity, which may have arrived before
  refused   the receiver took it, or a part of it, for wrong
  full      it was dropped for want of room (outbox.max_bytes)
  expired   it was dropped for its age (outbox.max_age)
  corrupt   it was damaged on disk

Examples:
  sideline outbox list
  sideline outbox list --json | jq '.outlets[].pending'";

const VERIFY: &str = "\
It checks the file's structure, the checksum and the form of every record, and that each number from the first known \
to the last either waits or has one fate. Problems are one line each.

Examples:
  sideline outbox verify && echo whole
  sideline outbox verify --json | jq .problems";

const EXPORT: &str = "\
The oldest first, those of cloudwatch before those of the relay; JSON with or without --json. A record that is damaged \
is left out, and the exit status is 1.

Examples:
  sideline outbox export > waiting.jsonl
  sideline outbox export | jq -c 'select(.outlet == \"relay\") | .event'";

/// Runs `sideline outbox …`; `config` is the global `--config`.
///
/// # Errors
/// A configuration that cannot be read or is wrong; an output that cannot be written.
pub fn run(command: OutboxCommand, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let folder = folder(config)?;
    let done = Outboxes::open(&folder).map_err(anyhow::Error::from);
    let done = done.and_then(|outboxes| match command {
        OutboxCommand::List(options) => list(&outboxes, options),
        OutboxCommand::Verify(options) => verify(&outboxes, options),
        OutboxCommand::Export(_) => export::run(&outboxes),
    });
    match done {
        Err(error) if error.is::<Unreadable>() => {
            eprintln!("sideline: {error}");
            Ok(ExitCode::FAILURE)
        }
        done => done,
    }
}

/// Where the agent keeps it: for an ordinary user without an agent of their own, the service.
pub(super) fn folder(config: Option<&Path>) -> anyhow::Result<PathBuf> {
    let loaded = load::load(config)?;
    let (own, service) = (loaded.config.paths.state, Paths::default().state);
    let meant = loaded.file.is_none() && !own.join(FILE).exists() && service.exists();
    Ok(if meant { service } else { own })
}

fn list(outboxes: &Outboxes, options: Options) -> anyhow::Result<ExitCode> {
    let mut journals = Vec::new();
    for of in Destination::ALL {
        journals.push((of, outboxes.journal(of)?));
    }
    if options.json {
        let outlets: Vec<Value> = journals.iter().map(outlet).collect();
        let list = json!({"version": 1, "path": outboxes.path(), "outlets": outlets});
        print(&format!("{list:#}\n"))?;
    } else {
        print(&text::draw(outboxes, &journals, super::colour()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn outlet((of, journal): &(Destination, Journal)) -> Value {
    let range = |gone: &Gone| {
        json!({
            "first": gone.range.start(),
            "last": gone.range.end(),
            "fate": gone.fate.name(),
            "since": gone.times.map(|(since, _)| since),
            "until": gone.times.map(|(_, until)| until),
            // Only the relay has readers who are told of what is lost.
            "announced": (*of == Destination::Relay && gone.fate.is_loss()).then_some(gone.announced),
        })
    };
    json!({
        "name": of.name(),
        "pending": journal.pending,
        "bytes": journal.bytes,
        "oldest": journal.span.map(|(oldest, _)| oldest),
        "newest": journal.span.map(|(_, newest)| newest),
        "ranges": journal.gone.iter().map(range).collect::<Vec<_>>(),
    })
}

fn verify(outboxes: &Outboxes, options: Options) -> anyhow::Result<ExitCode> {
    let Soundness {
        problems,
        waiting,
        gone,
        ..
    } = outboxes.verify(&export::makes_sense);
    let whole = problems.is_empty();
    let path = outboxes.path().display();
    if options.json {
        let found = json!({"whole": whole, "problems": problems, "waiting": waiting, "gone": gone});
        print(&format!("{found:#}\n"))?;
    } else if !outboxes.exist() {
        print(&format!("{path}: none yet, so nothing waits\n"))?;
    } else if whole {
        print(&format!("{path}: whole; {waiting} wait, {gone} are gone\n"))?;
    } else {
        for problem in &problems {
            eprintln!("{problem}");
        }
        eprintln!(
            "{path}: not whole; the agent counts as lost what it can't read, and takes over the rest"
        );
    }
    Ok(if whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
