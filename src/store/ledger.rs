//! What became of the numbers of one journal, as ranges: every number waits or has a fate.

use std::ops::RangeInclusive;

use rangemap::{RangeInclusiveMap, RangeInclusiveSet};

use super::rows::Entry;
use crate::domain::outbox::{Fate, Number};

/// The fates of one journal. The first fate of a number stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Ledger {
    fates: RangeInclusiveMap<Number, Fate>,
    unannounced: RangeInclusiveSet<Number>,
}

impl Ledger {
    /// Takes in what was kept.
    pub(super) fn take_in(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            for range in self.note(&entry.range, entry.fate) {
                if entry.announced {
                    self.unannounced.remove(range);
                }
            }
        }
    }

    /// Notes a fate; returns the numbers that had none yet.
    pub(super) fn note(
        &mut self,
        range: &RangeInclusive<Number>,
        fate: Fate,
    ) -> Vec<RangeInclusive<Number>> {
        let fresh: Vec<_> = self.fates.gaps(range).collect();
        for range in &fresh {
            self.fates.insert(range.clone(), fate);
            if fate.is_loss() {
                self.unannounced.insert(range.clone());
            }
        }
        fresh
    }

    /// The receiver knows that these are lost.
    pub(super) fn announced(&mut self, range: RangeInclusive<Number>) {
        self.unannounced.remove(range);
    }

    /// What the receiver does not know yet, in order.
    pub(super) fn unannounced(&self) -> Vec<(RangeInclusive<Number>, Fate)> {
        let mut lost = Vec::new();
        for range in self.unannounced.iter() {
            for (entry, fate) in self.fates.overlapping(range) {
                let (first, last) = (
                    entry.start().max(range.start()),
                    entry.end().min(range.end()),
                );
                lost.push((*first..=*last, *fate));
            }
        }
        lost
    }

    /// The entries that these numbers lie in, as they are to be kept.
    pub(super) fn entries(&self, range: &RangeInclusive<Number>) -> Vec<Entry> {
        let entry = |(range, fate): (&RangeInclusive<Number>, &Fate)| Entry {
            range: range.clone(),
            fate: *fate,
            times_ms: None,
            announced: !self.unannounced.overlaps(range),
        };
        self.fates.overlapping(range).map(entry).collect()
    }

    /// The numbers that have a fate.
    pub(super) fn covered(&self) -> RangeInclusiveSet<Number> {
        self.fates.iter().map(|(range, _)| range.clone()).collect()
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.fates.len()
    }

    /// Forgets the oldest entries but for the last so many; returns the last number that is forgotten.
    pub(super) fn forget_all_but(&mut self, entries: usize) -> Option<Number> {
        let surplus = self.len().checked_sub(entries)?.checked_sub(1)?;
        let last = *self.fates.iter().nth(surplus)?.0.end();
        self.fates.remove(0..=last);
        self.unannounced.remove(0..=last);
        Some(last)
    }

    /// The first and the last number that have a fate.
    pub(super) fn span(&self) -> Option<RangeInclusive<Number>> {
        let first = *self.fates.first_range_value()?.0.start();
        let last = *self.fates.last_range_value()?.0.end();
        Some(first..=last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_fate_become_one_entry_and_the_first_fate_stands() {
        let mut ledger = Ledger::default();
        ledger.note(&(1..=3), Fate::Sent);
        ledger.note(&(5..=9), Fate::Sent);
        ledger.note(&(4..=4), Fate::Full);
        assert_eq!(ledger.note(&(8..=11), Fate::Corrupt), [10..=11]);
        let kept: Vec<_> = ledger
            .entries(&(0..=99))
            .into_iter()
            .map(|entry| (entry.range, entry.fate, entry.announced))
            .collect();
        assert_eq!(
            kept,
            [
                (1..=3, Fate::Sent, true),
                (4..=4, Fate::Full, false),
                (5..=9, Fate::Sent, true),
                (10..=11, Fate::Corrupt, false),
            ]
        );
        assert_eq!(ledger.span(), Some(1..=11));
    }

    #[test]
    fn a_loss_is_announced_until_the_receiver_knows() {
        let mut ledger = Ledger::default();
        ledger.note(&(1..=3), Fate::Full);
        ledger.note(&(4..=4), Fate::Expired);
        assert_eq!(
            ledger.unannounced(),
            [(1..=3, Fate::Full), (4..=4, Fate::Expired)]
        );
        ledger.announced(1..=2);
        assert_eq!(
            ledger.unannounced(),
            [(3..=3, Fate::Full), (4..=4, Fate::Expired)]
        );
    }

    #[test]
    fn old_entries_are_forgotten() {
        let mut ledger = Ledger::default();
        for number in 1..=10 {
            let fate = if number % 2 == 0 {
                Fate::Sent
            } else {
                Fate::Unsure
            };
            ledger.note(&(number..=number), fate);
        }
        assert_eq!(ledger.forget_all_but(4), Some(6));
        assert_eq!(ledger.span(), Some(7..=10));
        assert_eq!(ledger.forget_all_but(4), None);
    }
}
