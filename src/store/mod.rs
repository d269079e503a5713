//! Keeps what outlives the agent: what waits to be sent, what became of the rest, and what the judge remembers.
//!
//! One SQLite file in `paths.state`, on a thread of its own, so that a disk that hangs holds up nobody but those who
//! wait for it. Invariants:
//!
//! - What is answered is on disk (or in memory, where [`Keeping::InMemory`] says so). Deletions alone wait for the
//!   next commit: after a crash a record may be sent once more.
//! - Every number of a journal waits, or has a fate in the ledger. What is lost with a damaged file becomes `corrupt`.
//! - A period counts at most once: who may send its `Capacity` is committed before it is sent.
//! - No trouble of the disk ends the agent.

mod boots;
mod database;
pub mod inspect;
mod keeper;
mod ledger;
mod mark;
mod plan;
mod room;
mod rows;
mod salvage;
pub mod settings;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use crate::domain::memory::Memory;
use crate::domain::moment::{Moment, Now};
use crate::domain::outbox::{Fate, Number, Rank, Want};
pub use database::FILE;
use keeper::Keeper;
pub use rows::Destination;

/// Requests that may wait for the disk: nobody has more than two under way.
const REQUESTS: usize = 16;

/// Deletions ride on the next commit, which is a period away at most; where none comes, they wait no longer than this.
const FLUSH_AFTER: Duration = Duration::from_secs(90);

/// While memory has to do, the disk is tried again so often.
const TRY_DISK_EVERY: Duration = Duration::from_secs(60);

/// Bounds of what waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the file, in bytes.
    pub bytes: u64,
    /// Of a record.
    pub age: Duration,
}

/// A record to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its number, where the journal is numbered by somebody else.
    pub number: Option<Number>,
    /// What goes first when there is no more room.
    pub rank: Rank,
    /// When it happened, or its period ended.
    pub moment: Moment,
    /// The same, as far as it is known now.
    pub wall: Timestamp,
    /// Length of the period that it measures.
    pub period: Option<Duration>,
    /// What is sent of it.
    pub payload: Vec<u8>,
}

/// A record to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number in its journal.
    pub number: Number,
    /// What kind it is.
    pub rank: Rank,
    /// When it happened, or its period ended, as far as it is known now.
    pub at: Timestamp,
    /// How long ago that was; [`Duration::MAX`] before the machine started.
    pub age: Duration,
    /// Whether it may count for its period. False: another record has, or this one may have before.
    pub counts: bool,
    /// What is sent of it.
    pub payload: Vec<u8>,
}

/// What an outlet asks of the store, all in one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Whose journal.
    pub destination: Destination,
    /// The time.
    pub now: Now,
    /// What became of records that were handed out.
    pub settled: Vec<(Number, Fate)>,
    /// Periods, by their end, and records that certainly have not counted for them.
    pub not_counted: Vec<(Timestamp, Number)>,
    /// What was handed out and is not settled waits again.
    pub hand_back: bool,
    /// Losses that the receiver knows of now.
    pub announced: Vec<RangeInclusive<Number>>,
    /// New records.
    pub put: Vec<Draft>,
    /// What to hand out.
    pub take: Option<Want>,
}

impl Turn {
    /// A turn that asks for nothing but how things stand.
    #[must_use]
    pub fn new(destination: Destination, now: Now) -> Self {
        Turn {
            destination,
            now,
            settled: Vec::new(),
            not_counted: Vec::new(),
            hand_back: false,
            announced: Vec::new(),
            put: Vec::new(),
            take: None,
        }
    }
}

/// Numbers that will never arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The numbers.
    pub range: RangeInclusive<Number>,
    /// Why.
    pub fate: Fate,
}

/// How a journal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Records that are not settled.
    pub pending: u64,
    /// How long the oldest of them has been here.
    pub oldest: Duration,
    /// Records lost since the start.
    pub dropped: u64,
    /// Whether more can be taken.
    pub more: bool,
}

/// What came of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// What is handed out.
    pub records: Vec<Record>,
    /// Losses that the receiver does not know of.
    pub lost: Vec<Lost>,
    /// How the journal stands.
    pub standing: Standing,
}

/// Where things are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeping {
    /// On disk, as it should be.
    OnDisk,
    /// In memory: a restart will lose what waits.
    InMemory {
        /// Why.
        why: String,
    },
}

/// The agent's and the outlets' end of the store.
#[derive(Debug, Clone)]
pub struct Store {
    requests: SyncSender<Request>,
    keeping: watch::Receiver<Keeping>,
}

/// What the thread is asked.
enum Request {
    Turn(Box<Turn>, oneshot::Sender<Batch>),
    Keep(Box<Keep>, oneshot::Sender<()>),
    Limit(Limits),
    Flush(oneshot::Sender<()>),
}

/// What the agent wants to be kept before anybody is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Keep {
    /// The time.
    pub now: Now,
    /// What the judge remembers.
    pub memory: Memory,
    /// Events for the relay, where there is one.
    pub events: Vec<Draft>,
}

impl Store {
    /// Opens the store in `folder`, and reads what an earlier life remembered. Trouble with the disk is told by
    /// [`Store::keeping`]. `boot` names this start of the machine.
    ///
    /// # Errors
    /// No thread can be started, or there is no memory.
    pub async fn open(
        folder: &Path,
        limits: Limits,
        boot: &str,
        now: Now,
    ) -> anyhow::Result<(Store, Memory)> {
        let (requests, inbox) = sync_channel(REQUESTS);
        let (status, keeping) = watch::channel(Keeping::InMemory {
            why: "it is being opened".to_owned(),
        });
        let (answer, opened) = oneshot::channel();
        let (folder, boot): (PathBuf, String) = (folder.to_owned(), boot.to_owned());
        let life = move || match Keeper::open(folder, limits, &boot, now, status) {
            Ok(mut keeper) => {
                // Nobody waits for it any more where the start was given up.
                let _ = answer.send(Ok(keeper.memory()));
                serve(&mut keeper, &inbox, now);
            }
            Err(error) => {
                let _ = answer.send(Err(error));
            }
        };
        thread::Builder::new()
            .name("store".to_owned())
            .spawn(life)
            .context("the store's thread can't be started")?;
        let memory = opened.await.context("the store's thread has ended")??;
        Ok((Store { requests, keeping }, memory))
    }

    /// Carries out a turn; `None` where the store has ended.
    pub async fn turn(&self, turn: Turn) -> Option<Batch> {
        let (answer, done) = oneshot::channel();
        let request = Request::Turn(Box::new(turn), answer);
        self.requests.try_send(request).ok()?;
        done.await.ok()
    }

    /// Keeps what must be kept before anybody is told; what is returned becomes ready when it is.
    ///
    /// # Errors
    /// The store has ended.
    pub fn keep(&self, keep: Keep) -> anyhow::Result<oneshot::Receiver<()>> {
        let (answer, done) = oneshot::channel();
        let request = Request::Keep(Box::new(keep), answer);
        self.requests
            .try_send(request)
            .map_err(|_| anyhow::anyhow!("the store has ended"))?;
        Ok(done)
    }

    /// Writes what waits to be written.
    pub async fn flush(&self) {
        let (answer, done) = oneshot::channel();
        if self.requests.try_send(Request::Flush(answer)).is_ok() {
            // Where the thread has ended there is nothing left to write.
            let _ = done.await;
        }
    }

    /// Other limits from now on.
    pub fn limit(&self, limits: Limits) {
        // A thread that does not keep up has other troubles.
        let _ = self.requests.try_send(Request::Limit(limits));
    }

    /// Where things are kept.
    #[must_use]
    pub fn keeping(&self) -> Keeping {
        self.keeping.borrow().clone()
    }
}

/// Serves one request after the other until nobody is left who could ask.
fn serve(keeper: &mut Keeper, inbox: &Receiver<Request>, opened: Now) {
    let mut now = opened;
    let mut dirty_since: Option<Instant> = None;
    let mut disk_tried = Instant::now();
    loop {
        let patience = if !keeper.is_on_disk() {
            Some(TRY_DISK_EVERY.saturating_sub(disk_tried.elapsed()))
        } else {
            dirty_since.map(|since| FLUSH_AFTER.saturating_sub(since.elapsed()))
        };
        let request = match patience {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(patience) => inbox.recv_timeout(patience),
        };
        match request {
            Ok(Request::Turn(turn, answer)) => {
                now = turn.now;
                // Who has gone away does not want to know.
                let _ = answer.send(keeper.turn(*turn));
            }
            Ok(Request::Keep(keep, answer)) => {
                now = keep.now;
                keeper.remember(&keep.memory);
                let turn = Turn {
                    put: keep.events,
                    ..Turn::new(Destination::Relay, now)
                };
                keeper.turn(turn);
                let _ = answer.send(());
            }
            Ok(Request::Limit(limits)) => keeper.limit(limits),
            Ok(Request::Flush(answer)) => {
                keeper.flush(now);
                let _ = answer.send(());
            }
            Err(RecvTimeoutError::Timeout) => keeper.flush(now),
            Err(RecvTimeoutError::Disconnected) => {
                keeper.flush(now);
                return;
            }
        }
        if !keeper.is_on_disk() && disk_tried.elapsed() >= TRY_DISK_EVERY {
            disk_tried = Instant::now();
            if keeper.move_to_disk(now).is_ok() {
                tracing::info!("the outbox is on disk again");
            }
        }
        dirty_since = keeper
            .is_dirty()
            .then(|| dirty_since.unwrap_or_else(Instant::now));
    }
}

#[cfg(test)]
mod tests;
