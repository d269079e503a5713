//! The records that wait, as runs of consecutive numbers: a backlog of a million takes kilobytes.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Entry, Number, Rank, Since};
use crate::domain::moment::Now;

/// Longest run: the age of what lies inside is interpolated, and a run expires as a whole.
const LONGEST: u64 = 64;

/// Consecutive numbers of one rank.
#[derive(Debug, Clone, Copy)]
struct Run {
    first: Number,
    records: u64,
    rank: Rank,
    bytes: u64,
    oldest: Since,
    newest: Since,
}

/// What waits, by number.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    runs: VecDeque<Run>,
    records: u64,
    bytes: u64,
}

impl Waiting {
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it takes in memory itself, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
    }

    pub(super) fn oldest(&self) -> Option<Since> {
        self.runs.front().map(|run| run.oldest)
    }

    pub(super) fn insert(&mut self, number: Number, entry: Entry) {
        self.records += 1;
        self.bytes += entry.bytes;
        let place = self.runs.partition_point(|run| run.first < number);
        let before = place.checked_sub(1).map(|before| &mut self.runs[before]);
        if let Some(run) =
            before.filter(|run| run.first + run.records == number && run.takes(entry))
        {
            run.records += 1;
            run.bytes += entry.bytes;
            run.newest = entry.since;
            return;
        }
        let after = self.runs.get_mut(place);
        if let Some(run) = after.filter(|run| run.first == number + 1 && run.takes(entry)) {
            run.first = number;
            run.records += 1;
            run.bytes += entry.bytes;
            run.oldest = entry.since;
            return;
        }
        let run = Run {
            first: number,
            records: 1,
            rank: entry.rank,
            bytes: entry.bytes,
            oldest: entry.since,
            newest: entry.since,
        };
        self.runs.insert(place, run);
    }

    pub(super) fn pop_oldest(&mut self) -> Option<(Number, Entry)> {
        let run = self.runs.front_mut()?;
        let number = run.first;
        let entry = run.share(run.oldest);
        run.cut_front(1);
        self.forget(1, entry.bytes);
        if self.runs.front().is_some_and(|run| run.records == 0) {
            self.runs.pop_front();
        }
        Some((number, entry))
    }

    pub(super) fn pop_newest(&mut self) -> Option<(Number, Entry)> {
        let run = self.runs.back_mut()?;
        let number = run.first + run.records - 1;
        let entry = run.share(run.newest);
        run.newest = run.newest.towards(run.oldest, 1, run.records - 1);
        run.records -= 1;
        run.bytes -= entry.bytes;
        self.forget(1, entry.bytes);
        if self.runs.back().is_some_and(|run| run.records == 0) {
            self.runs.pop_back();
        }
        Some((number, entry))
    }

    /// Drops the runs whose newest record is older than `longest`; returns their numbers, and how many they are.
    pub(super) fn expire(
        &mut self,
        longest: Duration,
        now: Now,
    ) -> (Vec<RangeInclusive<Number>>, u64) {
        let too_old = |run: &Run| run.newest.age(now).is_some_and(|age| age > longest);
        let (mut gone, before) = (Vec::new(), self.records);
        while let Some(run) = self.runs.pop_front_if(|run| too_old(run)) {
            self.forget(run.records, run.bytes);
            join(&mut gone, run.first..=run.first + run.records - 1);
        }
        (gone, before - self.records)
    }

    /// Drops the oldest of this rank until `bytes` are free; returns their numbers, and how many they are.
    pub(super) fn evict(&mut self, rank: Rank, bytes: u64) -> (Vec<RangeInclusive<Number>>, u64) {
        let (mut gone, mut freed, before) = (Vec::new(), 0, self.records);
        for at in 0..self.runs.len() {
            if freed >= bytes {
                break;
            }
            let run = &mut self.runs[at];
            if run.rank != rank {
                continue;
            }
            let each = (run.bytes / run.records).max(1);
            let records = (bytes - freed).div_ceil(each).min(run.records);
            join(&mut gone, run.first..=run.first + records - 1);
            let cut = run.cut_front(records);
            freed += cut;
            self.forget(records, cut);
        }
        self.runs.retain(|run| run.records > 0);
        (gone, before - self.records)
    }

    fn forget(&mut self, records: u64, bytes: u64) {
        self.records -= records;
        self.bytes -= bytes;
    }
}

impl Run {
    /// Whether a record that lies beside it belongs to it.
    fn takes(&self, entry: Entry) -> bool {
        let same_clock = matches!(
            (self.oldest, entry.since),
            (Since::Here(_), Since::Here(_)) | (Since::Earlier(_), Since::Earlier(_))
        );
        self.records < LONGEST && self.rank == entry.rank && same_clock
    }

    /// One of its records; all count as equally large.
    fn share(&self, since: Since) -> Entry {
        Entry {
            rank: self.rank,
            bytes: self.bytes / self.records,
            since,
        }
    }

    /// Takes off its oldest records; returns their bytes.
    fn cut_front(&mut self, records: u64) -> u64 {
        let cut = if records == self.records {
            self.bytes
        } else {
            self.bytes / self.records * records
        };
        self.oldest = self.oldest.towards(self.newest, records, self.records - 1);
        self.first += records;
        self.records -= records;
        self.bytes -= cut;
        cut
    }
}

impl Since {
    /// The point `steps` of `all` steps on the way to `other`.
    fn towards(self, other: Since, steps: u64, all: u64) -> Since {
        #[expect(clippy::cast_precision_loss, reason = "a run has 64 records")]
        let share = if all == 0 {
            0.0
        } else {
            (steps.min(all) as f64) / all as f64
        };
        match (self, other) {
            (Since::Here(from), Since::Here(to)) if from <= to => {
                Since::Here(from + (to - from).mul_f64(share))
            }
            (Since::Here(from), Since::Here(to)) => {
                Since::Here(to + (from - to).mul_f64(1.0 - share))
            }
            (Since::Earlier(from), Since::Earlier(to)) => {
                let way = to.duration_since(from).mul_f64(share);
                Since::Earlier(from.checked_add(way).unwrap_or(from))
            }
            (Since::Here(_), Since::Earlier(_)) | (Since::Earlier(_), Since::Here(_)) => self,
        }
    }
}

/// Adds a range to ascending ones; touching ones become one.
fn join(ranges: &mut Vec<RangeInclusive<Number>>, next: RangeInclusive<Number>) {
    match ranges.last_mut() {
        Some(last) if *last.end() + 1 == *next.start() => *last = *last.start()..=*next.end(),
        Some(_) | None => ranges.push(next),
    }
}
