//! What is still to be written: everything up to the next commit, so that a commit that fails can be tried again.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::database::{Answer, Database};
use super::ledger::Ledger;
use super::rows::{Destination, Entry, Row};
use crate::domain::outbox::Number;

/// Periods so old are refused by CloudWatch: nobody needs to know any more whether they counted.
const COUNTED_FOR_MS: i64 = 15 * 24 * 3600 * 1000;

/// Writes that wait for a commit.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// New records.
    pub(super) inserts: BTreeMap<(Destination, Number), Row>,
    /// Records whose time is known better.
    pub(super) restamped: Vec<(Destination, Row)>,
    /// Records that have met their fate, which the ledger knows.
    pub(super) gone: Vec<(Destination, RangeInclusive<Number>)>,
    /// Periods, by their start in milliseconds since 1970, and the records that count for them.
    pub(super) counted: BTreeMap<i64, Number>,
    /// Periods that certainly did not count.
    pub(super) discounted: Vec<(i64, Number)>,
    /// Fields of the judge's memory.
    pub(super) memory: Map<String, Value>,
    /// The time, where it is known for sure.
    pub(super) now_ms: Option<i64>,
    /// Somebody waits for the commit.
    pub(super) urgent: bool,
}

impl Plan {
    /// Whether nothing is to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.inserts.is_empty()
            && self.restamped.is_empty()
            && self.gone.is_empty()
            && self.counted.is_empty()
            && self.discounted.is_empty()
            && self.memory.is_empty()
    }

    /// New records of one journal, in order.
    pub(super) fn inserts_of(&self, of: Destination) -> impl Iterator<Item = &Row> {
        self.inserts
            .range((of, 0)..=(of, Number::MAX))
            .map(|(_, row)| row)
    }

    /// Records that are gone before they were written need not be.
    pub(super) fn drop_inserts(&mut self, of: Destination, range: &RangeInclusive<Number>) {
        let gone: Vec<_> = self
            .inserts
            .range((of, *range.start())..=(of, *range.end()))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.inserts.remove(&key);
        }
    }

    /// Writes everything, within somebody's transaction.
    pub(super) fn write(&self, to: &Database, ledgers: &[Ledger; 2]) -> Answer<()> {
        // What goes makes room for what comes.
        for (of, range) in &self.gone {
            let times_ms = to.delete(*of, range)?;
            for entry in ledgers[*of as usize].entries(range) {
                to.note(*of, &Entry { times_ms, ..entry })?;
            }
        }
        for ((of, _), row) in &self.inserts {
            to.insert(*of, row)?;
        }
        for (of, row) in &self.restamped {
            to.restamp(*of, row)?;
        }
        for (at, number) in &self.discounted {
            to.discount(*at, *number)?;
        }
        for (at, number) in &self.counted {
            to.count(*at, *number)?;
        }
        if let Some(now) = self.now_ms {
            to.forget_counted(now - COUNTED_FOR_MS)?;
        }
        for (name, value) in &self.memory {
            to.remember(name, value)?;
        }
        Ok(())
    }
}
