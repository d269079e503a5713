//! Looks into the store from outside, also while the agent runs; changes nothing and holds nobody up.

mod soundness;

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::database::{Answer, Database, FILE, Maker};
use super::rows::{Destination, Entry, Row, Trouble};
use crate::domain::memory::Memory;
use crate::domain::outbox::{Fate, Number, Rank};
pub use soundness::Soundness;

/// What an agent remembered in `folder`; nothing where there is no store, or none that can be read.
#[must_use]
pub fn memory(folder: &Path) -> Memory {
    let fields: Answer<_> = Database::look(&folder.join(FILE)).and_then(|it| it.remembered());
    let fields = serde_json::Value::Object(fields.unwrap_or_default());
    serde_json::from_value(fields).unwrap_or_default()
}

/// When anything was last written in `folder`; `None` where there is no store.
#[must_use]
pub fn last_written(folder: &Path) -> Option<Timestamp> {
    let files = [FILE.to_owned(), format!("{FILE}-wal")];
    let written = files.iter().filter_map(|name| {
        let written = std::fs::metadata(folder.join(name)).ok()?.modified().ok()?;
        Timestamp::try_from(written).ok()
    });
    written.max()
}

/// The outboxes of a node, looked at from outside.
#[derive(Debug)]
pub struct Outboxes {
    path: PathBuf,
    /// None where no agent has kept anything yet.
    database: Option<Database>,
}

/// How one journal stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Journal {
    /// Records that wait.
    pub pending: u64,
    /// What they take, about.
    pub bytes: u64,
    /// Times of the oldest and the newest of them.
    pub span: Option<(Timestamp, Timestamp)>,
    /// Numbers that do not wait any more, in order.
    pub gone: Vec<Gone>,
}

/// Neighbouring numbers that met the same fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// The numbers.
    pub range: RangeInclusive<Number>,
    /// What became of them.
    pub fate: Fate,
    /// Times of the first and the last of them, where they are known.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Whether the receiver knows of the loss, where it is one.
    pub announced: bool,
}

impl Gone {
    /// How many numbers they are.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.range.end() - self.range.start()).saturating_add(1)
    }
}

/// A record that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its number in its journal.
    pub number: Number,
    /// What kind it is.
    pub rank: Rank,
    /// When it happened, or its period ended, by the clock of then.
    pub at: Timestamp,
    /// Length of the period that it measures.
    pub period: Option<Duration>,
    /// What is sent of it.
    pub payload: Vec<u8>,
}

/// The file can't be read: names it, says why, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} {what}")]
pub struct Unreadable {
    path: String,
    what: String,
}

impl Outboxes {
    /// Opens those in `folder`. Where nothing was ever kept there are none, and that is no error.
    ///
    /// # Errors
    /// The file can't be read, is damaged from the start, or is not this sideline's.
    pub fn open(folder: &Path) -> Result<Self, Unreadable> {
        let mut outboxes = Outboxes {
            path: folder.join(FILE),
            database: None,
        };
        // SQLite would not say why it can't.
        match File::open(&outboxes.path).and_then(|file| file.metadata()) {
            Ok(file) if file.is_file() => {}
            Ok(_) => return Err(outboxes.unreadable("is no file; check paths.state")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(outboxes),
            Err(error) => {
                let mend = if error.kind() == io::ErrorKind::PermissionDenied {
                    "run this as root"
                } else {
                    "check paths.state"
                };
                return Err(outboxes.unreadable(&format!("can't be read: {error}; {mend}")));
            }
        }
        let database = Database::look(&outboxes.path).map_err(|error| outboxes.trouble(&error))?;
        let what = match database.maker() {
            Ok(Maker::Nobody) => return Ok(outboxes),
            Ok(Maker::Ours) => None,
            Ok(Maker::Later) => {
                Some("was made by a later sideline; look at it with that one".to_owned())
            }
            Ok(Maker::Stranger) => Some(
                "is another program's database; move it away, or set paths.state to another folder"
                    .to_owned(),
            ),
            Err(error) => return Err(outboxes.trouble(&error)),
        };
        if let Some(what) = what {
            return Err(outboxes.unreadable(&what));
        }
        outboxes.database = Some(database);
        Ok(outboxes)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is one yet.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.database.is_some()
    }

    /// What the node remembers; `None` where nothing was ever kept.
    ///
    /// # Errors
    /// The file is damaged where that would stand, or says what nobody understands.
    pub fn memory(&self) -> Result<Option<Memory>, Unreadable> {
        let Some(database) = &self.database else {
            return Ok(None);
        };
        let fields = database.remembered();
        let fields = fields.map_err(|error| self.trouble(&error))?;
        let memory = serde_json::from_value(serde_json::Value::Object(fields));
        memory
            .map(Some)
            .map_err(|error| self.unreadable(&format!("remembers what is no memory: {error}")))
    }

    /// How a journal stands.
    ///
    /// # Errors
    /// The file is damaged where that would stand.
    pub fn journal(&self, of: Destination) -> Result<Journal, Unreadable> {
        let Some(database) = &self.database else {
            return Ok(Journal::default());
        };
        let journal = database.at_once(|database| {
            let mut journal = Journal::default();
            database.headers(of, |header| {
                let at = time(header.wall_ms);
                let (oldest, newest) = journal.span.unwrap_or((at, at));
                journal.pending += 1;
                journal.bytes += header.bytes;
                journal.span = Some((oldest.min(at), newest.max(at)));
            })?;
            journal.gone = database.ledger(of)?.into_iter().map(gone).collect();
            Ok(journal)
        });
        journal.map_err(|error| self.trouble(&error))
    }

    /// The records that wait, the oldest first; a few at a time are held. Instead of one that can't be read comes its
    /// number and what is wrong, in words; so does damage that hides all that follow.
    pub fn waiting(&self, of: Destination) -> impl Iterator<Item = Result<Waiting, String>> {
        let mut next = self.database.as_ref().map(|database| (database, 0));
        let chunks = std::iter::from_fn(move || {
            let (database, first) = next?;
            let (mut found, mut last) = (Vec::new(), None);
            let read = database.some_rows(of, first, |number, row| {
                last = Some(number);
                let flaw = || format!("{number}: damaged, its checksum is wrong");
                found.push(row.map(waiting).ok_or_else(flaw));
            });
            next = last.map(|last| (database, last + 1));
            if let Err(error) = read {
                let from = last.map_or(first, |last| last + 1);
                found.push(Err(format!(
                    "{from}: from here on nothing can be read: {error}"
                )));
                next = None;
            }
            Some(found)
        });
        chunks.flatten()
    }

    fn trouble(&self, error: &Trouble) -> Unreadable {
        self.unreadable(&match error {
            Trouble::Corrupt(why) => format!(
                "is damaged: {why}; the agent sets it aside when it finds out, at the latest when it starts, and takes \
                 over what is readable"
            ),
            Trouble::Full | Trouble::Unusable(_) => {
                format!("can't be read: {error}; run this as root, or on a copy of its folder")
            }
        })
    }

    fn unreadable(&self, what: &str) -> Unreadable {
        Unreadable {
            path: self.path.display().to_string(),
            what: what.to_owned(),
        }
    }
}

fn gone(entry: Entry) -> Gone {
    Gone {
        range: entry.range,
        fate: entry.fate,
        times: entry
            .times_ms
            .map(|(since, until)| (time(since), time(until))),
        announced: entry.announced,
    }
}

fn waiting(row: Row) -> Waiting {
    let period = u64::try_from(row.period_ms).unwrap_or(0);
    Waiting {
        number: row.number,
        rank: row.rank,
        at: time(row.wall_ms),
        period: (period > 0).then(|| Duration::from_millis(period)),
        payload: row.payload,
    }
}

/// What no clock ever said is taken for the beginning of time.
fn time(wall_ms: i64) -> Timestamp {
    Timestamp::from_millisecond(wall_ms).unwrap_or(Timestamp::UNIX_EPOCH)
}
