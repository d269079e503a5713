//! Looking at a database that somebody else may be writing: many short reads, and nothing is changed.

use std::path::Path;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::SchemaVersion;

use super::{
    APPLICATION, Answer, Database, Destination, Number, Row, migrations, row, signed, unsigned,
};

/// Rows of one read: while somebody reads, the log can't be used anew, so no read may wait for a slow pipe.
const ROWS_AT_ONCE: i64 = 256;

/// And no further row once so many bytes are reached.
const BYTES_AT_ONCE: u64 = 256 << 10;

/// Whose tables they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Maker {
    /// This version of ours.
    Ours,
    /// A later one, which may mean other things by the same names.
    Later,
    /// Another program.
    Stranger,
    /// Nobody: there are none yet.
    Nobody,
}

impl Database {
    /// Opens the file to look at it; changes nothing.
    ///
    /// # Errors
    /// It is not there, or can't be read. Damage shows when something is asked.
    pub(in crate::store) fn look(path: &Path) -> Answer<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let sql = Connection::open_with_flags(path, flags)?;
        let tried = sql.pragma_query_value(None, "schema_version", |_| Ok(()));
        let code = tried.err().and_then(|error| error.sqlite_error_code());
        // SQLite wants a log beside the file, even an empty one. Where none is and none can be made, on a disk that
        // has become read-only, the file alone is everything.
        let alone = matches!(code, Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly));
        if !alone || has_log(path) {
            return Ok(Database { sql, room: None });
        }
        let name = percent_encode(path.as_os_str().as_encoded_bytes(), NON_ALPHANUMERIC);
        let name = format!("file:{name}?immutable=1");
        let flags = flags | OpenFlags::SQLITE_OPEN_URI;
        Ok(Database {
            sql: Connection::open_with_flags(name, flags)?,
            room: None,
        })
    }

    /// Whose tables these are.
    ///
    /// # Errors
    /// As any statement; a file that is no database shows here.
    pub(in crate::store) fn maker(&self) -> Answer<Maker> {
        let theirs: i32 = self
            .sql
            .pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version = migrations().current_version(&self.sql);
        Ok(if self.length("sqlite_schema")? == 0 {
            Maker::Nobody
        } else if theirs != APPLICATION {
            Maker::Stranger
        } else if matches!(version, Ok(SchemaVersion::Outside(_))) {
            Maker::Later
        } else {
            Maker::Ours
        })
    }

    /// Looks several times at one and the same state.
    ///
    /// # Errors
    /// Whatever `look` says.
    pub(in crate::store) fn at_once<T>(&self, look: impl FnOnce(&Self) -> Answer<T>) -> Answer<T> {
        let _held = self.sql.unchecked_transaction()?;
        look(self)
    }

    /// Rows of a table, also those that make no sense.
    ///
    /// # Errors
    /// As any statement.
    pub(in crate::store) fn length(&self, table: &str) -> Answer<u64> {
        let statement = format!("SELECT count(*) FROM {table}");
        let count = self.sql.query_row(&statement, [], |row| row.get(0))?;
        Ok(unsigned(count))
    }

    /// A few records from this number on; `None` instead of one whose checksum is wrong.
    ///
    /// # Errors
    /// As any statement; `each` has had what was read before.
    pub(in crate::store) fn some_rows(
        &self,
        from: Destination,
        first: Number,
        mut each: impl FnMut(Number, Option<Row>),
    ) -> Answer<()> {
        let statement = format!(
            "SELECT * FROM {} WHERE number >= ?1 ORDER BY number LIMIT ?2",
            from.name()
        );
        let mut statement = self.sql.prepare_cached(&statement)?;
        let mut rows = statement.query([signed(first), ROWS_AT_ONCE])?;
        let mut bytes = 0;
        while bytes < BYTES_AT_ONCE
            && let Some(next) = rows.next()?
        {
            let number = unsigned(next.get(0)?);
            // What has a wrong type was no more written so than what has a wrong checksum.
            let row = row(next).ok().flatten();
            bytes += row.as_ref().map_or(0, Row::bytes);
            each(number, row);
        }
        Ok(())
    }
}

/// Whether something may be in the log that is not in the file.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}
