//! The keeper and its disk: commits, whatever it takes, moves between disk and memory, and what is saved of a damaged file.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use jiff::Timestamp;
use serde_json::Value;

use super::super::Keeping;
use super::super::database::{Database, FILE};
use super::super::ledger::Ledger;
use super::super::mark::{Mark, Numbers};
use super::super::plan::Plan;
use super::super::rows::{Destination, Header, Row, Trouble};
use super::super::salvage;
use super::{BOOTS, Keeper, MEMORY, TOLD, moment};
use crate::domain::moment::Now;
use crate::domain::outbox::{self, Fate, Number, Outbox, Since};

/// A commit that finds no room is tried so often, each time with more room made.
const ATTEMPTS: u32 = 4;

/// Room that is made at least when the file is full.
const LEAST_ROOM: u64 = 64 << 10;

/// Records that a rescue writes in one commit.
const RESCUED_AT_ONCE: usize = 256;

/// What became of records is kept in at most so many ranges.
const LEDGER_ENTRIES: usize = 10_000;

impl Keeper {
    /// Commits what waits to be written, whatever it takes: room is made where there is none, a damaged file is left
    /// behind, and where nothing helps memory has to do.
    pub(in crate::store) fn flush(&mut self, now: Now) {
        for _ in 0..ATTEMPTS {
            let written = self
                .database
                .commit(|database| self.plan.write(database, &self.ledgers));
            match written {
                Ok(()) => {
                    self.plan = Plan::default();
                    self.write_mark();
                    return;
                }
                Err(Trouble::Full) => self.make_room(),
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
    pub(in crate::store) fn move_to_disk(&mut self, now: Now) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        if self.is_dirty() {
            self.flush(now);
        }
        let mut folder = DirBuilder::new();
        folder
            .recursive(true)
            .mode(0o750)
            .create(&self.folder)
            .map_err(text)?;
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
        let was_used = self.reloads > 0;
        let memory = std::mem::replace(&mut self.database, database);
        self.keeping.send_replace(Keeping::OnDisk);
        let loaded = self.load();
        if let Some(aside) = damaged {
            self.pour(&aside, now);
        } else if let Err(error) = loaded {
            self.leave_behind(&error.to_string(), now);
        }
        if was_used {
            self.take_over(&memory, now);
        }
        self.announce_gaps();
        self.flush(now);
        Ok(())
    }

    /// The file is full: it grows, and where it can't the oldest records go, but no more of them than are in the way:
    /// where that does not help, they are better kept.
    fn make_room(&mut self) {
        let planned: u64 = self.plan.inserts.values().map(Row::bytes).sum();
        let room = LEAST_ROOM.max(2 * planned);
        match self.database.grow(room, self.limits.bytes) {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "the file can't grow"),
        }
        let taken: u64 = self.outboxes.iter().map(Outbox::bytes).sum();
        let limit = taken.saturating_sub(room);
        for (place, range) in outbox::make_room(&mut self.outboxes, 0, limit) {
            self.gone(Destination::ALL[place], range, Fate::Full);
        }
    }

    /// The file is damaged: it is set aside, and what is readable of it goes into a new one.
    pub(super) fn leave_behind(&mut self, why: &str, now: Now) {
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
    fn pour(&mut self, aside: &Path, now: Now) {
        // To be read it must be opened for writing: its log has to be played.
        match Database::set_aside(aside).or_else(|_| Database::look(aside)) {
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
            let (known, last) = (self.ledgers[of as usize].covered(), self.last_known(of));
            let mut rows = Vec::new();
            salvage::rescue(old, of, known, last, &mut |row| {
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

    /// The last number of a journal, by all that tells of it.
    fn last_known(&self, of: Destination) -> Number {
        let marked = self.mark.as_ref().map(Mark::numbers).unwrap_or_default();
        let marked = match of {
            Destination::CloudWatch => marked.cloudwatch,
            Destination::Relay => marked.relay.max(self.remembered_number("seq")),
        };
        marked.max(self.last[of as usize])
    }

    /// Learns what the database holds.
    fn load(&mut self) -> Result<(), Trouble> {
        self.remembered = self.database.remembered()?;
        for of in Destination::ALL {
            let mut ledger = Ledger::default();
            ledger.take_in(self.database.ledger(of)?);
            if let Some(number) = ledger.forget_all_but(LEDGER_ENTRIES) {
                self.database.forget_ledger(of, number)?;
                self.remember_field(of.first_name(), Value::from(number + 1));
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
        self.told = self.remembered_number(TOLD).max(self.told);
        let boots = self.remembered.get(BOOTS).cloned().unwrap_or_default();
        self.boots = serde_json::from_value(boots).unwrap_or_default();
        for of in Destination::ALL {
            let (here, boots) = (self.boot, &self.boots);
            let entry = |header: &Header| outbox::Entry {
                rank: header.rank,
                bytes: header.bytes,
                since: if header.boot == here {
                    Since::Here(moment(header.moment_ms))
                } else {
                    let kept = Timestamp::from_millisecond(header.wall_ms).unwrap_or_default();
                    Since::Earlier(boots.time(header.boot, header.moment_ms, kept))
                },
            };
            let mut outbox = Outbox::new(self.limits.age);
            outbox.count_lost(self.outboxes[of as usize].dropped());
            // What is damaged shows at the next look at a record.
            let _ = self
                .database
                .headers(of, |header| outbox.put(header.number, entry(&header)));
            for row in self.plan.inserts_of(of) {
                outbox.put(row.number, entry(&row.header()));
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
            let first = self.remembered_number(of.first_name()).max(1);
            let gaps: Vec<_> = covered.gaps(&(first..=last)).collect();
            for gap in gaps.into_iter().filter(|gap| !gap.is_empty()) {
                self.lose(of, gap, Fate::Corrupt);
            }
            self.last[of as usize] = last;
        }
        for (name, known) in [("session", marked.session), ("seq", marked.relay)] {
            let value = Value::from(self.remembered_number(name).max(known));
            self.remember_field(name, value);
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
    pub(in crate::store) fn stay_in_memory(&mut self, why: &str) {
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
