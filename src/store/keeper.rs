//! Keeps the database: one turn after the other, on a thread of its own. Carries out what the outboxes decide.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::database::{Database, Destination, FILE, Header, Row, Trouble};
use super::ledger::Ledger;
use super::mark::{Mark, Numbers};
use super::plan::Plan;
use super::salvage;
use super::{Batch, Draft, Keeping, Limits, Lost, Record, Standing, Turn};
use crate::domain::memory::Memory;
use crate::domain::moment::{CLOCK_TOLERANCE, Moment, Now};
use crate::domain::outbox::{self, Fate, Number, Outbox, Rank, Since, Want};

/// In memory nothing may take more than this, whatever `outbox.max_bytes` says.
const MEMORY: u64 = 4 << 20;

/// Share of the file that records may take, in percent; the rest is the tables' own.
const PAYLOAD_PERCENT: u64 = 75;

/// A commit that finds no room is tried so often, each time with more room made.
const ATTEMPTS: u32 = 6;

/// Room that is made at least when the file is full.
const LEAST_ROOM: u64 = 64 << 10;

/// Records that a rescue writes in one commit.
const RESCUED_AT_ONCE: usize = 256;

/// What became of records is kept in at most so many ranges.
const LEDGER_ENTRIES: usize = 10_000;

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
                self.remembered.insert(name.clone(), value.clone());
                self.plan.memory.insert(name, value);
                self.plan.urgent = true;
            }
        }
    }

    /// Other limits, from now on.
    pub(super) fn limit(&mut self, limits: Limits) {
        self.limits = limits;
        for outbox in &mut self.outboxes {
            outbox.set_longest(limits.age);
        }
        if self.is_on_disk()
            && let Err(error) = self.database.limit(limits.bytes)
        {
            tracing::warn!(%error, "the database's size can't be bounded");
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
        for (number, fate) in turn.settled {
            if self.outboxes[of as usize].settle(number, fate) {
                self.gone(of, number..=number, fate);
            }
        }
        for (at, number) in turn.not_counted {
            self.plan.counted.remove(&at.as_millisecond());
            self.plan.discounted.push((at.as_millisecond(), number));
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
            let back = records.drain(..).filter(|record| record.counts);
            let back = back.map(|record| (record.at.as_millisecond(), record.number));
            self.plan.discounted.extend(back);
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

    /// Commits what waits to be written, whatever it takes: room is made where there is none, a damaged file is left
    /// behind, and where nothing helps memory has to do.
    pub(super) fn flush(&mut self, now: Now) {
        for attempt in 0..ATTEMPTS {
            let written = self
                .database
                .commit(|database| self.plan.write(database, &self.ledgers));
            match written {
                Ok(()) => {
                    self.plan = Plan::default();
                    self.write_mark();
                    return;
                }
                Err(Trouble::Full) => self.make_room(attempt),
                Err(Trouble::Corrupt(why)) => self.leave_behind(&why, now),
                Err(Trouble::Unusable(why)) => self.stay_in_memory(&why),
            }
        }
        if self.is_on_disk() {
            self.stay_in_memory(&Trouble::Full.to_string());
            return self.flush(now);
        }
        tracing::error!("records can't even be kept in memory");
        self.plan = Plan::default();
    }

    /// Moves from memory to the disk, with everything; `Err` says why that can't be done now.
    pub(super) fn move_to_disk(&mut self, now: Now) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        std::fs::create_dir_all(&self.folder).map_err(text)?;
        if self.mark.is_none() {
            self.mark = Some(Mark::open(&self.folder).map_err(text)?);
        }
        let path = self.folder.join(FILE);
        let (database, damaged) = match Database::open(&path, self.limits.bytes) {
            Ok(database) => (database, None),
            Err(Trouble::Corrupt(why)) => {
                let aside = salvage::set_aside(&path, now.wall).map_err(text)?;
                tracing::error!(why, aside = %aside.display(), "the database is damaged: set aside");
                let fresh = Database::open(&path, self.limits.bytes);
                (fresh.map_err(|error| error.to_string())?, Some(aside))
            }
            Err(error @ (Trouble::Full | Trouble::Unusable(_))) => return Err(error.to_string()),
        };
        let memory = std::mem::replace(&mut self.database, database);
        self.keeping.send_replace(Keeping::OnDisk);
        let loaded = self.load();
        if let Some(aside) = damaged {
            self.pour(&aside, now);
        } else if let Err(error) = loaded {
            self.leave_behind(&error.to_string(), now);
        }
        self.take_over(&memory, now);
        self.announce_gaps();
        self.flush(now);
        Ok(())
    }

    fn put(&mut self, of: Destination, draft: Draft) {
        let last = &mut self.last[of as usize];
        let number = draft.number.unwrap_or(*last + 1);
        let skipped = *last + 1..=number.saturating_sub(1);
        let knew = *last > 0;
        *last = number.max(*last);
        if knew && !skipped.is_empty() {
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
        let moment = moment(row.moment_ms);
        let here = row.boot == self.boot;
        let kept = Timestamp::from_millisecond(row.wall_ms).unwrap_or(now.wall);
        let known = if here { now.wall_at(moment) } else { kept };
        let is_better = known.duration_since(kept).abs() > CLOCK_TOLERANCE;
        let mut at = if is_better { known } else { kept };
        let mut counts = false;
        match of {
            // An event that may have been told keeps its time: a repetition must be the same.
            Destination::Relay if is_better && row.number > self.told => {
                row.wall_ms = at.as_millisecond();
                self.plan.restamped.push((of, row.clone()));
                self.plan.urgent = true;
            }
            Destination::Relay => at = kept,
            Destination::CloudWatch if row.period_ms > 0 => {
                at = nearest(at, row.period_ms);
                counts = row.rank == Rank::Metric && self.counts(at.as_millisecond(), row.number);
            }
            Destination::CloudWatch => {}
        }
        if of == Destination::Relay {
            self.told = self.told.max(row.number);
        }
        Record {
            number: row.number,
            rank: row.rank,
            at,
            age: if here {
                now.moment - moment
            } else {
                Duration::MAX
            },
            counts,
            payload: row.payload,
        }
    }

    /// Whether this record may count for the period: no other has, and it has not itself, as far as anybody knows.
    fn counts(&mut self, at: i64, number: Number) -> bool {
        let holder = match self.plan.counted.get(&at) {
            Some(holder) => Some(*holder),
            None => self.database.counted(at).unwrap_or(Some(number)),
        };
        let free = holder.is_none_or(|holder| self.plan.discounted.contains(&(at, holder)));
        if free {
            self.plan.counted.insert(at, number);
            self.plan.urgent = true;
        }
        free
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

    /// The file is full: first what the log holds makes room, then the oldest records go.
    fn make_room(&mut self, attempt: u32) {
        if let Err(error) = self.database.checkpoint() {
            tracing::debug!(%error, "the log can't be emptied");
        }
        if attempt == 0 {
            return;
        }
        let planned: u64 = self.plan.inserts.values().map(Row::bytes).sum();
        let taken: u64 = self.outboxes.iter().map(Outbox::bytes).sum();
        let room = (LEAST_ROOM << attempt).max(2 * planned);
        let limit = taken.saturating_sub(room);
        for (place, range) in outbox::make_room(&mut self.outboxes, 0, limit) {
            self.gone(Destination::ALL[place], range, Fate::Full);
        }
    }

    /// The file is damaged: it is set aside, and what is readable of it goes into a new one.
    fn leave_behind(&mut self, why: &str, now: Now) {
        let path = self.folder.join(FILE);
        if !self.is_on_disk() {
            return self.stay_in_memory(why);
        }
        // Closed before it is renamed: SQLite would go on writing into it.
        if let Ok(nothing) = Database::in_memory(MEMORY) {
            self.database = nothing;
        }
        let fresh = salvage::set_aside(&path, now.wall)
            .map_err(|error| error.to_string())
            .and_then(|aside| {
                let fresh = Database::open(&path, self.limits.bytes);
                fresh
                    .map(|fresh| (fresh, aside))
                    .map_err(|error| error.to_string())
            });
        match fresh {
            Ok((fresh, aside)) => {
                tracing::error!(why, aside = %aside.display(), "the database is damaged: set aside");
                self.database = fresh;
                // What is known here is newer than what the file says.
                let remembered = self.remembered.clone();
                self.pour(&aside, now);
                self.plan.memory.clone_from(&remembered);
                self.remembered = remembered;
                self.announce_gaps();
            }
            Err(error) => self.stay_in_memory(&error),
        }
    }

    /// Takes over what is readable of a damaged file.
    fn pour(&mut self, aside: &std::path::Path, now: Now) {
        // To be read it must be opened for writing: its log has to be played.
        match Database::open(aside, u64::MAX).or_else(|_| Database::look(aside)) {
            Ok(old) => self.take_over(&old, now),
            Err(error) => tracing::error!(%error, "nothing of the damaged database can be read"),
        }
    }

    /// Takes over everything that another database holds.
    fn take_over(&mut self, old: &Database, now: Now) {
        for (name, value) in old.remembered().unwrap_or_default() {
            self.plan.memory.insert(name.clone(), value.clone());
            self.remembered.insert(name, value);
        }
        let counted = &mut self.plan.counted;
        // What can't be read counts as not counted.
        let _ = old.all_counted(|at, number| {
            counted.insert(at, number);
        });
        for of in Destination::ALL {
            let entries = old.ledger(of).unwrap_or_default();
            for entry in &entries {
                self.last[of as usize] = self.last[of as usize].max(*entry.range.end());
                self.plan.gone.push((of, entry.range.clone()));
            }
            self.ledgers[of as usize].take_in(entries);
            let end = self.numbers_end(of);
            let mut rows = Vec::new();
            salvage::rescue(old, of, end, &mut |row| {
                rows.push(row);
                if rows.len() >= RESCUED_AT_ONCE {
                    self.adopt(of, std::mem::take(&mut rows), now);
                }
            });
            self.adopt(of, rows, now);
        }
        self.reload_outboxes();
    }

    fn adopt(&mut self, of: Destination, rows: Vec<Row>, now: Now) {
        for row in rows {
            self.last[of as usize] = self.last[of as usize].max(row.number);
            self.plan.inserts.insert((of, row.number), row);
        }
        if self.plan.inserts.len() >= RESCUED_AT_ONCE {
            self.flush(now);
        }
    }

    /// No record can have a number beyond this.
    fn numbers_end(&self, of: Destination) -> Number {
        let marked = self.mark.as_ref().map(Mark::numbers).unwrap_or_default();
        let marked = match of {
            Destination::CloudWatch => marked.cloudwatch,
            Destination::Relay => marked.relay.max(self.remembered_number("seq")),
        };
        // A mark may be a few behind, or gone.
        marked.max(self.last[of as usize]) + (1 << 20)
    }

    /// Learns what the database holds.
    fn load(&mut self) -> Result<(), Trouble> {
        self.remembered = self.database.remembered()?;
        for of in Destination::ALL {
            let mut ledger = Ledger::default();
            ledger.take_in(self.database.ledger(of)?);
            if let Some(number) = ledger.forget_all_but(LEDGER_ENTRIES) {
                self.database.forget_ledger(of, number)?;
            }
            let mut last = ledger.span().map_or(0, |span| *span.end());
            self.ledgers[of as usize] = ledger;
            self.database
                .headers(of, |header| last = last.max(header.number))?;
            self.last[of as usize] = last;
        }
        self.reload_outboxes();
        Ok(())
    }

    /// The journals as the database and the plan have them. Nothing flies any more.
    fn reload_outboxes(&mut self) {
        self.reloads += 1;
        for of in Destination::ALL {
            let boot = self.boot;
            let mut outbox = Outbox::new(self.limits.age);
            outbox.count_lost(self.outboxes[of as usize].dropped());
            // What is damaged shows at the next look at a record.
            let _ = self
                .database
                .headers(of, |header| outbox.put(header.number, entry(&header, boot)));
            for row in self.plan.inserts_of(of) {
                outbox.put(row.number, entry(&row.header(), boot));
            }
            self.outboxes[of as usize] = outbox;
        }
    }

    /// Numbers that neither wait nor have a fate were lost with the file; so were those that only the mark knows.
    fn announce_gaps(&mut self) {
        let marked = self.mark.as_ref().map(Mark::numbers).unwrap_or_default();
        for (of, known) in [
            (Destination::CloudWatch, marked.cloudwatch),
            (Destination::Relay, marked.relay),
        ] {
            let mut covered = self.ledgers[of as usize].covered();
            let _ = self
                .database
                .headers(of, |header| covered.insert(header.number..=header.number));
            let planned = self.plan.inserts_of(of).map(|row| row.number..=row.number);
            covered.extend(planned);
            let last = self.last[of as usize].max(known);
            let first = covered.first().map_or(1, |range| *range.start());
            let gaps: Vec<_> = covered.gaps(&(first..=last)).collect();
            for gap in gaps.into_iter().filter(|gap| !gap.is_empty()) {
                self.lose(of, gap, Fate::Corrupt);
            }
            self.last[of as usize] = last;
        }
        for (name, known) in [("session", marked.session), ("seq", marked.relay)] {
            let value = Value::from(self.remembered_number(name).max(known));
            self.remembered.insert(name.to_owned(), value.clone());
            self.plan.memory.insert(name.to_owned(), value);
        }
    }

    fn remembered_number(&self, name: &str) -> u64 {
        self.remembered
            .get(name)
            .and_then(Value::as_u64)
            .unwrap_or(0)
    }

    fn write_mark(&mut self) {
        let session = self.remembered_number("session");
        if let Some(mark) = &mut self.mark {
            mark.write(Numbers {
                cloudwatch: self.last[Destination::CloudWatch as usize],
                relay: self.last[Destination::Relay as usize],
                session,
            });
        }
    }

    /// Nothing can be written: from now on memory has to do.
    fn stay_in_memory(&mut self, why: &str) {
        if !self.is_on_disk() && self.reloads > 0 {
            tracing::error!(why, "the outbox in memory can't be used");
            return;
        }
        tracing::error!(folder = %self.folder.display(), why, "the outbox is kept in memory: a restart will lose it");
        match Database::in_memory(MEMORY.min(self.limits.bytes)) {
            Ok(database) => self.database = database,
            Err(error) => tracing::error!(%error, "there is no memory for the outbox"),
        }
        self.plan.memory = self.remembered.clone();
        let why = why.to_owned();
        self.keeping.send_replace(Keeping::InMemory { why });
        self.reload_outboxes();
    }
}

fn entry(header: &Header, boot: i64) -> outbox::Entry {
    outbox::Entry {
        rank: header.rank,
        bytes: header.bytes,
        since: since(header.boot == boot, header.moment_ms, header.wall_ms),
    }
}

fn since(here: bool, moment_ms: i64, wall_ms: i64) -> Since {
    if here {
        Since::Here(moment(moment_ms))
    } else {
        Since::Earlier(Timestamp::from_millisecond(wall_ms).unwrap_or(Timestamp::UNIX_EPOCH))
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

/// The start of a period that lies nearest: periods are aligned to their length since 1970.
fn nearest(at: Timestamp, period_ms: i64) -> Timestamp {
    let aligned = (at.as_millisecond() + period_ms / 2).div_euclid(period_ms) * period_ms;
    Timestamp::from_millisecond(aligned).unwrap_or(at)
}
