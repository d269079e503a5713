//! What to send, retry and evict next; never sends. Two lanes: current state first, then the journal in order.
//!
//! Invariants: a record leaves only when it is acknowledged, refused, expired or evicted, and the last three
//! are counted in `dropped`; a record that is in flight is never handed out again before `release`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::moment::Moment;

/// First and longest pause after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Names one record of one outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(u64);

/// What goes first when the journal is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A period's measurements.
    Metric,
    /// Something that happened.
    Transition,
}

/// Bounds of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the journal, in bytes.
    pub bytes: u64,
    /// Of a record of the journal.
    pub age: Duration,
}

/// Records on their way to one destination.
#[derive(Debug, Clone)]
pub struct Outbox<T> {
    limits: Limits,
    state: BTreeMap<String, Entry<T>>,
    journal: VecDeque<Entry<T>>,
    journal_bytes: u64,
    next_id: u64,
    dropped: u64,
    failures: u32,
    quiet_until: Moment,
}

#[derive(Debug, Clone)]
struct Entry<T> {
    id: Id,
    rank: Rank,
    record: T,
    bytes: u64,
    since: Moment,
    in_flight: bool,
}

impl<T> Outbox<T> {
    /// An empty outbox.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Outbox {
            limits,
            state: BTreeMap::new(),
            journal: VecDeque::new(),
            journal_bytes: 0,
            next_id: 0,
            dropped: 0,
            failures: 0,
            quiet_until: Moment::BOOT,
        }
    }

    /// Current state of `subject`: replaces what waits for the same subject.
    pub fn put_state(&mut self, subject: &str, record: T, now: Moment) {
        let entry = self.entry(Rank::Transition, record, 0, now);
        self.state.insert(subject.to_owned(), entry);
    }

    /// A record of the journal, `bytes` large; makes room by dropping the oldest of the lowest rank.
    pub fn put(&mut self, rank: Rank, record: T, bytes: u64, now: Moment) {
        let entry = self.entry(rank, record, bytes, now);
        self.journal_bytes += bytes;
        self.journal.push_back(entry);
        while self.journal_bytes > self.limits.bytes {
            let oldest = |rank| {
                self.journal
                    .iter()
                    .position(|entry| entry.rank == rank && !entry.in_flight)
            };
            let Some(victim) = oldest(Rank::Metric).or_else(|| oldest(Rank::Transition)) else {
                break;
            };
            self.drop_at(victim);
        }
    }

    /// Hands out records that wait and marks them as in flight: at most `max`, state first, then at most
    /// `journal` of the journal in order. With each the moment since when it has waited.
    pub fn take(&mut self, max: usize, journal: usize, now: Moment) -> Vec<(Id, Moment, &T)> {
        self.expire(now);
        if now < self.quiet_until {
            return Vec::new();
        }
        let waits = |entry: &&mut Entry<T>| !entry.in_flight;
        self.state
            .values_mut()
            .filter(waits)
            .chain(self.journal.iter_mut().filter(waits).take(journal))
            .take(max)
            .map(|entry| {
                entry.in_flight = true;
                (entry.id, entry.since, &entry.record)
            })
            .collect()
    }

    /// The destination has it.
    pub fn acknowledge(&mut self, id: Id) {
        self.remove(id);
        self.failures = 0;
        self.quiet_until = Moment::BOOT;
    }

    /// The destination will never take it: dropped and counted.
    pub fn refuse(&mut self, id: Id) {
        if self.remove(id).is_some() {
            self.dropped += 1;
        }
    }

    /// The destination refused a record that can be taken apart: its parts take its place.
    pub fn replace(
        &mut self,
        id: Id,
        parts: impl DoubleEndedIterator<Item = (T, u64)>,
        now: Moment,
    ) {
        let Some(at) = self.journal.iter().position(|entry| entry.id == id) else {
            return;
        };
        let Some(whole) = self.journal.remove(at) else {
            return;
        };
        self.journal_bytes = self.journal_bytes.saturating_sub(whole.bytes);
        for (record, bytes) in parts.rev() {
            let mut entry = self.entry(whole.rank, record, bytes, now);
            entry.since = whole.since;
            self.journal_bytes += bytes;
            self.journal.insert(at, entry);
        }
    }

    /// Nothing in flight will be acknowledged any more: everything waits again, after a pause.
    ///
    /// `jitter` is 0 to 1, so that a fleet does not come back in one beat.
    pub fn release(&mut self, now: Moment, jitter: f64) {
        for entry in self.state.values_mut().chain(self.journal.iter_mut()) {
            entry.in_flight = false;
        }
        let (first, longest) = BACKOFF;
        let pause = first
            .saturating_mul(1 << self.failures.min(16))
            .min(longest);
        self.quiet_until = now + pause.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        self.failures += 1;
    }

    /// Nothing in flight will be acknowledged any more, and whoever carries it has paused already.
    pub fn release_at_once(&mut self) {
        for entry in self.state.values_mut().chain(self.journal.iter_mut()) {
            entry.in_flight = false;
        }
        self.quiet_until = Moment::BOOT;
    }

    /// Changes a record of the journal that waits or is in flight.
    pub fn edit(&mut self, id: Id, change: impl FnOnce(&mut T)) {
        if let Some(entry) = self.journal.iter_mut().find(|entry| entry.id == id) {
            change(&mut entry.record);
        }
    }

    /// When something may be taken, if something waits: now or after the pause.
    #[must_use]
    pub fn ready_at(&self) -> Option<Moment> {
        let waits = self
            .state
            .values()
            .chain(&self.journal)
            .any(|entry| !entry.in_flight);
        waits.then_some(self.quiet_until)
    }

    /// Records that are not acknowledged.
    #[must_use]
    pub fn pending(&self) -> u64 {
        (self.state.len() + self.journal.len()) as u64
    }

    /// How long the oldest of them has been here.
    #[must_use]
    pub fn oldest(&self, now: Moment) -> Duration {
        let oldest = self
            .state
            .values()
            .chain(self.journal.front())
            .map(|entry| entry.since)
            .min();
        oldest.map_or(Duration::ZERO, |since| now - since)
    }

    /// Records lost so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn entry(&mut self, rank: Rank, record: T, bytes: u64, now: Moment) -> Entry<T> {
        self.next_id += 1;
        Entry {
            id: Id(self.next_id),
            rank,
            record,
            bytes,
            since: now,
            in_flight: false,
        }
    }

    fn expire(&mut self, now: Moment) {
        while self
            .journal
            .front()
            .is_some_and(|entry| !entry.in_flight && now - entry.since > self.limits.age)
        {
            self.drop_at(0);
        }
    }

    fn drop_at(&mut self, at: usize) {
        if let Some(entry) = self.journal.remove(at) {
            self.journal_bytes = self.journal_bytes.saturating_sub(entry.bytes);
            self.dropped += 1;
        }
    }

    fn remove(&mut self, id: Id) -> Option<T> {
        if let Some(at) = self.journal.iter().position(|entry| entry.id == id) {
            let entry = self.journal.remove(at)?;
            self.journal_bytes = self.journal_bytes.saturating_sub(entry.bytes);
            return Some(entry.record);
        }
        let subject = self
            .state
            .iter()
            .find(|(_, entry)| entry.id == id)
            .map(|(subject, _)| subject.clone())?;
        self.state.remove(&subject).map(|entry| entry.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        bytes: 4,
        age: Duration::from_secs(100),
    };

    fn at(seconds: u64) -> Moment {
        Moment::after_boot(Duration::from_secs(seconds))
    }

    fn taken(outbox: &mut Outbox<&'static str>, max: usize, now: Moment) -> Vec<&'static str> {
        outbox
            .take(max, max, now)
            .into_iter()
            .map(|(_, _, record)| *record)
            .collect()
    }

    #[test]
    fn state_first_then_the_journal_in_order_and_nothing_twice() {
        let mut outbox = Outbox::new(LIMITS);
        outbox.put(Rank::Transition, "one", 1, at(1));
        outbox.put(Rank::Transition, "two", 1, at(2));
        outbox.put_state("health", "ill", at(3));
        outbox.put_state("health", "well", at(4));
        assert_eq!(taken(&mut outbox, 2, at(5)), ["well", "one"]);
        assert_eq!(taken(&mut outbox, 9, at(5)), ["two"]);
        assert_eq!((outbox.pending(), outbox.ready_at()), (3, None));
    }

    #[test]
    fn a_newer_state_outlives_the_acknowledgement_of_the_older() {
        let mut outbox = Outbox::new(LIMITS);
        outbox.put_state("health", "ill", at(1));
        let old = outbox.take(1, 1, at(1))[0].0;
        outbox.put_state("health", "well", at(2));
        outbox.acknowledge(old);
        assert_eq!(taken(&mut outbox, 9, at(2)), ["well"]);
    }

    #[test]
    fn a_full_journal_drops_the_oldest_metrics_before_any_transition() {
        let mut outbox = Outbox::new(LIMITS);
        for (rank, name) in [
            (Rank::Transition, "t1"),
            (Rank::Metric, "m1"),
            (Rank::Metric, "m2"),
            (Rank::Transition, "t2"),
            (Rank::Metric, "m3"),
            (Rank::Transition, "t3"),
            (Rank::Transition, "t4"),
            (Rank::Transition, "t5"),
        ] {
            outbox.put(rank, name, 1, at(1));
        }
        assert_eq!(
            (taken(&mut outbox, 9, at(1)), outbox.dropped()),
            (vec!["t2", "t3", "t4", "t5"], 4)
        );
    }

    #[test]
    fn failures_pause_longer_and_longer_and_success_ends_the_pause() {
        let mut outbox = Outbox::new(Limits {
            age: Duration::from_secs(86_400),
            ..LIMITS
        });
        outbox.put(Rank::Metric, "m", 1, at(0));
        let mut pauses = Vec::new();
        for _ in 0..10 {
            let now = outbox.ready_at().unwrap();
            assert_eq!(taken(&mut outbox, 1, now), ["m"]);
            outbox.release(now, 1.0);
            pauses.push((outbox.ready_at().unwrap() - now).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    }

    #[test]
    fn what_is_too_old_is_dropped_and_counted() {
        let mut outbox = Outbox::new(LIMITS);
        outbox.put(Rank::Metric, "old", 1, at(0));
        outbox.put(Rank::Metric, "new", 1, at(50));
        assert_eq!(
            (taken(&mut outbox, 9, at(120)), outbox.dropped()),
            (vec!["new"], 1)
        );
    }

    #[test]
    fn a_record_taken_apart_keeps_its_place_and_age() {
        let mut outbox = Outbox::new(LIMITS);
        outbox.put(Rank::Metric, "ab", 2, at(1));
        outbox.put(Rank::Metric, "c", 1, at(2));
        let whole = outbox.take(1, 1, at(3))[0].0;
        outbox.replace(whole, [("a", 1), ("b", 1)].into_iter(), at(3));
        assert_eq!(outbox.oldest(at(3)), Duration::from_secs(2));
        assert_eq!(taken(&mut outbox, 9, at(3)), ["a", "b", "c"]);
    }

    proptest! {
        /// Every record put in is acknowledged, dropped and counted, or still pending; never two of them.
        #[test]
        fn nothing_is_lost_uncounted(steps in prop::collection::vec((0..5u8, 0..3u64), 0..200)) {
            let mut outbox = Outbox::new(LIMITS);
            let (mut put, mut acknowledged, mut flying) = (0_u64, 0_u64, Vec::new());
            for (second, (step, bytes)) in steps.into_iter().enumerate() {
                let now = at(second as u64 * 7);
                match step {
                    0 => { outbox.put(Rank::Metric, "m", bytes, now); put += 1; }
                    1 => { outbox.put(Rank::Transition, "t", bytes, now); put += 1; }
                    2 => flying.extend(outbox.take(2, 2, now).into_iter().map(|(id, _, _)| id)),
                    3 => if let Some(id) = flying.pop() { outbox.acknowledge(id); acknowledged += 1; },
                    _ => { outbox.release(now, 0.0); flying.clear(); }
                }
                prop_assert_eq!(put, acknowledged + outbox.dropped() + outbox.pending());
            }
        }
    }
}
