//! Reads the kernel log as it grows: /dev/kmsg, or a file or FIFO that somebody else writes one to.

pub mod pstore;
mod source;

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::source::{Folder, Kind, Source};
use crate::clock::Clock;
use crate::domain::kernel_line::{Stamp, kmsg_sequence, parse_line};
use crate::domain::moment::Now;
use crate::domain::reading::Reading;
use crate::domain::snapshot::{KernelLog, Position};

/// How long to wait before a log that could not be opened is tried again, unless its folder shows it earlier.
const RETRY: Duration = Duration::from_secs(30);

/// Longer lines are cut, in bytes. No record of /dev/kmsg is longer.
const LONGEST: usize = 8192;

/// After so many lines other tasks get their turn.
const YIELD_EVERY: usize = 256;

/// A flood that does not end is published at least every so many lines.
const PUBLISH_EVERY: usize = 65_536;

/// Follows the log at `path` until cancelled and publishes what it has said so far, starting from what an
/// earlier run in this boot remembers. Published as soon as what is there has been read, and then whenever
/// a fact changes; when only the position moves, it is updated without waking anyone.
///
/// # Errors
///
/// None: a log that can't be read is a `Reading::Failed`, and tried again.
pub async fn run(
    path: PathBuf,
    memory: KernelLog,
    out: watch::Sender<Reading<KernelLog>>,
    clock: Clock,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut tail = Tail::new(path, memory, out, clock);
    let followed = async {
        loop {
            // Watched before it is opened, so that nothing slips through between.
            let mut folder = Folder::watch(&tail.path);
            let Err(error) = tail.follow(&mut folder).await;
            tail.fail(&error);
            tokio::select! {
                _ = folder.changed() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    };
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        () = followed => Ok(()),
    }
}

struct Tail {
    path: PathBuf,
    log: KernelLog,
    out: watch::Sender<Reading<KernelLog>>,
    clock: Clock,
    /// The beginning of a line whose end has not been written yet.
    held: Vec<u8>,
    /// How far the file has been read, in bytes.
    offset: u64,
    /// Whether what is read now was written while we watched. What was there before may be of another boot.
    live: bool,
    gap_told: bool,
}

impl Tail {
    fn new(
        path: PathBuf,
        memory: KernelLog,
        out: watch::Sender<Reading<KernelLog>>,
        clock: Clock,
    ) -> Self {
        Tail {
            path,
            log: memory,
            out,
            clock,
            held: Vec::new(),
            offset: 0,
            live: false,
            gap_told: false,
        }
    }

    /// Reads on for as long as there is something to read from, across rotations.
    async fn follow(&mut self, folder: &mut Folder) -> io::Result<Infallible> {
        loop {
            let ended = match Source::open(&self.path) {
                Ok(source) => self.read_on(&source, folder).await,
                Err(error) => Err(error),
            };
            if ended.as_ref().err().is_none_or(is_absent) {
                // The next file is a new one, even if it gets the same inode.
                self.log.position = None;
                self.live = true;
            }
            ended?;
        }
    }

    /// Reads one source on until another has taken its place.
    async fn read_on(&mut self, source: &Source, folder: &mut Folder) -> io::Result<()> {
        let mut buffer = vec![0; LONGEST];
        self.begin(source);
        if source.kind == Kind::File {
            folder.watch_file(&self.path)?;
        }
        loop {
            self.drain(source, &mut buffer).await?;
            self.live = true;
            tokio::select! {
                ready = source.readable() => ready?,
                changed = folder.changed() => {
                    changed?;
                    if source.is_replaced(&self.path)? {
                        self.drain(source, &mut buffer).await?;
                        return self.end();
                    }
                }
            }
        }
    }

    /// Finds the place where reading starts.
    fn begin(&mut self, source: &Source) {
        self.held.clear();
        self.offset = 0;
        match (source.kind, &self.log.position) {
            (Kind::File, Some(Position::File { dev, inode, offset }))
                if (*dev, *inode) == source.identity && *offset <= source.size().unwrap_or(0) =>
            {
                self.offset = *offset;
                self.live = true;
            }
            // A device holds this boot's records only, and nobody's lines wait in a FIFO over a reboot.
            (Kind::Device | Kind::Fifo, _) => self.live = true,
            (Kind::File, _) => {}
        }
    }

    /// A last line without its end stays one.
    fn end(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.held);
        let now = self.clock.now();
        let changed = !line.is_empty() && self.line(&line, now);
        self.publish(changed, now);
        Ok(())
    }

    /// Reads all there is and publishes it at once.
    async fn drain(&mut self, source: &Source, buffer: &mut [u8]) -> io::Result<()> {
        let mut now = self.clock.now();
        let mut changed = false;
        let (mut since_yield, mut since_publish) = (0, 0);
        if source.kind == Kind::File && source.size()? < self.offset {
            // Truncated: written anew from the start.
            self.held.clear();
            self.offset = 0;
        }
        loop {
            let lines = match source.read(buffer, self.offset) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => continue,
                Err(Errno::PIPE) if source.kind == Kind::Device => {
                    self.gap(now);
                    changed = true;
                    continue;
                }
                Err(error) => return Err(error.into()),
                Ok(length) if source.kind == Kind::Device => {
                    changed |= self.record(&buffer[..length], now);
                    1
                }
                Ok(length) => self.bytes(&buffer[..length], source, now, &mut changed),
            };
            since_yield += lines;
            since_publish += lines;
            if PUBLISH_EVERY <= since_publish {
                self.publish(std::mem::take(&mut changed), now);
                since_publish = 0;
            }
            if YIELD_EVERY <= since_yield {
                tokio::task::yield_now().await;
                now = self.clock.now();
                since_yield = 0;
            }
        }
        self.publish(changed, now);
        Ok(())
    }

    /// One record of /dev/kmsg. Returns whether it changed what is known.
    fn record(&mut self, raw: &[u8], now: Now) -> bool {
        let mut changed = false;
        if let Some(sequence) = kmsg_sequence(&String::from_utf8_lossy(raw)) {
            if let Some(Position::Kmsg(next)) = self.log.position {
                if sequence < next {
                    return false;
                }
                // Right after an overrun this is the jump that the overrun has announced.
                if next < sequence && self.log.last_gap != Some(now.moment) {
                    self.gap(now);
                    changed = true;
                }
            }
            self.log.position = Some(Position::Kmsg(sequence + 1));
        }
        changed | self.line(raw, now)
    }

    /// A piece of a file or FIFO. Returns how many lines ended in it.
    fn bytes(&mut self, piece: &[u8], source: &Source, now: Now, changed: &mut bool) -> usize {
        let mut lines = 0;
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.offset += part.len() as u64;
            let is_end = part.ends_with(b"\n");
            if self.held.is_empty() && is_end {
                *changed |= self.line(part, now);
            } else {
                let room = LONGEST - self.held.len();
                self.held.extend_from_slice(&part[..part.len().min(room)]);
                if is_end {
                    let line = std::mem::take(&mut self.held);
                    *changed |= self.line(&line, now);
                }
            }
            if is_end {
                lines += 1;
                self.log.position = source.position(self.offset);
            }
        }
        lines
    }

    fn line(&mut self, raw: &[u8], now: Now) -> bool {
        let raw = String::from_utf8_lossy(raw);
        let Some(mut line) = parse_line(&raw, now.wall) else {
            return false;
        };
        if self.live && line.stamp.moment(now).is_none() {
            // Written just now, whatever its stamp says: the writer's clock or time zone is another.
            line.stamp = Stamp::None;
        }
        self.log.note(&line, now)
    }

    fn gap(&mut self, now: Now) {
        self.log.gaps += 1;
        self.log.last_gap = Some(now.moment);
        if !std::mem::replace(&mut self.gap_told, true) {
            tracing::warn!("kernel messages were overwritten before they could be read");
        }
    }

    fn publish(&self, changed: bool, now: Now) {
        self.out.send_if_modified(|reading| match reading {
            Reading::Ok { value, at } if !changed => {
                value.position.clone_from(&self.log.position);
                *at = now.moment;
                false
            }
            Reading::Ok { .. } | Reading::Pending | Reading::Off | Reading::Failed { .. } => {
                if matches!(reading, Reading::Failed { .. }) {
                    tracing::info!("{} can be read again", self.path.display());
                }
                *reading = Reading::ok(self.log.clone(), now.moment);
                true
            }
        });
    }

    fn fail(&self, error: &io::Error) {
        let why = why(&self.path, error);
        let at = self.clock.moment();
        self.out.send_if_modified(|reading| {
            let since = match reading {
                Reading::Failed { why: known, .. } if *known == why => return false,
                Reading::Failed { at, .. } => *at,
                Reading::Ok { .. } | Reading::Pending | Reading::Off => at,
            };
            tracing::warn!("{why}");
            *reading = Reading::Failed { why, at: since };
            true
        });
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// What is wrong and what would be right.
fn why(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if is_absent(error) {
        format!(
            "{path} does not exist; kernel_log.path must name /dev/kmsg, or a file or FIFO that holds a kernel log"
        )
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        format!(
            "{path} may not be read: {error}; run as root, or grant read access (/dev/kmsg: CAP_SYSLOG)"
        )
    } else {
        format!("{path} can't be followed: {error}")
    }
}

#[cfg(test)]
mod tests;
