//! Room on the disk that is ours already: what fits into it can be written however full the disk becomes.
//!
//! The file never grows by what is written into it, only by [`Room::grow`]: the disk is asked for the blocks first, the
//! file is filled up with an empty record, and that is removed again; its pages are free from then on, and never given
//! back. So the log can always be copied into the file, and is itself never cut below what it was given at the start.

use std::fs::{File, OpenOptions};
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::database::{LOG_ROOM, PAGE};
use super::rows::Trouble;

/// What is asked for at once, at least.
const STEP: u64 = 256 << 10;

/// Less than this is not worth the trouble.
const LEAST_PAGES: i64 = 16;

/// The file of an open database. It must be closed after the connection: to close it lets go of SQLite's locks.
#[derive(Debug)]
pub(super) struct Room {
    file: File,
}

impl Room {
    /// Asks the disk for what the log may take, and sees to it that the file has some room.
    pub(super) fn of(sql: &Connection, path: &Path, max_bytes: u64) -> Result<Room, Trouble> {
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        // Without it a full disk is only found out later.
        if !open(log.as_ref()).is_ok_and(|log| has_blocks(&log, 0, LOG_ROOM)) {
            tracing::debug!("there is no room for the log");
        }
        let file = open(path).map_err(|error| Trouble::Unusable(error.to_string()))?;
        let room = Room { file };
        // Where an earlier life ended amid its work.
        sql.execute("DELETE FROM ballast", [])?;
        let free: i64 = sql.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
        let free = u64::try_from(free * PAGE).unwrap_or(0);
        if free >= STEP / 2 || !room.grow(sql, STEP, max_bytes)? {
            limit(sql, 0)?;
        }
        Ok(room)
    }

    /// Makes the file larger by `bytes` or somewhat more, up to `max_bytes` in all. False: there is no more.
    pub(super) fn grow(
        &self,
        sql: &Connection,
        bytes: u64,
        max_bytes: u64,
    ) -> Result<bool, Trouble> {
        let pages: i64 = sql.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let most = i64::try_from(max_bytes).unwrap_or(i64::MAX) / PAGE;
        let wanted = i64::try_from(bytes.max(STEP)).unwrap_or(i64::MAX) / PAGE;
        let more = wanted.min(most - pages);
        if more < LEAST_PAGES || !has_blocks(&self.file, in_bytes(pages), in_bytes(more)) {
            return Ok(false);
        }
        limit(sql, pages + more)?;
        // What is larger than the log is too large for a full disk, which then says so.
        let grown = checkpoint(sql)
            .and_then(|()| ballast(sql, more))
            .and_then(|()| checkpoint(sql));
        sql.execute("DELETE FROM ballast", [])?;
        limit(sql, 0)?;
        Ok(grown.is_ok())
    }
}

/// Copies the log into the file, so that its room can be used anew.
pub(super) fn checkpoint(sql: &Connection) -> Result<(), Trouble> {
    sql.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(()))?;
    Ok(())
}

/// Bounds the file; no less than it has already.
pub(super) fn limit(sql: &Connection, pages: i64) -> Result<(), Trouble> {
    // It answers with the number that holds now. Zero is no number.
    sql.pragma_update_and_check(None, "max_page_count", pages.max(1), |_| Ok(()))?;
    Ok(())
}

/// Fills so many pages: a page of four bytes less each, and some to manage them.
fn ballast(sql: &Connection, pages: i64) -> Result<(), Trouble> {
    sql.execute(
        "INSERT INTO ballast VALUES (zeroblob(?1))",
        [(pages - 2) * (PAGE - 4)],
    )?;
    Ok(())
}

/// Whether the disk has so many blocks for us there; also where it can't say.
fn has_blocks(file: &File, from: u64, bytes: u64) -> bool {
    match fallocate(file, FallocateFlags::KEEP_SIZE, from, bytes) {
        Err(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => false,
        Ok(()) | Err(_) => true,
    }
}

fn in_bytes(pages: i64) -> u64 {
    u64::try_from(pages * PAGE).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::database::{Database, FILE};
    use super::*;

    /// Of a page that holds nothing else.
    const RECORD: &str = "INSERT INTO ballast VALUES (zeroblob(900))";

    fn size(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().len()
    }

    #[test]
    fn a_file_grows_by_what_it_asks_for_and_by_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        let most = 3 * STEP;
        drop(Database::open(&path, most).unwrap());
        assert!((STEP..2 * STEP).contains(&size(&path)), "{}", size(&path));

        let sql = Connection::open(&path).unwrap();
        let room = Room::of(&sql, &path, most).unwrap();
        for grows in [true, true, false] {
            let before = size(&path);
            let error = loop {
                if let Err(error) = sql.execute(RECORD, []) {
                    break error;
                }
            };
            assert_eq!(Trouble::from(error), Trouble::Full);
            checkpoint(&sql).unwrap();
            assert_eq!(size(&path), before, "what is written has its room already");
            assert_eq!(room.grow(&sql, STEP, most).unwrap(), grows);
            let grown = if grows {
                before + 1..=most
            } else {
                before..=before
            };
            assert!(grown.contains(&size(&path)), "{before} to {}", size(&path));
        }
    }
}
