//! What the database holds: journals, records and what became of them.

use std::ops::RangeInclusive;

use rusqlite::ErrorCode;

use crate::domain::outbox::{Fate, Number, Rank};

/// Bytes that a row takes beside its payload, about.
pub(super) const ROW: u64 = 48;

/// A journal that is kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// Periods and changes of health, numbered here.
    CloudWatch,
    /// Events, numbered by the judge (`seq`).
    Relay,
}

impl Destination {
    /// Both, in the order of their numbers here.
    pub const ALL: [Destination; 2] = [Destination::CloudWatch, Destination::Relay];

    /// The outlet's name, and its table's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Destination::CloudWatch => "cloudwatch",
            Destination::Relay => "relay",
        }
    }

    /// Name under which its first number is remembered: nobody asks for those before.
    pub(super) const fn first_name(self) -> &'static str {
        match self {
            Destination::CloudWatch => "first_cloudwatch",
            Destination::Relay => "first_relay",
        }
    }

    pub(super) const fn code(self) -> i64 {
        match self {
            Destination::CloudWatch => 0,
            Destination::Relay => 1,
        }
    }
}

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// Its number in its journal.
    pub(super) number: Number,
    /// What goes first when there is no more room.
    pub(super) rank: Rank,
    /// The boot in which it was made, numbered by this store.
    pub(super) boot: i64,
    /// When it happened, in milliseconds since that boot.
    pub(super) moment_ms: i64,
    /// When it happened, by the clock of then, in milliseconds since 1970.
    pub(super) wall_ms: i64,
    /// Length of the period that it measures, in milliseconds; 0 for what is no period.
    pub(super) period_ms: i64,
    /// What is sent of it.
    pub(super) payload: Vec<u8>,
}

impl Row {
    /// What it takes in the file, about.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.payload.len() as u64 + ROW
    }

    /// All but the payload.
    #[must_use]
    pub(super) fn header(&self) -> Header {
        Header {
            number: self.number,
            rank: self.rank,
            boot: self.boot,
            moment_ms: self.moment_ms,
            wall_ms: self.wall_ms,
            bytes: self.bytes(),
        }
    }

    pub(super) fn checksum(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.number.to_le_bytes());
        for field in [
            rank_code(self.rank),
            self.boot,
            self.moment_ms,
            self.wall_ms,
            self.period_ms,
        ] {
            hasher.update(&field.to_le_bytes());
        }
        hasher.update(&self.payload);
        hasher.finalize()
    }
}

/// What is known of a row without reading its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Its number in its journal.
    pub(super) number: Number,
    /// What goes first when there is no more room.
    pub(super) rank: Rank,
    /// The boot in which it was made.
    pub(super) boot: i64,
    /// When it happened, in milliseconds since that boot.
    pub(super) moment_ms: i64,
    /// When it happened, by the clock of then, in milliseconds since 1970.
    pub(super) wall_ms: i64,
    /// What it takes in the file, about.
    pub(super) bytes: u64,
}

/// A range of numbers that are gone, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The numbers.
    pub(super) range: RangeInclusive<Number>,
    /// What became of them.
    pub(super) fate: Fate,
    /// Wall times of the first and the last of them, in milliseconds since 1970, where they are known.
    pub(super) times_ms: Option<(i64, i64)>,
    /// Whether the receiver knows.
    pub(super) announced: bool,
}

/// Why the database can't go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// What is in the file makes no sense, or is not ours.
    #[error("{0}")]
    Corrupt(String),
    /// The disk, or what we may take of it, is full.
    #[error("the disk is full")]
    Full,
    /// The file can't be used: permissions, a read-only or broken disk.
    #[error("{0}")]
    Unusable(String),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        let extended = error.sqlite_error().map(|error| error.extended_code);
        if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHORT_READ) {
            return Trouble::Corrupt("the file ends too early".to_owned());
        }
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Trouble::Full,
            Some(
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SchemaChanged,
            ) => Trouble::Corrupt(error.to_string()),
            Some(
                ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport,
            ) => Trouble::Unusable(error.to_string()),
            // A table, a column or a type that is not as we made it.
            Some(_) | None => Trouble::Corrupt(error.to_string()),
        }
    }
}

/// A rank as it is kept.
pub(super) const fn rank_code(rank: Rank) -> i64 {
    match rank {
        Rank::Metric => 0,
        Rank::Transition => 1,
    }
}
