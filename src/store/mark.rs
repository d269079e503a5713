//! A small file beside the database: the last numbers given out, and the lock that keeps a second agent away.
//!
//! It is written after every commit and never flushed: it costs no wait. Where the database has lost its latest
//! commits, it tells how far the numbers had come, so that none is given out twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::domain::outbox::Number;

/// The file's name in `paths.state`.
const FILE: &str = "sideline.mark";

/// How far the numbers have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Numbers {
    /// Of CloudWatch's journal.
    pub(super) cloudwatch: Number,
    /// Of the relay's journal: `seq`.
    pub(super) relay: Number,
    /// Of the relay's sessions.
    pub(super) session: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
    written: Numbers,
}

impl Mark {
    /// Opens and locks it.
    ///
    /// # Errors
    /// It can't be written, or another agent holds it.
    pub(super) fn open(folder: &Path) -> io::Result<Mark> {
        let path = folder.join(FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.mode(0o640).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(io::Error::other("another sideline uses the folder"));
            }
            Err(error) => return Err(error.into()),
        }
        let text = io::read_to_string(&file)?;
        // Zeroes, half a line: then nothing is known, which is what it was before there was a mark.
        let written = serde_json::from_str(text.trim_end()).unwrap_or_default();
        Ok(Mark { file, written })
    }

    /// What it said when it was opened, or was written since.
    pub(super) fn numbers(&self) -> Numbers {
        self.written
    }

    /// Writes it, where it has changed.
    pub(super) fn write(&mut self, numbers: Numbers) {
        if numbers == self.written {
            return;
        }
        self.written = numbers;
        let Numbers {
            cloudwatch,
            relay,
            session,
        } = numbers;
        // Of one length, so that no write leaves the end of an older one behind.
        let line = format!(
            "{:<100}\n",
            format!(r#"{{"cloudwatch":{cloudwatch},"relay":{relay},"session":{session}}}"#)
        );
        // Where even this fails, the database is in trouble as well, and says so.
        let _ = self.file.write_all_at(line.as_bytes(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_again_and_a_second_agent_is_kept_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut mark = Mark::open(folder.path()).unwrap();
        let numbers = Numbers {
            cloudwatch: 1_440,
            relay: 7,
            session: 2,
        };
        assert_eq!(mark.numbers(), Numbers::default());
        mark.write(numbers);
        let second = Mark::open(folder.path()).unwrap_err();
        assert_eq!(second.to_string(), "another sideline uses the folder");
        drop(mark);
        assert_eq!(Mark::open(folder.path()).unwrap().numbers(), numbers);
    }

    #[test]
    fn garbage_means_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for garbage in ["", "\0\0\0\0", "{\"relay\":", "{\"relay\":-1}"] {
            std::fs::write(folder.path().join(FILE), garbage).unwrap();
            let numbers = Mark::open(folder.path()).unwrap().numbers();
            assert_eq!(numbers, Numbers::default(), "{garbage:?}");
        }
    }
}
