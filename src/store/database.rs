//! The database file: its tables, and every SQL statement.
//!
//! SQLite with a write-ahead log and `synchronous=FULL`: what is committed survives a power cut. SQLite does not see
//! bits that flip inside of a row, so every row carries a checksum.

mod look;

use std::ops::RangeInclusive;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row as Sql, params};
use rusqlite_migration::{M, Migrations};

use super::room::{self, Room};
use super::rows::{Destination, Entry, Header, ROW, Row, Trouble, rank_code};
use crate::domain::outbox::{Fate, Number, Rank};
pub(super) use look::Maker;

/// The file's name in `paths.state`.
pub const FILE: &str = "sideline.db";

/// Marks the file as ours: "side".
const APPLICATION: i32 = i32::from_be_bytes(*b"side");

/// Small pages: a period's commit touches few of them, and each is written whole.
pub(super) const PAGE: i64 = 1024;

/// What SQLite may cache.
const CACHE_KIB: i64 = 128;

/// The write-ahead log is copied into the file when it has so many pages.
const LOG_PAGES: i64 = 512;

/// What it is given of the disk, and never cut below: the last commit before it is copied may be a large one.
pub(super) const LOG_ROOM: u64 = 1 << 20;

/// What SQL says, or why it can't.
pub(super) type Answer<T> = Result<T, Trouble>;

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    sql: Connection,
    /// Closed after the connection; `None` in memory and where nothing is written.
    room: Option<Room>,
}

impl Database {
    /// Opens the file, makes it or brings it up to date.
    ///
    /// # Errors
    /// It can't be used, is damaged, is not ours, or is of a later version.
    pub(super) fn open(path: &Path, max_bytes: u64) -> Answer<Self> {
        let mut database = Self::prepare(Connection::open(path)?)?;
        database.room = Some(Room::of(&database.sql, path, max_bytes)?);
        Ok(database)
    }

    /// Opens a file that was set aside, to read what can be read of it and of its log.
    ///
    /// # Errors
    /// It can't be used.
    pub(super) fn set_aside(path: &Path) -> Answer<Self> {
        let sql = Connection::open(path)?;
        Ok(Database { sql, room: None })
    }

    /// A database in memory, for when there is no file to write.
    ///
    /// # Errors
    /// There is no memory.
    pub(super) fn in_memory(max_bytes: u64) -> Answer<Self> {
        let database = Self::prepare(Connection::open_in_memory()?)?;
        let pages = i64::try_from(max_bytes).unwrap_or(i64::MAX) / PAGE;
        room::limit(&database.sql, pages)?;
        Ok(database)
    }

    fn prepare(mut sql: Connection) -> Answer<Self> {
        sql.pragma_update(None, "page_size", PAGE)?;
        sql.pragma_update(None, "cache_size", -CACHE_KIB)?;
        let theirs: i32 = sql.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let tables: i64 =
            sql.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 && theirs != APPLICATION {
            return Err(Trouble::Corrupt("it is not sideline's".to_owned()));
        }
        // Before anything is written: where a list of free pages is damaged, a write destroys what could still be read.
        let whole: String = sql.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if whole != "ok" {
            return Err(Trouble::Corrupt(whole));
        }
        sql.pragma_update(None, "journal_mode", "WAL")?;
        sql.pragma_update(None, "synchronous", "FULL")?;
        sql.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        sql.pragma_update(None, "journal_size_limit", signed(LOG_ROOM))?;
        sql.pragma_update(None, "application_id", APPLICATION)?;
        migrations().to_latest(&mut sql).map_err(|error| {
            if let rusqlite_migration::Error::RusqliteError { err, .. } = error {
                Trouble::from(err)
            } else {
                Trouble::Corrupt(error.to_string())
            }
        })?;
        Ok(Database { sql, room: None })
    }

    /// Takes room for so many bytes from the disk, up to a file of `max_bytes`. False: there is no more.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn grow(&self, bytes: u64, max_bytes: u64) -> Answer<bool> {
        match &self.room {
            Some(room) => room.grow(&self.sql, bytes, max_bytes),
            None => Ok(false),
        }
    }

    /// Does all of it, or nothing.
    ///
    /// # Errors
    /// Whatever `job` says, or the commit.
    pub(super) fn commit(&self, job: impl FnOnce(&Self) -> Answer<()>) -> Answer<()> {
        let transaction = self.sql.unchecked_transaction()?;
        job(self)?;
        transaction.commit()?;
        Ok(())
    }

    /// What SQLite itself finds wrong with the file; empty where it is whole.
    ///
    /// # Errors
    /// It can't even look.
    pub(super) fn check(&self) -> Answer<Vec<String>> {
        let mut found = Vec::new();
        let checked = self.sql.pragma_query(None, "integrity_check", |row| {
            let text: String = row.get(0)?;
            // One finding may have several lines, with a headline.
            let lines = text.lines().filter(|line| !line.starts_with("***"));
            found.extend(lines.map(str::to_owned));
            Ok(())
        });
        found.retain(|line| line != "ok");
        match checked {
            // It stumbles over what it has found.
            Err(error) if found.is_empty() => Err(error.into()),
            Ok(()) | Err(_) => Ok(found),
        }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn insert(&self, to: Destination, row: &Row) -> Answer<()> {
        let statement = format!(
            "INSERT OR REPLACE INTO {} VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            to.name()
        );
        self.sql.prepare_cached(&statement)?.execute(params![
            signed(row.number),
            rank_code(row.rank),
            row.boot,
            row.moment_ms,
            row.wall_ms,
            row.period_ms,
            row.checksum(),
            row.payload,
        ])?;
        Ok(())
    }

    /// Gives a record the time at which it happened, now that it is known better.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn restamp(&self, to: Destination, row: &Row) -> Answer<()> {
        let statement = format!(
            "UPDATE {} SET wall = ?2, checksum = ?3 WHERE number = ?1",
            to.name()
        );
        let mut statement = self.sql.prepare_cached(&statement)?;
        statement.execute(params![signed(row.number), row.wall_ms, row.checksum()])?;
        Ok(())
    }

    /// A record; `None` where there is none, or one whose checksum is wrong.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn fetch(&self, from: Destination, number: Number) -> Answer<Option<Row>> {
        let statement = format!("SELECT * FROM {} WHERE number = ?1", from.name());
        let mut statement = self.sql.prepare_cached(&statement)?;
        let row = statement.query_row([signed(number)], row).optional()?;
        Ok(row.flatten())
    }

    /// The records of a range; those whose checksum is wrong are left out.
    ///
    /// # Errors
    /// As any statement; `each` has had what was read before.
    pub(super) fn rows(
        &self,
        from: Destination,
        range: &RangeInclusive<Number>,
        mut each: impl FnMut(Row),
    ) -> Answer<()> {
        let statement = format!(
            "SELECT * FROM {} WHERE number BETWEEN ?1 AND ?2 ORDER BY number",
            from.name()
        );
        let mut statement = self.sql.prepare(&statement)?;
        let mut rows = statement.query([signed(*range.start()), signed(*range.end())])?;
        while let Some(next) = rows.next()? {
            if let Some(row) = row(next)? {
                each(row);
            }
        }
        Ok(())
    }

    /// All records without their payloads, in order.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn headers(&self, from: Destination, mut each: impl FnMut(Header)) -> Answer<()> {
        let statement = format!(
            "SELECT number, rank, boot, moment, wall, length(payload) FROM {} ORDER BY number",
            from.name()
        );
        let mut statement = self.sql.prepare(&statement)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(Header {
                number: unsigned(row.get(0)?),
                rank: rank(row.get(1)?),
                boot: row.get(2)?,
                moment_ms: row.get(3)?,
                wall_ms: row.get(4)?,
                bytes: unsigned(row.get(5)?) + ROW,
            });
        }
        Ok(())
    }

    /// Removes a range; returns the times of the first and the last record that were there.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn delete(
        &self,
        from: Destination,
        range: &RangeInclusive<Number>,
    ) -> Answer<Option<(i64, i64)>> {
        let statement = format!(
            "DELETE FROM {} WHERE number BETWEEN ?1 AND ?2 RETURNING wall",
            from.name()
        );
        let mut statement = self.sql.prepare_cached(&statement)?;
        let mut walls = statement.query([signed(*range.start()), signed(*range.end())])?;
        let mut times = None;
        while let Some(row) = walls.next()? {
            let wall = row.get(0)?;
            times = Some(join(times, (wall, wall)));
        }
        Ok(times)
    }

    /// What became of earlier records; entries whose checksum is wrong are left out.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn ledger(&self, of: Destination) -> Answer<Vec<Entry>> {
        let mut statement = self.sql.prepare_cached(
            "SELECT first, last, fate, since, until, announced, checksum FROM ledger \
             WHERE journal = ?1 ORDER BY first",
        )?;
        let entries = statement.query_map([of.code()], |row| {
            let fate: String = row.get(2)?;
            let times: (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
            let (first, last): (i64, i64) = (row.get(0)?, row.get(1)?);
            let whole = row.get::<_, u32>(6)? == seal(of, first, last, &fate);
            let fate = Fate::ALL.into_iter().find(|one| one.name() == fate);
            let entry = |fate| Entry {
                range: unsigned(first)..=unsigned(last),
                fate,
                times_ms: times.0.zip(times.1),
                announced: row.get(5).unwrap_or(false),
            };
            Ok(fate.filter(|_| whole && first <= last).map(entry))
        })?;
        Ok(entries
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect())
    }

    /// Puts an entry in the place of all that it covers.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn note(&self, of: Destination, entry: &Entry) -> Answer<()> {
        let (first, last) = (signed(*entry.range.start()), signed(*entry.range.end()));
        let mut covered = self.sql.prepare_cached(
            "DELETE FROM ledger WHERE journal = ?1 AND first BETWEEN ?2 AND ?3 RETURNING since, until",
        )?;
        let mut covered = covered.query(params![of.code(), first, last])?;
        let mut times = entry.times_ms;
        while let Some(row) = covered.next()? {
            let one: (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
            times = one.0.zip(one.1).map(|one| join(times, one)).or(times);
        }
        let mut insert = self
            .sql
            .prepare_cached("INSERT INTO ledger VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
        insert.execute(params![
            of.code(),
            first,
            last,
            entry.fate.name(),
            times.map(|times| times.0),
            times.map(|times| times.1),
            entry.announced,
            seal(of, first, last, entry.fate.name()),
        ])?;
        Ok(())
    }

    /// Forgets what became of records up to this number.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn forget_ledger(&self, of: Destination, up_to: Number) -> Answer<()> {
        let mut statement = self
            .sql
            .prepare_cached("DELETE FROM ledger WHERE journal = ?1 AND last <= ?2")?;
        statement.execute(params![of.code(), signed(up_to)])?;
        Ok(())
    }

    /// The record that counts for this period, where one does.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn counted(&self, at_ms: i64) -> Answer<Option<Number>> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT number FROM counted WHERE at = ?1")?;
        let number: Option<i64> = statement.query_row([at_ms], |row| row.get(0)).optional()?;
        Ok(number.map(unsigned))
    }

    /// All periods that count, and their records.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn all_counted(&self, mut each: impl FnMut(i64, Number)) -> Answer<()> {
        let mut statement = self.sql.prepare("SELECT at, number FROM counted")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(row.get(0)?, unsigned(row.get(1)?));
        }
        Ok(())
    }

    /// This record counts for this period.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn count(&self, at_ms: i64, number: Number) -> Answer<()> {
        let mut statement = self
            .sql
            .prepare_cached("INSERT OR REPLACE INTO counted VALUES (?1, ?2)")?;
        statement.execute([at_ms, signed(number)])?;
        Ok(())
    }

    /// This record certainly was not counted for this period.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn discount(&self, at_ms: i64, number: Number) -> Answer<()> {
        let mut statement = self
            .sql
            .prepare_cached("DELETE FROM counted WHERE at = ?1 AND number = ?2")?;
        statement.execute([at_ms, signed(number)])?;
        Ok(())
    }

    /// Forgets periods that are too old to be told.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn forget_counted(&self, before_ms: i64) -> Answer<()> {
        let mut statement = self
            .sql
            .prepare_cached("DELETE FROM counted WHERE at < ?1")?;
        statement.execute([before_ms])?;
        Ok(())
    }

    /// What is remembered, by name, as JSON.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn remembered(&self) -> Answer<serde_json::Map<String, serde_json::Value>> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT name, value, checksum FROM memory")?;
        let mut rows = statement.query([])?;
        let mut all = serde_json::Map::new();
        while let Some(row) = rows.next()? {
            let (name, value, checksum): (String, String, u32) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            if checksum == crc32fast::hash(value.as_bytes())
                && let Ok(value) = serde_json::from_str(&value)
            {
                all.insert(name, value);
            }
        }
        Ok(all)
    }

    /// Remembers a value, as JSON, under a name.
    ///
    /// # Errors
    /// As any statement.
    pub(super) fn remember(&self, name: &str, value: &serde_json::Value) -> Answer<()> {
        let value = value.to_string();
        let mut statement = self
            .sql
            .prepare_cached("INSERT OR REPLACE INTO memory VALUES (?1, ?2, ?3)")?;
        statement.execute(params![name, value, crc32fast::hash(value.as_bytes())])?;
        Ok(())
    }
}

fn migrations() -> Migrations<'static> {
    Migrations::new(vec![M::up(include_str!("schema.sql"))])
}

/// A row of a journal; `None` where its checksum is wrong.
fn row(sql: &Sql<'_>) -> rusqlite::Result<Option<Row>> {
    let row = Row {
        number: unsigned(sql.get(0)?),
        rank: rank(sql.get(1)?),
        boot: sql.get(2)?,
        moment_ms: sql.get(3)?,
        wall_ms: sql.get(4)?,
        period_ms: sql.get(5)?,
        payload: sql.get(7)?,
    };
    let checksum: u32 = sql.get(6)?;
    Ok((row.checksum() == checksum).then_some(row))
}

/// The checksum of an entry of the ledger.
fn seal(of: Destination, first: i64, last: i64, fate: &str) -> u32 {
    crc32fast::hash(format!("{} {first} {last} {fate}", of.code()).as_bytes())
}

/// What is neither is kept as long as anything.
const fn rank(code: i64) -> Rank {
    if code == 0 {
        Rank::Metric
    } else {
        Rank::Transition
    }
}

fn join(times: Option<(i64, i64)>, other: (i64, i64)) -> (i64, i64) {
    times.map_or(other, |times| (times.0.min(other.0), times.1.max(other.1)))
}

/// SQLite's numbers are signed; ours never come near the limit.
fn signed(number: Number) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn unsigned(number: i64) -> Number {
    Number::try_from(number).unwrap_or(0)
}
