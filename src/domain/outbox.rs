//! What to send next and what to let go; never sends, never stores. Two lanes: current state, then the journal.
//!
//! A record is waiting, flying (handed out and not settled) or gone. Only what settles it makes it gone, with a
//! [`Fate`] that says how, so that records put in = waiting + flying + the sum of all fates. The contents are
//! elsewhere: here a record is its number, its rank, its size and its age.

mod current;
mod waiting;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;

use super::moment::{Moment, Now};
pub use current::{Current, Version};
use waiting::Waiting;

/// Numbers the records of one journal: each one more than the one before it, never given out twice.
pub type Number = u64;

/// What goes first when there is no more room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// A period's measurements.
    Metric,
    /// Something that happened.
    Transition,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fate {
    /// The destination has all of it.
    Sent,
    /// The destination has it, but for a count that may have arrived before and must not arrive twice.
    Unsure,
    /// The destination does not take it, or a part of it.
    Refused,
    /// Dropped for want of room.
    Full,
    /// Dropped because it was too old.
    Expired,
    /// Destroyed where it was kept.
    Corrupt,
}

impl Fate {
    /// Every fate.
    pub const ALL: [Fate; 6] = [
        Fate::Sent,
        Fate::Unsure,
        Fate::Refused,
        Fate::Full,
        Fate::Expired,
        Fate::Corrupt,
    ];

    /// The word of the outside.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Sent => "sent",
            Fate::Unsure => "unsure",
            Fate::Refused => "refused",
            Fate::Full => "full",
            Fate::Expired => "expired",
            Fate::Corrupt => "corrupt",
        }
    }

    /// Whether something of the record never arrives.
    #[must_use]
    pub const fn is_loss(self) -> bool {
        match self {
            Fate::Sent | Fate::Unsure => false,
            Fate::Refused | Fate::Full | Fate::Expired | Fate::Corrupt => true,
        }
    }
}

/// Since when a record waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// It was put in since the machine started.
    Here(Moment),
    /// It was put in before, at this time by the machine's clock of then.
    Earlier(Timestamp),
}

impl Since {
    /// How old that is; `None` where only a clock could tell that nobody vouches for.
    fn age(self, now: Now) -> Option<Duration> {
        match self {
            Since::Here(moment) => Some(now.moment - moment),
            Since::Earlier(wall) => now.sure.then(|| positive(now.wall, wall)),
        }
    }

    /// The best guess at how old that is, to be shown.
    fn about(self, now: Now) -> Duration {
        match self {
            Since::Here(moment) => now.moment - moment,
            Since::Earlier(wall) => positive(now.wall, wall),
        }
    }
}

fn positive(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or(Duration::ZERO)
}

/// What an outbox knows of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What kind it is.
    pub rank: Rank,
    /// What it takes, in bytes.
    pub bytes: u64,
    /// Since when it waits.
    pub since: Since,
}

/// How much to hand out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// At most so many records.
    pub records: usize,
    /// No further record once this many bytes are reached.
    pub bytes: u64,
    /// So many of them are the newest that wait: the present goes before the past. The others are the oldest.
    pub newest: usize,
}

/// The journal of one destination.
#[derive(Debug, Clone)]
pub struct Outbox {
    longest: Duration,
    waiting: Waiting,
    flying: BTreeMap<Number, Entry>,
    dropped: u64,
}

impl Outbox {
    /// An empty journal whose records wait at most so long.
    #[must_use]
    pub fn new(longest: Duration) -> Self {
        Outbox {
            longest,
            waiting: Waiting::default(),
            flying: BTreeMap::new(),
            dropped: 0,
        }
    }

    /// A record that waits from now on.
    pub fn put(&mut self, number: Number, entry: Entry) {
        self.waiting.insert(number, entry);
    }

    /// Hands out what goes next. It is flying until it is settled or handed back.
    pub fn take(&mut self, want: Want) -> Vec<Number> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < want.records && bytes < want.bytes {
            let next = if taken.len() < want.newest {
                self.waiting.pop_newest()
            } else {
                self.waiting.pop_oldest()
            };
            let Some((number, entry)) = next else { break };
            bytes += entry.bytes;
            self.flying.insert(number, entry);
            taken.push(number);
        }
        taken
    }

    /// A flying record is gone. False: it was not flying.
    pub fn settle(&mut self, number: Number, fate: Fate) -> bool {
        let was_flying = self.flying.remove(&number).is_some();
        self.dropped += u64::from(was_flying && fate.is_loss());
        was_flying
    }

    /// What flies will not arrive: it waits again, in its old place.
    pub fn hand_back(&mut self) {
        for (number, entry) in std::mem::take(&mut self.flying) {
            self.waiting.insert(number, entry);
        }
    }

    /// Lets go of what waits for too long; returns what. Where only an unsure clock could tell, nothing goes.
    pub fn expire(&mut self, now: Now) -> Vec<RangeInclusive<Number>> {
        let (gone, records) = self.waiting.expire(self.longest, now);
        self.dropped += records;
        gone
    }

    /// Lets go of the oldest of this rank until so many bytes are free, or none are left; returns what.
    pub fn evict(&mut self, rank: Rank, bytes: u64) -> Vec<RangeInclusive<Number>> {
        let (gone, records) = self.waiting.evict(rank, bytes);
        self.dropped += records;
        gone
    }

    /// Records of which something was lost outside of this outbox.
    pub fn count_lost(&mut self, records: u64) {
        self.dropped += records;
    }

    /// Another limit for the age, from now on.
    pub fn set_longest(&mut self, longest: Duration) {
        self.longest = longest;
    }

    /// Whether something can be taken.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.waiting.records() > 0
    }

    /// Records that are not gone.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.waiting.records() + self.flying.len() as u64
    }

    /// What they take, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let flying: u64 = self.flying.values().map(|entry| entry.bytes).sum();
        self.waiting.bytes() + flying
    }

    /// How long the oldest of them has been here.
    #[must_use]
    pub fn oldest(&self, now: Now) -> Duration {
        let flying = self.flying.values().map(|entry| entry.since);
        let oldest = flying.chain(self.waiting.oldest());
        oldest
            .map(|since| since.about(now))
            .max()
            .unwrap_or_default()
    }

    /// Records lost so far, or of which something was lost.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Makes room for `bytes` more where all journals together may take `limit`: the oldest measurements go first, then
/// the oldest transitions of the largest journal. Returns what goes, by the journal's place in `outboxes`.
pub fn make_room(
    outboxes: &mut [Outbox],
    bytes: u64,
    limit: u64,
) -> Vec<(usize, RangeInclusive<Number>)> {
    let mut gone = Vec::new();
    for rank in [Rank::Metric, Rank::Transition] {
        let mut order: Vec<usize> = (0..outboxes.len()).collect();
        order.sort_by_key(|place| std::cmp::Reverse(outboxes[*place].bytes()));
        for place in order {
            let taken: u64 = outboxes.iter().map(Outbox::bytes).sum();
            let missing = (taken + bytes).saturating_sub(limit);
            let evicted = outboxes[place].evict(rank, missing);
            gone.extend(evicted.into_iter().map(|range| (place, range)));
        }
    }
    gone
}

#[cfg(test)]
mod tests;
