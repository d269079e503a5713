//! One recording, read in pieces: only the lines that could tell something are looked at.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;
use jiff::Timestamp;

use crate::domain::kernel_line::{KernelLine, Stamp, parse_line};
use crate::domain::kernel_scan::{Scanner, count_lines};
use crate::domain::record::Record;
use crate::domain::replay::{Place, Timeline};

/// How much is read at once: it stays in the processor's cache while it is searched.
const PIECE: usize = 256 * 1024;

/// Longer lines are cut, in bytes; a recorded reading of many cameras is long.
const LONGEST: usize = 4 * 1024 * 1024;

/// What every gzip file begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Files that are taken for logs and are none: how each begins, and what makes a log of it.
const NO_LOGS: [(&[u8], &str); 4] = [
    (
        b"LPKSHHRH",
        "a journal: journalctl --file FILE -k -o json | sideline replay -",
    ),
    (b"\xfd7zXZ\0", "packed: xz -dc FILE | sideline replay -"),
    (
        b"\x28\xb5\x2f\xfd",
        "packed: zstd -dc FILE | sideline replay -",
    ),
    (b"BZh", "packed: bzip2 -dc FILE | sideline replay -"),
];

/// So much of a recording shows whether it is text.
const HEAD: usize = 4096;

/// What a recording says.
#[derive(Debug)]
pub(super) enum Item {
    /// A line of the kernel.
    Line(Text),
    /// A reading.
    Record(Box<Record>),
    /// Nothing more: time has gone on until here.
    End,
}

/// The text of a kernel line.
#[derive(Debug)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn as_line(&self) -> KernelLine<'_> {
        KernelLine {
            stamp: Stamp::None,
            text: self.0.as_str().into(),
        }
    }
}

/// A recording that is being read.
pub(super) struct Input {
    name: PathBuf,
    reader: Box<dyn Read>,
    /// What has been read; of it, whole lines have been looked at up to `done`.
    buffer: Vec<u8>,
    /// What the lines looked at say.
    said: VecDeque<(Place, Item)>,
    timeline: Timeline,
    /// The last whole line, which tells when the recording ended.
    last: Vec<u8>,
    /// Whether the rest of a line that was cut has still to be passed over.
    is_cut: bool,
    ended: bool,
    /// Why it ended before its end.
    trouble: Option<io::Error>,
    now: Timestamp,
    /// Lines so far.
    pub(super) lines: u64,
}

impl Input {
    /// Opens a file, or standard input for `-`, and reads its first piece.
    ///
    /// # Errors
    /// It can't be read, or is no recording.
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let mut input = Self::begin(path).with_context(|| name.to_string())?;
        input.fill();
        if input.buffer.is_empty()
            && let Some(error) = input.trouble.take()
        {
            return Err(error).with_context(|| name.to_string());
        }
        if let Some(why) = no_log(&input.buffer) {
            bail!("{name}: {why}");
        }
        input.look(0);
        Ok(input)
    }

    fn begin(path: &Path) -> io::Result<Self> {
        let mut reader: Box<dyn Read> = if path == Path::new("-") {
            Box::new(io::stdin())
        } else {
            let file = File::open(path)?;
            if file.metadata()?.is_dir() {
                return Err(io::Error::other("is a folder; name the recordings in it"));
            }
            Box::new(file)
        };
        let mut head = Vec::with_capacity(GZIP.len());
        reader
            .by_ref()
            .take(GZIP.len() as u64)
            .read_to_end(&mut head)?;
        let is_gzip = head == GZIP;
        let mut buffer = Vec::with_capacity(2 * PIECE);
        let reader: Box<dyn Read> = if is_gzip {
            Box::new(MultiGzDecoder::new(io::Cursor::new(head).chain(reader)))
        } else {
            buffer.append(&mut head);
            reader
        };
        Ok(Input {
            name: path.to_owned(),
            reader,
            buffer,
            said: VecDeque::new(),
            timeline: Timeline::new(Timestamp::UNIX_EPOCH),
            last: Vec::new(),
            is_cut: false,
            ended: false,
            trouble: None,
            now: Timestamp::now(),
            lines: 0,
        })
    }

    /// When the next thing was said; `None` at the end.
    pub(super) fn peek(&mut self) -> Option<Timestamp> {
        while self.said.is_empty() && !self.ended {
            let held = self.fill();
            self.look(held);
        }
        self.said.front().map(|(place, _)| place.at)
    }

    /// The next thing said, after `peek`.
    pub(super) fn take(&mut self) -> Option<(Place, Item)> {
        self.said.pop_front()
    }

    /// Why it could not be read to its end.
    pub(super) fn trouble(self) -> Option<String> {
        let error = self.trouble?;
        Some(format!("{}: {error}", self.name.display()))
    }

    /// Reads a piece, and returns how much was held before. What can't be read is the end: a recording that was cut off
    /// still tells what led there.
    fn fill(&mut self) -> usize {
        let held = self.buffer.len();
        self.buffer.resize(held + PIECE, 0);
        let read = loop {
            match self.reader.read(&mut self.buffer[held..]) {
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.trouble = Some(error);
                    break 0;
                }
            }
        };
        self.buffer.truncate(held + read);
        self.ended = read == 0;
        held
    }

    /// Looks at the whole lines of what was read, of which nothing in the first `held` bytes ends a line.
    fn look(&mut self, held: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let from = match self.is_cut {
            true => memchr::memchr(b'\n', &buffer).map_or(buffer.len(), |end| end + 1),
            false => 0,
        };
        self.is_cut &= from == buffer.len();
        let fresh = held.max(from);
        let until = match memchr::memrchr(b'\n', &buffer[fresh..]) {
            _ if self.ended => buffer.len(),
            Some(end) => fresh + end + 1,
            None if buffer.len() - from < LONGEST => from,
            None => {
                self.is_cut = true;
                buffer.len()
            }
        };
        self.look_at(&buffer[from..until]);
        buffer.drain(..until);
        self.buffer = buffer;
        if self.ended {
            let last = std::mem::take(&mut self.last);
            self.end(&last);
        }
    }

    fn look_at(&mut self, lines: &[u8]) {
        self.lines += count_lines(lines) as u64;
        for raw in Scanner::shared().lines(lines) {
            self.hear(&String::from_utf8_lossy(raw));
        }
        let trimmed = lines.strip_suffix(b"\n").unwrap_or(lines);
        if !trimmed.is_empty() {
            let from = memchr::memrchr(b'\n', trimmed).map_or(0, |end| end + 1);
            self.last.clear();
            self.last.extend_from_slice(&trimmed[from..]);
        }
    }

    fn hear(&mut self, raw: &str) {
        if let Some(record) = super::record(raw) {
            let place = Place {
                at: record.at,
                restarted: false,
            };
            self.said.push_back((place, Item::Record(Box::new(record))));
        } else if let Some(line) = parse_line(raw, self.now) {
            let place = self.timeline.place(&line);
            let text = Text(line.text.into_owned());
            self.said.push_back((place, Item::Line(text)));
        }
    }

    /// Time has gone on until the last line, whatever it says.
    fn end(&mut self, last: &[u8]) {
        let raw = String::from_utf8_lossy(last);
        if super::record(&raw).is_none()
            && let Some(line) = parse_line(&raw, self.now)
        {
            let place = self.timeline.place(&line);
            self.said.push_back((place, Item::End));
        }
    }
}

/// Why what begins so is no recording.
fn no_log(head: &[u8]) -> Option<String> {
    if let Some((_, what)) = NO_LOGS.iter().find(|(begin, _)| head.starts_with(begin)) {
        return Some(format!("is {what}"));
    }
    // A power cut leaves zeros in a log.
    let is_odd =
        |c: char| c == char::REPLACEMENT_CHARACTER || c.is_control() && !"\0\t\n\r\x1b".contains(c);
    let head = String::from_utf8_lossy(&head[..head.len().min(HEAD)]);
    let odd = head.chars().filter(|c| is_odd(*c)).count();
    (head.chars().count() < 4 * odd).then(|| "is no text, so no recording".to_owned())
}
