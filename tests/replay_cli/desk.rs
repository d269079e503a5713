//! A folder with recordings, in every form there is, and the program that judges them.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// When the machine of most stories started; a Friday.
pub(crate) const BOOT: &str = "2025-11-21T10:00:00Z";

/// A card that works again after a program's fault, and then dies: microseconds since the boot, and what the kernel says.
pub(crate) const STORY: [(u64, &str); 6] = [
    (
        0,
        "Linux version 6.8.0-45-generic (buildd@lcy02-amd64-115) #45-Ubuntu SMP",
    ),
    (
        120_000_000,
        "usb 1-1: new high-speed USB device number 2 using xhci_hcd",
    ),
    (
        3_600_000_000,
        "NVRM: Xid (PCI:0000:02:00): 31, pid=1234, name=ffmpeg, Ch 00000008",
    ),
    (
        7_200_000_000,
        "NVRM: Xid (PCI:0000:02:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
    ),
    (
        7_260_000_000,
        "I/O error, dev sdb, sector 12345 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
    ),
    (7_300_000_000, "usb 1-1: USB disconnect, device number 2"),
];

/// How a line is recorded: when, microseconds since the boot, and what.
pub(crate) type Form = fn(Timestamp, u64, &str) -> String;

/// Recordings that tell the time of the day.
pub(crate) const WALL: [(&str, Form); 7] = [
    ("dmesg -T", |at, _, text| {
        format!("[{}] {text}", stamp(at, "%a %b %e %H:%M:%S %Y"))
    }),
    ("dmesg --time-format iso", |at, _, text| {
        format!("{},000000+00:00 {text}", stamp(at, "%Y-%m-%dT%H:%M:%S"))
    }),
    ("journalctl -o short-iso", |at, _, text| {
        format!(
            "{}+00:00 yard kernel: {text}",
            stamp(at, "%Y-%m-%dT%H:%M:%S")
        )
    }),
    ("journalctl -o json", |at, micros, text| {
        json!({
            "__REALTIME_TIMESTAMP": at.as_microsecond().to_string(),
            "_SOURCE_MONOTONIC_TIMESTAMP": micros.to_string(),
            "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": text,
        })
        .to_string()
    }),
    ("journalctl -o json, as bytes", |at, _, text| {
        json!({
            "__REALTIME_TIMESTAMP": at.as_microsecond().to_string(),
            "_TRANSPORT": "kernel", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": text.as_bytes(),
        })
        .to_string()
    }),
    ("syslog with the time since boot", |at, micros, text| {
        let boot = micros / 1_000_000;
        format!(
            "{}+00:00 yard kernel: [{boot:5}.000000] {text}",
            stamp(at, "%Y-%m-%dT%H:%M:%S")
        )
    }),
    ("dmesg -T -x", |at, _, text| {
        format!(
            "kern  :warn  : [{}] {text}",
            stamp(at, "%a %b %e %H:%M:%S %Y")
        )
    }),
];

/// Recordings that do not tell the year, or only the time since the boot.
pub(crate) const OTHER: [(&str, Form); 6] = [
    ("dmesg", |_, micros, text| {
        format!("[{:5}.000000] {text}", micros / 1_000_000)
    }),
    ("dmesg -r", |_, micros, text| {
        format!("<4>[{:5}.000000] {text}", micros / 1_000_000)
    }),
    ("dmesg with callers", |_, micros, text| {
        format!("[{:5}.000000] [   T99] {text}", micros / 1_000_000)
    }),
    ("/dev/kmsg", |_, micros, text| {
        format!("4,{},{micros},-;{text}", micros / 1000)
    }),
    ("/dev/kmsg with its dictionary", |_, micros, text| {
        format!("4,1,{micros},-,caller=T1;{text}\n SUBSYSTEM=pci\n DEVICE=+pci:0000:02:00.0")
    }),
    ("journalctl", |at, _, text| {
        format!("{} yard kernel: {text}", stamp(at, "%b %d %H:%M:%S"))
    }),
];

fn stamp(at: Timestamp, format: &str) -> String {
    at.to_zoned(TimeZone::UTC).strftime(format).to_string()
}

pub(crate) fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// Lines of a machine that started at `boot`, in one form.
pub(crate) fn record(form: Form, boot: &str, story: &[(u64, &str)]) -> String {
    record_from(form, time(boot), story)
}

pub(crate) fn record_from(form: Form, boot: Timestamp, story: &[(u64, &str)]) -> String {
    let lines = story.iter().map(|(micros, text)| {
        let since = SignedDuration::from_micros(i64::try_from(*micros).expect("it is small"));
        format!("{}\n", form(boot + since, *micros, text))
    });
    lines.collect()
}

/// When the machine started: where the year is not recorded, so lately that no year may lie between two lines.
pub(crate) fn boot_of(name: &str) -> Timestamp {
    match name {
        "journalctl" => Timestamp::now() - SignedDuration::from_hours(240),
        _ => time(BOOT),
    }
}

/// A form of [`WALL`] or [`OTHER`].
pub(crate) fn form(name: &str) -> Form {
    let mut all = WALL.iter().chain(&OTHER);
    all.find(|(known, _)| *known == name)
        .expect("it is there")
        .1
}

/// A folder with recordings, and the program that is run in it.
pub(crate) struct Desk(pub(crate) tempfile::TempDir);

/// How the program ended, and what it printed.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let desk = Desk(tempfile::tempdir().expect("a folder"));
        desk.write("empty.toml", "");
        desk
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("a file");
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sideline"));
        command
            .args(["--config", "empty.toml", "replay"])
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn replay(&self, arguments: &[&str]) -> Told {
        told(self.command(arguments).output())
    }

    /// As [`Desk::replay`], with this on standard input.
    pub(crate) fn replay_input(&self, input: &[u8], arguments: &[&str]) -> Told {
        self.write("input", input);
        let input = fs::File::open(self.path("input")).expect("a file");
        told(self.command(arguments).stdin(input).output())
    }

    /// The steps and the summary of recordings.
    pub(crate) fn judged(&self, files: &[&str]) -> Judged {
        Judged::of(&self.replay(&[&["--json"], files].concat()))
    }
}

pub(crate) fn told(run: std::io::Result<Output>) -> Told {
    let output = run.expect("the program starts");
    Told {
        status: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What `--json` prints.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Judged {
    pub(crate) steps: Vec<Value>,
    pub(crate) summary: Value,
}

impl Judged {
    pub(crate) fn of(told: &Told) -> Self {
        let lines = told.out.lines().map(serde_json::from_str);
        let mut lines: Vec<Value> = lines.collect::<Result<_, _>>().expect("an object a line");
        let last = lines.pop().unwrap_or_else(|| panic!("a summary: {told:?}"));
        let exit = match last["summary"]["final"].as_str() {
            Some("healthy") => 0,
            Some("degraded") => 1,
            Some("failing") => 2,
            Some(_) | None => 3,
        };
        assert!(
            told.status == Some(exit) || told.status == Some(3),
            "{told:?}"
        );
        Judged {
            steps: lines,
            summary: last["summary"].clone(),
        }
    }

    /// Without what differs between recordings: times, and how many lines an entry takes.
    pub(crate) fn timeless(mut self) -> Self {
        for step in &mut self.steps {
            step["at"] = Value::Null;
        }
        self.summary["lines"] = Value::Null;
        for finding in self.summary["findings"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            finding["first"] = Value::Null;
            finding["last"] = Value::Null;
        }
        self
    }

    /// `code severity count` of each finding there ever was.
    pub(crate) fn findings(&self) -> Vec<String> {
        let findings = self.summary["findings"].as_array().expect("a list");
        let word = |finding: &Value, key: &str| finding[key].as_str().expect("a word").to_owned();
        let line = |finding: &Value| {
            let words = ["code", "subject", "severity"].map(|key| word(finding, key));
            format!("{} {}", words.join(" "), finding["count"])
        };
        findings.iter().map(line).collect()
    }

    /// `opened CODE` and `closed CODE`, in their order.
    pub(crate) fn changes(&self) -> Vec<String> {
        let mut changes = Vec::new();
        for step in &self.steps {
            for what in ["opened", "closed"] {
                let codes = step[what].as_array().expect("a list");
                let codes = codes.iter().map(|code| code.as_str().expect("a code"));
                changes.extend(codes.map(|code| format!("{what} {code}")));
            }
        }
        changes
    }
}

pub(crate) fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes.as_ref()).expect("memory");
    packed.finish().expect("memory")
}

/// What [`STORY`] comes to, recorded with the time of the day.
pub(crate) fn story() -> Judged {
    let finding = |code: &str, subject: &str, severity: &str, advice: &str, at: &str| json!({"code": code, "subject": subject, "severity": severity, "advice": advice, "count": 1, "first": at, "last": at});
    let step = |at: &str, state: &str, reasons: &[&str], opened: &[&str], closed: &[&str]| json!({"at": at, "state": state, "reasons": reasons, "opened": opened, "closed": closed});
    let (fault, death, disk) = (
        "2025-11-21T11:00:00Z",
        "2025-11-21T12:00:00Z",
        "2025-11-21T12:01:00Z",
    );
    Judged {
        steps: vec![
            step(fault, "healthy", &[], &["gpu.xid.31"], &[]),
            step(
                "2025-11-21T11:10:00.001Z",
                "healthy",
                &[],
                &[],
                &["gpu.xid.31"],
            ),
            step(death, "failing", &["gpu.xid.79"], &["gpu.xid.79"], &[]),
            step(disk, "failing", &["gpu.xid.79"], &["host.disk_io"], &[]),
        ],
        summary: json!({"final": "failing", "lines": 6, "matched": 3, "findings": [
            finding("gpu.xid.31", "gpu:0000:02:00", "info", "restart_app", fault),
            finding("gpu.xid.79", "gpu:0000:02:00", "failing", "reboot", death),
            finding("host.disk_io", "disk:sdb", "degraded", "inspect", disk),
        ]}),
    }
}
