//! The incidents in this folder: how they are read, and how their storms become lines. README.md says what each key means.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sideline::domain::kernel_line::{Stamp, parse_line};

/// Recordings without a year are taken as read at this time.
pub const READ_AT: &str = "2026-11-22T12:00:00Z";

/// The line of a log that the next storm takes the place of.
const STORM: &str = "{storm}";

/// What a recorded reading begins with.
const RECORD: &str = r#"{"at":""#;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// `group/name`, by its path.
    #[serde(skip)]
    pub name: String,
    pub title: String,
    pub story: String,
    pub source: String,
    pub log: String,
    #[serde(default)]
    pub storm: Vec<Storm>,
    pub expect: Expect,
    pub others: Others,
}

/// Many lines that differ by their number and time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    pub line: String,
    pub count: u32,
    pub every: String,
    pub from: At,
    /// Seconds since the boot, at `from`.
    pub up: Option<f64>,
    #[serde(default)]
    pub each: String,
    #[serde(default)]
    pub times: u32,
}

/// What the judge has to make of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    #[serde(rename = "final")]
    pub last: State,
    pub worst: State,
    #[serde(default)]
    pub reasons: Vec<String>,
    pub within: Option<String>,
    pub at: Option<At>,
    #[serde(default)]
    pub advice: BTreeMap<String, String>,
    #[serde(default)]
    pub subjects: BTreeMap<String, Vec<String>>,
    pub drains: bool,
    pub lasts: Option<At>,
    pub recovers: Option<At>,
    #[serde(default)]
    pub never: Vec<String>,
}

/// A verdict, the worse the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Healthy,
    Degraded,
    Unknown,
    Failing,
}

/// What the published classifications of others make of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Others {
    pub gpud: String,
    pub eks: String,
    pub dcgm: String,
    pub nvsentinel: String,
}

impl Others {
    /// In the order of the tables.
    pub fn all(&self) -> [&str; 4] {
        [&self.gpud, &self.eks, &self.dcgm, &self.nvsentinel].map(String::as_str)
    }
}

/// A time as the recording has it: RFC 3339, or `+SECONDS` since the boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum At {
    Wall(Timestamp),
    /// Microseconds.
    SinceBoot(u64),
}

impl TryFrom<String> for At {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("time must be RFC 3339 or +SECONDS since the boot, is \"{text}\"");
        match text.strip_prefix('+') {
            Some(seconds) => {
                let (whole, part) = seconds.split_once('.').unwrap_or((seconds, "0"));
                let whole: u64 = whole.parse().map_err(|_| wrong())?;
                let part: u64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
                Ok(At::SinceBoot(whole * 1_000_000 + part))
            }
            None => Timestamp::from_str(&text)
                .map(At::Wall)
                .map_err(|_| wrong()),
        }
    }
}

impl At {
    /// The same, later.
    pub fn after(self, time: Duration) -> Self {
        match self {
            At::Wall(at) => {
                let time = SignedDuration::try_from(time).expect("a short time");
                At::Wall(at.checked_add(time).expect("a time in reach"))
            }
            At::SinceBoot(at) => {
                At::SinceBoot(at + u64::try_from(time.as_micros()).expect("a short time"))
            }
        }
    }

    /// Whether this is later than the other, where both are told in the same way.
    pub fn is_after(self, other: At) -> bool {
        match (self, other) {
            (At::Wall(this), At::Wall(other)) => this > other,
            (At::SinceBoot(this), At::SinceBoot(other)) => this > other,
            (At::Wall(_), At::SinceBoot(_)) | (At::SinceBoot(_), At::Wall(_)) => false,
        }
    }
}

impl Storm {
    /// Its lines.
    pub fn lines(&self) -> Result<Vec<String>, String> {
        let every = humantime::parse_duration(&self.every).map_err(|why| why.to_string())?;
        let each: Vec<String> = (1..=self.times)
            .map(|part| self.each.replace("{i}", &format!("{part:02}")))
            .collect();
        let line = self.line.trim_end().replace("{each}", &each.join(","));
        if line.contains("{up}") && self.up.is_none() {
            return Err("a storm with {up} needs the key up".to_owned());
        }
        let lines = (0..self.count).map(|number| {
            let passed = every * number;
            let up = self.up.unwrap_or_default() + passed.as_secs_f64();
            let line = line
                .replace("{n}", &number.to_string())
                .replace("{up}", &format!("{up:.1}"));
            match self.from.after(passed) {
                At::SinceBoot(at) => {
                    let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
                    line.replace("{dmesg}", &format!("{seconds:>5}.{micros:06}"))
                        .replace("{kmsg}", &at.to_string())
                }
                At::Wall(at) => line
                    .replace("{at}", &at.to_string())
                    .replace("{iso}", &at.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string())
                    .replace("{ctime}", &at.strftime("%a %b %e %H:%M:%S %Y").to_string()),
            }
        });
        Ok(lines.collect())
    }
}

impl Incident {
    /// The recording as `sideline replay` gets it, with its storms in their places.
    pub fn recording(&self) -> Result<String, String> {
        let mut storms = self.storm.iter();
        let mut text = String::new();
        for line in self.log.lines() {
            if line == STORM {
                let storm = storms.next().ok_or("more places than storms")?;
                text.push_str(&storm.lines()?.join("\n"));
            } else {
                text.push_str(line);
            }
            text.push('\n');
        }
        match storms.next() {
            Some(_) => Err("more storms than places".to_owned()),
            None => Ok(text),
        }
    }

    /// When the lines of the recording were printed, where they say so and the kernel or sideline said them; read at
    /// `now`.
    pub fn stamps(&self, now: Timestamp) -> Result<Vec<At>, String> {
        let recording = self.recording()?;
        let stamp = |line: &str| match record(line) {
            Some(record) => Some(At::Wall(record.at)),
            None => match parse_line(line, now)?.stamp {
                Stamp::None => None,
                Stamp::Wall(at) => Some(At::Wall(at)),
                Stamp::SinceBoot(at) => Some(At::SinceBoot(at)),
            },
        };
        Ok(recording.lines().filter_map(stamp).collect())
    }

    /// The recorded readings among the lines.
    pub fn records(&self) -> Result<Vec<Record>, String> {
        Ok(self.recording()?.lines().filter_map(record).collect())
    }

    /// `group`, the folder it lies in.
    pub fn group(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

/// The head of a recorded reading.
#[derive(Debug, Deserialize)]
pub struct Record {
    pub at: Timestamp,
    /// Seconds since the boot.
    pub up: f64,
    pub boot: String,
}

/// The head of a line, if that is a recorded reading.
fn record(line: &str) -> Option<Record> {
    line.starts_with(RECORD)
        .then(|| serde_json::from_str(line).ok())
        .flatten()
}

/// Whether a line is meant to be a recorded reading.
pub fn is_record(line: &str) -> bool {
    line.starts_with(RECORD)
}

/// All incidents, by their names, or what is wrong with the first that can't be read.
pub fn all() -> Result<Vec<Incident>, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incidents");
    let mut found = Vec::new();
    for group in entries(&folder)?.iter().filter(|path| path.is_dir()) {
        for file in entries(group)? {
            let path = file.strip_prefix(&folder).map_err(|why| why.to_string())?;
            let name = path.with_extension("").display().to_string();
            let text = fs::read_to_string(&file).map_err(|why| format!("{name}: {why}"))?;
            let read: Incident = toml::from_str(&text).map_err(|why| format!("{name}: {why}"))?;
            found.push(Incident { name, ..read });
        }
    }
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<std::path::PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|why| format!("{}: {why}", folder.display()))?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|why| why.to_string())?;
    paths.sort();
    Ok(paths)
}

/// Holds `docs/detectors.md` to these tables, by the marks between which they stand; writes them there where `UPDATE` is
/// set.
pub fn keep_document(tables: &[(&str, String)], test: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/detectors.md");
    let before = fs::read_to_string(&path).expect("the document");
    let mut after = before.clone();
    for (name, table) in tables {
        after = with_table(&after, name, table);
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &after).expect("the document can be written");
        return;
    }
    assert!(
        before == after,
        "docs/detectors.md is out of date: UPDATE=1 cargo test --test {test}"
    );
}

/// A document with what is between two marks replaced.
fn with_table(document: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = document
        .split_once(&begin)
        .expect("the mark where it begins");
    let (_, after) = rest.split_once(&end).expect("the mark where it ends");
    format!("{before}{begin}{table}{end}{after}")
}
