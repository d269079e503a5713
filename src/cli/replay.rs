//! `sideline replay`: judges recorded kernel logs and readings, and prints when the verdict would have changed and why.

mod input;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use self::input::{Input, Item};
use crate::domain::record::Record;
use crate::domain::replay::{Place, Replay, Step, Summary};

/// For `--help`.
pub const ABOUT: &str = "\
The recordings, told apart line by line: dmesg, dmesg -T, journalctl -k (short, -o short-iso, -o json, …), syslog, \
/dev/kmsg records, and what `sideline record` writes. gzip is unpacked. Several files are one node's, and their lines \
are judged in the order of their times. A log that tells only the time since boot is shown as if that were 1970.

The node starts healthy. The configuration's thresholds hold; its sources and outlets are not used.

Exit status, by the last verdict: 0 healthy, 1 degraded, 2 failing, 3 unknown or an error.

Examples:
  journalctl -k -b -1 | sideline replay -
  sideline replay kern.log.1 kern.log
  sideline replay night.rec.gz --json | jq -c .";

/// What to judge, and how to tell it.
#[derive(Debug, Args)]
pub struct Options {
    /// Recordings; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print JSON: an object a change, and last a summary
    #[arg(long)]
    json: bool,
}

/// Judges the recordings; the exit status tells the last verdict.
///
/// # Errors
/// The configuration is wrong, a file can't be read, or nothing can be printed.
pub fn main(options: &Options, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    super::log::quiet();
    let mut config = super::load::load(config)?.config;
    // What the node expects of its sources says nothing of a recording that has others.
    config.cameras.expect.clear();
    let mut inputs = Vec::with_capacity(options.files.len());
    for file in &options.files {
        inputs.push(Input::open(file)?);
    }
    let mut told = Told::new(options.json);
    let mut replay: Option<Replay> = None;
    while let Some((place, item)) = next(&mut inputs) {
        let replay = replay.get_or_insert_with(|| {
            let from = match &item {
                Item::Record(record) => record.began(),
                Item::Line(_) | Item::End => place.at,
            };
            Replay::new(config.clone(), from)
        });
        if place.restarted {
            replay.restart(place.at);
        } else {
            replay.advance(place.at);
        }
        match item {
            Item::Line(text) => {
                replay.hear(text.as_line());
            }
            Item::Record(record) => replay.take_in(*record),
            Item::End => {}
        }
        for step in replay.steps() {
            told.step(&step)?;
        }
    }
    let lines = inputs.iter().map(|input| input.lines).sum();
    let now = jiff::Timestamp::now();
    let replay = replay.unwrap_or_else(|| Replay::new(config, now));
    let (steps, summary) = replay.end(lines);
    for step in steps {
        told.step(&step)?;
    }
    told.summary(&summary)?;
    let troubles: Vec<String> = inputs.into_iter().filter_map(Input::trouble).collect();
    if !troubles.is_empty() {
        bail!("{}; judged up to there", troubles.join("; "));
    }
    Ok(super::exit_code(summary.state))
}

/// The earliest of what the inputs say next.
fn next(inputs: &mut [Input]) -> Option<(Place, Item)> {
    let mut earliest: Option<(usize, jiff::Timestamp)> = None;
    for (index, input) in inputs.iter_mut().enumerate() {
        if let Some(at) = input.peek()
            && earliest.is_none_or(|(_, before)| at < before)
        {
            earliest = Some((index, at));
        }
    }
    earliest.and_then(|(index, _)| inputs[index].take())
}

/// Prints as it goes.
struct Told {
    json: bool,
    any: bool,
}

impl Told {
    fn new(json: bool) -> Self {
        Told { json, any: false }
    }

    fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        self.any = true;
        let text = match self.json {
            true => format!("{}\n", serde_json::to_string(step)?),
            false => shown(&in_words(step)),
        };
        Ok(super::print(&text)?)
    }

    fn summary(&self, summary: &Summary) -> anyhow::Result<()> {
        let text = match self.json {
            true => format!("{}\n", serde_json::json!({ "summary": summary })),
            false => shown(&table(summary, self.any)),
        };
        Ok(super::print(&text)?)
    }
}

fn in_words(step: &Step) -> String {
    let reasons: Vec<String> = step.reasons.iter().map(ToString::to_string).collect();
    let (available, slots) = step.carries;
    let line = format!(
        "{:<24}  {:<8}  {available} of {slots}  {}",
        step.at.to_string(),
        step.state.name(),
        reasons.join(", ")
    );
    let mut text = format!("{}\n", line.trim_end());
    for finding in &step.findings {
        let _ = writeln!(
            text,
            "  + {} of {}: {}; advice: {}\n      {}",
            finding.code,
            finding.subject,
            finding.severity.name(),
            finding.advice.name(),
            finding.evidence
        );
    }
    for code in &step.closed {
        let _ = writeln!(text, "  - {code} is over");
    }
    text
}

fn table(summary: &Summary, any: bool) -> String {
    let mut text = String::new();
    if any {
        text.push('\n');
    }
    let _ = writeln!(
        text,
        "{} in the end; {} lines, {} of them told something",
        summary.state.name(),
        summary.lines,
        summary.matched
    );
    for total in &summary.findings {
        let _ = writeln!(
            text,
            "  {:<22} {:<8} {:<15} {:>5} times, {} to {}  {}",
            total.code.to_string(),
            total.severity.name(),
            total.advice.name(),
            total.count,
            total.first,
            total.last,
            total.subject
        );
    }
    text
}

/// A recording may come from anywhere: what could steer a terminal is made visible.
fn shown(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

/// Of a line of a recording: what it says, if it is one of `sideline record`.
fn record(raw: &str) -> Option<Record> {
    raw.starts_with(r#"{"at":"#)
        .then(|| Record::parse(raw).ok())
        .flatten()
}
