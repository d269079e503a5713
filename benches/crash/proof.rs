//! What was received is held against what was promised.
//!
//! - The relay's events and lost ranges cover every number from 1 on, and repetitions are the same.
//! - No period has `Capacity` twice.
//! - Whatever was seen waiting after a kill arrived, or is listed as lost.
//! - In the end nothing waits, and the store is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitStatus;

use jiff::Timestamp;
use serde_json::Value;

use crate::aws::{Datum, Log};
use crate::field::Answer;
use crate::mqtt::Message;
use crate::receiver::Receiver;
use crate::tally::{Section, Tally};
use crate::witness::Witness;

/// Fates of what will never arrive.
const LOST: [&str; 4] = ["refused", "full", "expired", "corrupt"];

/// Violations of a node that are shown: one mistake can break thousands of numbers.
const SHOWN: usize = 20;

/// All that is known of a node when its last life has ended.
pub(crate) struct Evidence {
    /// How the agent ended when it was asked to.
    pub(crate) ended: ExitStatus,
    /// Whether the broker then heard that it has stopped.
    pub(crate) farewell: bool,
    /// What the agent said in that life.
    pub(crate) log: String,
    /// All that a client of the broker heard, in order.
    pub(crate) messages: Vec<Message>,
    /// All that CloudWatch took.
    pub(crate) cloudwatch: Log,
    /// `sideline outbox list --json`.
    pub(crate) list: Answer,
    /// `sideline outbox verify`.
    pub(crate) verify: Answer,
    pub(crate) witness: Witness,
}

/// What happened, and what should not have.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    pub(crate) tally: Tally,
    pub(crate) violations: Vec<String>,
}

impl Proof {
    /// Adds what a node of this number proved.
    pub(crate) fn add(&mut self, mut other: Proof, node: u64) {
        self.tally.add_all(other.tally);
        let more = other.violations.len().saturating_sub(SHOWN);
        if more > 0 {
            other.violations.truncate(SHOWN);
            other.violations.push(format!("and {more} more"));
        }
        let violations = other.violations.into_iter();
        self.violations
            .extend(violations.map(|violation| format!("node {node}: {violation}")));
    }

    fn count(&mut self, section: Section, what: &str, times: usize) {
        self.tally.add(section, what, times as u64);
    }
}

impl Evidence {
    pub(crate) fn weigh(self) -> Proof {
        let mut proof = Proof::default();
        if !self.ended.success() {
            let violation = format!("the last life was to end in order: {}", self.ended);
            proof.violations.push(violation);
        }
        if !self.farewell {
            let violation = format!(
                "the relay never said that it stopped; the log:\n{}",
                self.log
            );
            proof.violations.push(violation);
        }
        if self.verify.status != Some(0) {
            let violation = format!("sideline outbox verify: {}", told(&self.verify));
            proof.violations.push(violation);
        }
        proof.violations.extend(self.witness.complaints.clone());
        proof.tally.add(
            Section::Rounds,
            "looks at what still waited",
            self.witness.looks,
        );
        let fates = self.fates(&mut proof);
        self.weigh_periods(&mut proof);
        self.weigh_rows(&fates, &mut proof);
        self.weigh_journal(&mut proof);
        proof
    }

    fn weigh_journal(&self, proof: &mut Proof) {
        let mut receiver = Receiver::default();
        for message in &self.messages {
            receiver.take_in(&message.topic, &message.payload);
        }
        match receiver.proof() {
            Ok(journal) => {
                if journal.first != 1 {
                    let violation = format!("the journal begins with {}", journal.first);
                    proof.violations.push(violation);
                }
                for (what, times) in [
                    ("events", journal.events),
                    ("events that came once more", journal.repeated),
                    ("numbers announced as lost", journal.lost),
                    ("announcements of lost numbers", journal.ranges as u64),
                ] {
                    proof.tally.add(Section::Journal, what, times);
                }
            }
            Err(violations) => proof.violations.extend(
                violations
                    .iter()
                    .map(|violation| format!("relay: {violation}")),
            ),
        }
        let waited = &self.witness.events;
        proof.count(
            Section::Journal,
            "events seen waiting after a kill",
            waited.len(),
        );
        let missing = waited.iter().filter(|seq| !receiver.accounts_for(**seq));
        proof.violations.extend(
            missing.map(|seq| format!("relay: {seq} still waited after a kill and never came")),
        );
    }

    /// Counts the periods, and finds those that have `Capacity` twice.
    fn weigh_periods(&self, proof: &mut Proof) {
        let mut told: BTreeMap<Timestamp, f64> = BTreeMap::new();
        for datum in self.data("Capacity") {
            *told.entry(datum.timestamp).or_default() += samples(datum);
        }
        let twice = told.iter().filter(|(_, samples)| **samples > 1.0);
        proof.violations.extend(twice.map(|(period, samples)| {
            format!("CloudWatch: Capacity of {period} has {samples} samples")
        }));
        // Only a period's end tells it.
        let periods: BTreeSet<Timestamp> =
            self.data("OutboxAge").map(|one| one.timestamp).collect();
        let untold = periods.iter().filter(|one| !told.contains_key(one));
        let measured: BTreeSet<Timestamp> = self
            .data("CpuUtilization")
            .map(|one| one.timestamp)
            .collect();
        for (what, times) in [
            ("requests taken", self.cloudwatch.requests.len()),
            ("requests refused or cut", self.cloudwatch.refused.len()),
            ("periods with Capacity", told.len()),
            ("periods told without Capacity", untold.count()),
            ("periods with CpuUtilization", measured.len()),
        ] {
            proof.count(Section::CloudWatch, what, times);
        }
        if told.is_empty() {
            let violation = "CloudWatch: no Capacity ever came".to_owned();
            proof.violations.push(violation);
        }
    }

    /// Finds what waited after a kill, never arrived, and is not listed as lost.
    fn weigh_rows(&self, fates: &[Range], proof: &mut Proof) {
        let arrived: BTreeSet<(i64, &str)> = self
            .cloudwatch
            .data()
            .map(|datum| (datum.timestamp.as_second(), datum.name.as_str()))
            .collect();
        let mut lost = 0;
        for (number, row) in &self.witness.rows {
            let second = row.at.as_second();
            let missing = row.metrics.iter().map(String::as_str);
            let missing: Vec<&str> = missing
                .filter(|metric| !arrived.contains(&(second, *metric)))
                .collect();
            let fate = fates.iter().find(|range| range.holds(*number));
            let fate = fate.map_or("none", |range| range.fate.as_str());
            if LOST.contains(&fate) && !missing.is_empty() {
                lost += 1;
            } else if missing.iter().any(|metric| *metric != "Capacity")
                || missing.len() == row.metrics.len() && fate != "unsure"
            {
                // Without the rest of its row, Capacity may be held back only by a request that may have arrived.
                proof.violations.push(format!(
                    "CloudWatch: {number} of {} still waited after a kill and never came: {missing:?}, listed as {fate}",
                    row.at
                ));
            }
        }
        for (what, times) in [
            (
                "requests seen waiting after a kill",
                self.witness.rows.len(),
            ),
            ("of these listed as lost", lost),
        ] {
            proof.count(Section::CloudWatch, what, times);
        }
    }

    /// What the store says has become of CloudWatch's numbers.
    fn fates(&self, proof: &mut Proof) -> Vec<Range> {
        match read_list(&self.list) {
            Ok(outlets) => {
                let waiting = outlets.iter().filter(|outlet| outlet.pending > 0);
                proof.violations.extend(waiting.map(|outlet| {
                    format!("{}: {} still wait in the end", outlet.name, outlet.pending)
                }));
                let cloudwatch = outlets.into_iter().find(|one| one.name == "cloudwatch");
                let ranges = cloudwatch.map(|one| one.ranges).unwrap_or_default();
                for range in &ranges {
                    let what = format!("numbers listed as {}", range.fate);
                    let times = range.last - range.first + 1;
                    proof.tally.add(Section::CloudWatch, what, times);
                }
                ranges
            }
            Err(why) => {
                let violation = format!("sideline outbox list --json: {why}");
                proof.violations.push(violation);
                Vec::new()
            }
        }
    }

    fn data<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Datum> {
        self.cloudwatch.data().filter(move |one| one.name == name)
    }
}

/// `SampleCount` of a datum, as CloudWatch counts.
fn samples(datum: &Datum) -> f64 {
    match &datum.statistic_values {
        Some(statistics) => statistics.sample_count,
        None if datum.values.is_empty() => 1.0,
        None if datum.counts.is_empty() => datum.values.len() as f64,
        None => datum.counts.iter().sum(),
    }
}

struct Outlet {
    name: String,
    pending: u64,
    ranges: Vec<Range>,
}

/// Numbers, both inclusive, and what has become of them.
struct Range {
    first: u64,
    last: u64,
    fate: String,
}

impl Range {
    fn holds(&self, number: u64) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

fn read_list(answer: &Answer) -> Result<Vec<Outlet>, String> {
    if answer.status != Some(0) {
        return Err(told(answer));
    }
    let list: Value = serde_json::from_str(&answer.out).map_err(|error| error.to_string())?;
    let outlets = list["outlets"].as_array().ok_or("no outlets")?;
    let outlets: Option<Vec<Outlet>> = outlets.iter().map(read_outlet).collect();
    outlets.ok_or_else(|| format!("not as promised: {list}"))
}

fn read_outlet(outlet: &Value) -> Option<Outlet> {
    let range = |range: &Value| {
        let (first, last) = (range["first"].as_u64()?, range["last"].as_u64()?);
        let fate = range["fate"].as_str()?.to_owned();
        (first <= last).then_some(Range { first, last, fate })
    };
    Some(Outlet {
        name: outlet["name"].as_str()?.to_owned(),
        pending: outlet["pending"].as_u64()?,
        ranges: outlet["ranges"]
            .as_array()?
            .iter()
            .map(range)
            .collect::<Option<_>>()?,
    })
}

/// How a command ended that should have ended well.
fn told(answer: &Answer) -> String {
    let why = answer.err.trim().lines().next().unwrap_or_default();
    format!("ended with {:?}: {why}", answer.status)
}
