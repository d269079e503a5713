//! Whether a store is whole: the file, every record in it, and that each number waits or has one fate.

use std::ops::RangeInclusive;

use rangemap::RangeInclusiveSet;
use serde_json::Value;

use super::Outboxes;
use crate::domain::outbox::Number;
use crate::store::database::{Answer, Database};
use crate::store::rows::{Destination, Entry};

/// Problems that are told one by one; a bad disk brings forth more than anybody reads.
const TOLD: usize = 100;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Soundness {
    /// What is wrong, a line each; nothing where the store is whole.
    pub problems: Vec<String>,
    /// Records that wait.
    pub waiting: u64,
    /// Numbers that do not.
    pub gone: u64,
    untold: usize,
}

impl Soundness {
    fn note(&mut self, problem: String) {
        if self.problems.len() < TOLD {
            self.problems.push(problem);
        } else {
            self.untold += 1;
        }
    }

    /// Notes that something could not even be looked at.
    fn expect(&mut self, of: &str, done: Answer<()>) {
        if let Err(error) = done {
            self.note(format!("{of} can't be read: {error}"));
        }
    }
}

impl Outboxes {
    /// Looks at everything. `makes_sense` says whether a payload can be sent.
    #[must_use]
    pub fn verify(&self, makes_sense: &dyn Fn(Destination, &[u8]) -> bool) -> Soundness {
        let mut found = Soundness::default();
        let Some(database) = &self.database else {
            return found;
        };
        match database.check() {
            Ok(lines) => {
                let lines = lines.into_iter().map(|line| format!("the file: {line}"));
                lines.for_each(|line| found.note(line));
            }
            Err(error) => found.note(format!("the file can't be checked: {error}")),
        }
        let seals = database.at_once(|database| check_seals(database, &mut found));
        found.expect("the ledger", seals);
        for of in Destination::ALL {
            let name = of.name();
            let numbers = database.at_once(|database| check_numbers(database, of, &mut found));
            found.expect(name, numbers);
            for record in self.waiting(of) {
                match record {
                    Ok(record) if makes_sense(of, &record.payload) => {}
                    Ok(record) => {
                        let number = record.number;
                        found.note(format!("{name} {number}: what is kept makes no sense"));
                    }
                    Err(flaw) => found.note(format!("{name} {flaw}")),
                }
            }
        }
        if found.untold > 0 {
            found.problems.push(format!("and {} more", found.untold));
        }
        found
    }
}

/// Entries of the ledger and memories whose checksum is wrong are passed over by who reads them.
fn check_seals(database: &Database, found: &mut Soundness) -> Answer<()> {
    let mut entries = 0;
    for of in Destination::ALL {
        entries += database.ledger(of)?.len() as u64;
    }
    let memories = database.remembered()?.len() as u64;
    for (what, all, whole) in [
        ("ranges of the ledger", database.length("ledger")?, entries),
        ("things remembered", database.length("memory")?, memories),
    ] {
        if whole < all {
            found.note(format!("{} {what} are damaged", all - whole));
        }
    }
    Ok(())
}

/// Every number from the first known to the last waits, or is in one range.
fn check_numbers(database: &Database, of: Destination, found: &mut Soundness) -> Answer<()> {
    let name = of.name();
    let mut known = RangeInclusiveSet::new();
    database.headers(of, |header| {
        found.waiting += 1;
        known.insert(header.number..=header.number);
    })?;
    let ledger = database.ledger(of)?;
    for entry in &ledger {
        found.gone += (entry.range.end() - entry.range.start()).saturating_add(1);
        let fate = entry.fate.name();
        for both in known.overlapping(&entry.range) {
            let both = numbers(&shared(both, &entry.range));
            found.note(format!("{name} {both}: waiting, and listed as {fate}"));
        }
    }
    for pair in ledger.windows(2) {
        let [before, after] = pair else { continue };
        if before.range.end() >= after.range.start() {
            let both = numbers(&shared(&before.range, &after.range));
            let fates = [before.fate.name(), after.fate.name()].join(" and as ");
            found.note(format!("{name} {both}: listed as {fates}"));
        }
    }
    known.extend(ledger.into_iter().map(|entry: Entry| entry.range));
    let Some(last) = known.last().map(|range| *range.end()) else {
        return Ok(());
    };
    let remembered = database.remembered()?;
    let first = remembered.get(of.first_name()).and_then(Value::as_u64);
    for gap in known.gaps(&(first.unwrap_or(1)..=last)) {
        let gap = numbers(&gap);
        found.note(format!("{name} {gap}: neither waiting nor listed as gone"));
    }
    Ok(())
}

fn shared(one: &RangeInclusive<Number>, other: &RangeInclusive<Number>) -> RangeInclusive<Number> {
    *one.start().max(other.start())..=*one.end().min(other.end())
}

/// `7` or `7 to 12`.
fn numbers(range: &RangeInclusive<Number>) -> String {
    let (first, last) = (range.start(), range.end());
    if first == last {
        first.to_string()
    } else {
        format!("{first} to {last}")
    }
}
