//! Keeps the database: one turn after the other, on a thread of its own. Carries out what the outboxes decide.

mod disk;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::boots::Boots;
use super::database::{Database, FILE};
use super::ledger::Ledger;
use super::mark::Mark;
use super::plan::Plan;
use super::rows::{Destination, Row, Trouble};
use super::{Batch, Draft, Keeping, Limits, Lost, Record, Standing, Turn};
use crate::domain::memory::Memory;
use crate::domain::moment::{CLOCK_TOLERANCE, Moment, Now};
use crate::domain::outbox::{self, Fate, Number, Outbox, Rank, Since, Want};

/// In memory nothing may take more than this, whatever `outbox.max_bytes` says.
const MEMORY: u64 = 4 << 20;

/// Share of the file that records may take, in percent; the rest is the tables' own.
const PAYLOAD_PERCENT: u64 = 75;

/// Name under which it is remembered when the machine started, each time.
const BOOTS: &str = "boots";

/// Name under which the last event is remembered that may have been told.
const TOLD: &str = "told";

/// The database and all that is known of its records.
pub(super) struct Keeper {
    folder: PathBuf,
    limits: Limits,
    /// Tells moments of this boot from those of others.
    boot: i64,
    database: Database,
    keeping: watch::Sender<Keeping>,
    mark: Option<Mark>,
    outboxes: [Outbox; 2],
    ledgers: [Ledger; 2],
    /// The last number of each journal.
    last: [Number; 2],
    /// Events up to this number may have been told, with the time that they carry.
    told: Number,
    boots: Boots,
    remembered: Map<String, Value>,
    plan: Plan,
    /// Grows when the journals are read anew: what was handed out before waits again.
    reloads: u64,
}

impl Keeper {
    /// Opens the database in `folder`, whatever state it is in: what is damaged is set aside and what is readable of
    /// it taken over; where nothing can be written, memory has to do.
    pub(super) fn open(
        folder: PathBuf,
        limits: Limits,
        boot: &str,
        now: Now,
        keeping: watch::Sender<Keeping>,
    ) -> anyhow::Result<Keeper> {
        let mut keeper = Keeper {
            database: Database::in_memory(MEMORY)?,
            folder,
            limits,
            boot: i64::from(crc32fast::hash(boot.as_bytes())),
            keeping,
            mark: None,
            outboxes: [Outbox::new(limits.age), Outbox::new(limits.age)],
            ledgers: Default::default(),
            last: [0; 2],
            told: 0,
            boots: Boots::default(),
            remembered: Map::new(),
            plan: Plan::default(),
            reloads: 0,
        };
        if let Err(why) = keeper.move_to_disk(now) {
            // What can't be written may still be readable.
            if let Ok(old) = Database::look(&keeper.folder.join(FILE)) {
                keeper.plan.memory = old.remembered().unwrap_or_default();
                keeper.remembered = keeper.plan.memory.clone();
            }
            keeper.stay_in_memory(&why);
        }
        keeper.flush(now);
        Ok(keeper)
    }

    /// What the judge and the relay remember.
    pub(super) fn memory(&self) -> Memory {
        let mut memory: Memory =
            serde_json::from_value(Value::Object(self.remembered.clone())).unwrap_or_default();
        memory.seq = memory.seq.max(self.last[Destination::Relay as usize]);
        memory
    }

    /// Remembers what has changed.
    pub(super) fn remember(&mut self, memory: &Memory) {
        let Ok(Value::Object(fields)) = serde_json::to_value(memory) else {
            return;
        };
        for (name, value) in fields {
            if self.remembered.get(&name) != Some(&value) {
                self.remember_field(&name, value);
                self.plan.urgent = true;
            }
        }
    }

    fn remember_field(&mut self, name: &str, value: Value) {
        self.remembered.insert(name.to_owned(), value.clone());
        self.plan.memory.insert(name.to_owned(), value);
    }

    /// Other limits, from now on.
    pub(super) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
        for outbox in &mut self.outboxes {
            outbox.set_longest(limits.age);
        }
    }

    /// Carries out one turn.
    pub(super) fn turn(&mut self, turn: Turn) -> Batch {
        let Turn {
            destination: of,
            now,
            ..
        } = turn;
        self.plan.now_ms = now.sure.then(|| now.wall.as_millisecond());
        if self.boots.learn(self.boot, now) {
            let boots = serde_json::to_value(&self.boots).unwrap_or_default();
            self.remember_field(BOOTS, boots);
        }
        for (number, fate) in turn.settled {
            if self.outboxes[of as usize].settle(number, fate) {
                self.gone(of, number..=number, fate);
            }
        }
        for (at, number) in turn.not_counted {
            self.discount(at, number);
        }
        if turn.hand_back {
            self.outboxes[of as usize].hand_back();
        }
        for range in turn.announced {
            self.ledgers[of as usize].announced(range.clone());
            self.plan.gone.push((of, range));
        }
        for draft in turn.put {
            self.put(of, draft);
        }
        for of in Destination::ALL {
            for range in self.outboxes[of as usize].expire(now) {
                self.gone(of, range, Fate::Expired);
            }
        }
        let reloads = self.reloads;
        let mut records = turn
            .take
            .map_or_else(Vec::new, |want| self.take(of, want, now));
        if self.plan.urgent {
            self.flush(now);
        }
        if self.reloads != reloads {
            // They wait again, where they are still there, and have not been sent.
            for record in records.drain(..).filter(|record| record.counts) {
                self.discount(record.at, record.number);
            }
        }
        let outbox = &self.outboxes[of as usize];
        let lost = self.ledgers[of as usize].unannounced().into_iter();
        Batch {
            records,
            lost: lost.map(|(range, fate)| Lost { range, fate }).collect(),
            standing: Standing {
                pending: outbox.pending(),
                oldest: outbox.oldest(now),
                dropped: outbox.dropped(),
                more: outbox.has_waiting(),
            },
        }
    }

    /// Whether something waits to be written.
    pub(super) fn is_dirty(&self) -> bool {
        !self.plan.is_empty()
    }

    /// Whether the records survive a restart.
    pub(super) fn is_on_disk(&self) -> bool {
        *self.keeping.borrow() == Keeping::OnDisk
    }

    fn put(&mut self, of: Destination, draft: Draft) {
        let last = &mut self.last[of as usize];
        let number = draft.number.unwrap_or(*last + 1);
        let skipped = *last + 1..=number.saturating_sub(1);
        let is_first = *last == 0;
        *last = number.max(*last);
        if is_first {
            self.remember_field(of.first_name(), Value::from(number));
        } else if !skipped.is_empty() {
            self.lose(of, skipped, Fate::Corrupt);
        }
        let row = Row {
            number,
            rank: draft.rank,
            boot: self.boot,
            moment_ms: milliseconds(draft.moment.since_boot()),
            wall_ms: draft.wall.as_millisecond(),
            period_ms: draft.period.map_or(0, milliseconds),
            payload: draft.payload,
        };
        let limit = if self.is_on_disk() {
            self.limits.bytes
        } else {
            MEMORY
        };
        let limit = limit / 100 * PAYLOAD_PERCENT;
        for (place, range) in outbox::make_room(&mut self.outboxes, row.bytes(), limit) {
            self.gone(Destination::ALL[place], range, Fate::Full);
        }
        let entry = outbox::Entry {
            rank: row.rank,
            bytes: row.bytes(),
            since: Since::Here(draft.moment),
        };
        self.outboxes[of as usize].put(number, entry);
        self.plan.inserts.insert((of, number), row);
        self.plan.urgent = true;
    }

    fn take(&mut self, of: Destination, want: Want, now: Now) -> Vec<Record> {
        let mut records = Vec::new();
        for number in self.outboxes[of as usize].take(want) {
            let row = match self.plan.inserts.get(&(of, number)) {
                Some(row) => Some(row.clone()),
                None => self.fetch(of, number, now),
            };
            match row {
                Some(row) => records.push(self.hand_out(of, row, now)),
                None if self.outboxes[of as usize].settle(number, Fate::Corrupt) => {
                    self.gone(of, number..=number, Fate::Corrupt);
                }
                // It went with the file, which has been dealt with.
                None => {}
            }
        }
        records
    }

    fn fetch(&mut self, of: Destination, number: Number, now: Now) -> Option<Row> {
        match self.database.fetch(of, number) {
            Ok(row) => return row,
            Err(Trouble::Corrupt(why)) => self.leave_behind(&why, now),
            Err(error @ (Trouble::Full | Trouble::Unusable(_))) => {
                self.stay_in_memory(&error.to_string());
            }
        }
        self.database.fetch(of, number).ok().flatten()
    }

    /// A record on its way, with the time at which it happened as it is known now.
    fn hand_out(&mut self, of: Destination, mut row: Row, now: Now) -> Record {
        let kept = Timestamp::from_millisecond(row.wall_ms).unwrap_or(now.wall);
        let here = row.boot == self.boot;
        // Where nobody vouches for the time, this machine's clock of now still knows better than that of then.
        let likely = if here {
            now.wall_at(moment(row.moment_ms))
        } else {
            kept
        };
        let is_close = likely.duration_since(kept).abs() <= CLOCK_TOLERANCE;
        let likely = if is_close { kept } else { likely };
        let mut at = self.boots.time(row.boot, row.moment_ms, likely);
        let mut counts = false;
        match of {
            // An event that may have been told keeps its time: a repetition must be the same.
            Destination::Relay if row.number <= self.told => at = kept,
            Destination::Relay => {
                self.told = row.number;
                self.remember_field(TOLD, Value::from(row.number));
                if at != kept {
                    row.wall_ms = at.as_millisecond();
                    self.plan.restamped.push((of, row.clone()));
                    self.plan.urgent = true;
                }
            }
            Destination::CloudWatch if row.period_ms > 0 => {
                at = nearest(at, row.period_ms, row.wall_ms);
                counts = row.rank == Rank::Metric && self.counts(at.as_millisecond(), row.number);
            }
            Destination::CloudWatch => {}
        }
        Record {
            number: row.number,
            rank: row.rank,
            at,
            age: if here {
                now.moment - moment(row.moment_ms)
            } else {
                Duration::MAX
            },
            counts,
            payload: row.payload,
        }
    }

    /// Whether this record may count for the period: no other has, and it has not itself, as far as anybody knows.
    fn counts(&mut self, at: i64, number: Number) -> bool {
        if self.plan.counted.contains_key(&at) {
            return false;
        }
        // Where that can't be read, it may have.
        let holder = self.database.counted(at).unwrap_or(Some(number));
        let is_void = |holder| self.plan.discounted.contains(&(at, holder));
        let free = holder.is_none_or(is_void);
        if free {
            self.plan.counted.insert(at, number);
            self.plan.urgent = true;
        }
        free
    }

    /// This record certainly has not counted for the period.
    fn discount(&mut self, at: Timestamp, number: Number) {
        let at = at.as_millisecond();
        if self.plan.counted.get(&at) == Some(&number) {
            self.plan.counted.remove(&at);
        }
        self.plan.discounted.push((at, number));
        // After a crash before this is on disk, nobody would know, and it would never count.
        self.plan.urgent = true;
    }

    /// These records have met their fate.
    fn gone(&mut self, of: Destination, range: RangeInclusive<Number>, fate: Fate) {
        self.plan.drop_inserts(of, &range);
        self.ledgers[of as usize].note(&range, fate);
        if fate.is_loss() {
            let (first, last) = (range.start(), range.end());
            tracing::warn!(
                journal = of.name(),
                first,
                last,
                cause = fate.name(),
                "records are lost"
            );
        }
        self.plan.gone.push((of, range));
    }

    /// These records are not there any more, and nobody knows how.
    fn lose(&mut self, of: Destination, range: RangeInclusive<Number>, fate: Fate) {
        self.outboxes[of as usize].count_lost(range.end() - range.start() + 1);
        self.gone(of, range, fate);
        self.plan.urgent = true;
    }
}

fn moment(milliseconds: i64) -> Moment {
    Moment::after_boot(Duration::from_millis(
        u64::try_from(milliseconds).unwrap_or(0),
    ))
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// The end of a period that lies nearest to `at`, where one is at `end_ms`: however the clock was set since, the ends
/// stay a period apart, and where this node has them.
fn nearest(at: Timestamp, period_ms: i64, end_ms: i64) -> Timestamp {
    let phase = end_ms.rem_euclid(period_ms);
    let whole = (at.as_millisecond() - phase + period_ms / 2).div_euclid(period_ms);
    Timestamp::from_millisecond(whole * period_ms + phase).unwrap_or(at)
}
