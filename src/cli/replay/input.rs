//! One recording, read in pieces: only the lines that could tell something are looked at.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

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
    reader: Box<dyn Read>,
    /// Begins with what has been read and not looked at: the start of a line.
    buffer: Vec<u8>,
    /// How long that is.
    held: usize,
    /// What the lines looked at say.
    said: VecDeque<(Place, Item)>,
    timeline: Timeline,
    /// The last whole line, which tells when the recording ended.
    last: Vec<u8>,
    ended: bool,
    now: Timestamp,
    /// Lines so far.
    pub(super) lines: u64,
}

impl Input {
    /// Opens a file, or standard input for `-`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
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
        let whole = io::Cursor::new(head).chain(reader);
        Ok(Input {
            reader: match is_gzip {
                true => Box::new(MultiGzDecoder::new(whole)),
                false => Box::new(whole),
            },
            buffer: Vec::new(),
            held: 0,
            said: VecDeque::new(),
            timeline: Timeline::new(Timestamp::UNIX_EPOCH),
            last: Vec::new(),
            ended: false,
            now: Timestamp::now(),
            lines: 0,
        })
    }

    /// When the next thing was said; `None` at the end.
    pub(super) fn peek(&mut self) -> io::Result<Option<Timestamp>> {
        while self.said.is_empty() && !self.ended {
            self.read_on()?;
        }
        Ok(self.said.front().map(|(place, _)| place.at))
    }

    /// The next thing said, after `peek`.
    pub(super) fn take(&mut self) -> Option<(Place, Item)> {
        self.said.pop_front()
    }

    /// Reads a piece and looks at its whole lines.
    fn read_on(&mut self) -> io::Result<()> {
        let held = self.held;
        if self.buffer.len() < held + PIECE {
            self.buffer.resize(held + PIECE, 0);
        }
        let read = loop {
            match self.reader.read(&mut self.buffer[held..held + PIECE]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let filled = held + read;
        self.held = filled;
        self.ended = read == 0;
        let whole = if self.ended {
            filled
        } else {
            match memchr::memrchr(b'\n', &self.buffer[held..filled]) {
                Some(end) => held + end + 1,
                None if filled < LONGEST => return Ok(()),
                None => filled,
            }
        };
        let buffer = std::mem::take(&mut self.buffer);
        self.look_at(&buffer[..whole]);
        self.buffer = buffer;
        self.buffer.copy_within(whole..filled, 0);
        self.held = filled - whole;
        if self.ended {
            let last = std::mem::take(&mut self.last);
            self.end(&last);
        }
        Ok(())
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
