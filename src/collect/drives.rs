//! How the disks say they are: smartctl asked for each, where it is installed and allowed.
//!
//! One disk at a time, seldom, and outside of every other reading's way. A sick disk may hold its smartctl in the kernel
//! for ever: that one is left, the others are asked, and it is not asked again until it has come back.
//! What smartd keeps in files is not read: the files differ by version, and say no more.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::host::drives;
use super::program::{self, Leftover, Program, Ran, printable};
use crate::clock::Clock;
use crate::domain::moment::Moment;
use crate::domain::reading::Reading;
use crate::domain::snapshot::{Drive, DriveHealth, Drives, Helper, Smart};

/// The first question comes this long after the start, when the rest of the machine has come up.
const FIRST: Duration = Duration::from_secs(5);

/// An answer is some 20 KiB.
const OUTPUT: usize = 1 << 20;

/// What smartctl exits with when the disk sleeps, as we ask it to: bit 0 and bit 1 are never set together else.
const ASLEEP: u64 = 3;

/// smartctl could not read its arguments (bit 0) or open the disk (bit 1).
const NOT_READ: u64 = 0b11;

/// A reason is no longer than this, in characters.
const LONGEST_WHY: usize = 200;

/// How the disks are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// smartctl, by name or path.
    pub program: String,
    /// Time between two rounds.
    pub every: Duration,
    /// A disk that takes longer hangs.
    pub deadline: Duration,
    /// Where the kernel lists them: /sys/block.
    pub folder: PathBuf,
}

impl Default for Asking {
    fn default() -> Self {
        Asking {
            program: "smartctl".into(),
            every: Duration::from_secs(600),
            deadline: Duration::from_secs(30),
            folder: "/sys/block".into(),
        }
    }
}

/// Asks all disks soon after the start, then every `asking.every`, and publishes each round.
///
/// # Errors
/// None: what can't be asked says why.
pub async fn run(
    asking: Asking,
    out: watch::Sender<Reading<Drives>>,
    clock: Clock,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let first = clock.moment() + FIRST.min(asking.every);
    let mut ticks = interval_at(clock.instant(first), asking.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut round = Round::default();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let found = drives::read(&asking.folder);
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            seen = round.ask_all(&asking, &found, &clock) => {
                out.send_replace(Reading::ok(seen, clock.moment()));
            }
        }
    }
}

/// What is kept between two rounds.
#[derive(Default)]
struct Round {
    /// The last answers, by the disk's name.
    known: BTreeMap<String, DriveHealth>,
    /// Questions that have not come back, by the disk's name.
    hung: BTreeMap<String, Leftover>,
    helper: Helper,
}

/// One answer.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// What the disk says of itself.
    Health(Box<Smart>),
    /// It would have to be woken.
    Asleep,
    /// It does not say, and why.
    Nothing(String),
    /// There is no smartctl.
    NoHelper(String),
}

impl Round {
    async fn ask_all(&mut self, asking: &Asking, found: &[Drive], clock: &Clock) -> Drives {
        let mut helper = Helper::Unknown;
        let mut seen = Vec::with_capacity(found.len());
        for drive in found {
            let answer = match &helper {
                Helper::Missing { why } => Answer::NoHelper(why.clone()),
                Helper::Ok | Helper::Unknown => self.ask(asking, &drive.name).await,
            };
            helper = match &answer {
                Answer::NoHelper(why) => Helper::Missing { why: why.clone() },
                Answer::Health(_) | Answer::Asleep | Answer::Nothing(_) => Helper::Ok,
            };
            let before = self.known.remove(&drive.name);
            seen.push(health(drive, answer, before, clock.moment()));
        }
        // Of a disk that is gone nothing is kept but the question that it never answered.
        self.known = seen
            .iter()
            .map(|drive| (drive.name.clone(), drive.clone()))
            .collect();
        if helper != self.helper {
            if let Helper::Missing { why } = &helper {
                tracing::info!("disks can't be asked how they are: {why}");
            }
            self.helper = helper.clone();
        }
        Drives {
            drives: seen,
            helper,
        }
    }

    async fn ask(&mut self, asking: &Asking, name: &str) -> Answer {
        if let Some(hung) = self.hung.get_mut(name) {
            // Not waited for: only looked at.
            if hung.gone().now_or_never().is_none() {
                return Answer::Nothing("an earlier question has not come back".into());
            }
            self.hung.remove(name);
        }
        let device = format!("/dev/{name}");
        let options = ["--json=c", "--all", "--nocheck=standby,3"];
        let command = [asking.program.as_str()].into_iter().chain(options);
        let ran = program::run(Program {
            command: command
                .chain([device.as_str()])
                .map(str::to_owned)
                .collect(),
            user: None,
            timeout: asking.deadline,
            output: OUTPUT,
        });
        match ran.await {
            Ran::Ended { output, .. } => answer(&output),
            Ran::NotStarted(why) => Answer::NoHelper(why),
            Ran::TimedOut { left } => {
                tracing::warn!(
                    "disk {name} does not answer smartctl within {:?}",
                    asking.deadline
                );
                self.hung.extend(left.map(|left| (name.to_owned(), left)));
                Answer::Nothing(format!("no answer within {:?}", asking.deadline))
            }
        }
    }
}

fn health(drive: &Drive, answer: Answer, before: Option<DriveHealth>, now: Moment) -> DriveHealth {
    let (health, read, why) = match answer {
        Answer::Health(smart) => (Some(*smart), Some(now), None),
        Answer::Asleep => {
            // Another disk may have taken the name.
            let before = before
                .filter(|before| before.id == drive.id)
                .unwrap_or_default();
            (before.health, before.read, Some("it sleeps".into()))
        }
        Answer::Nothing(why) | Answer::NoHelper(why) => (None, None, Some(why)),
    };
    DriveHealth {
        name: drive.name.clone(),
        id: drive.id.clone(),
        model: drive.model.clone(),
        health,
        read,
        why,
    }
}

/// Reads what `smartctl --json` prints (format 1.0, smartctl 7.0 and later; smartctl(8), "EXIT STATUS" and "--json").
#[must_use]
pub fn answer(output: &[u8]) -> Answer {
    let Ok(json) = serde_json::from_slice::<Value>(output) else {
        return Answer::Nothing("smartctl printed no JSON; it must be 7.0 or later".into());
    };
    let status = number(&json, "/smartctl/exit_status");
    if status == Some(ASLEEP) {
        return Answer::Asleep;
    }
    let smart = smart(&json);
    if status.is_none_or(|status| status & NOT_READ != 0) || smart == Smart::default() {
        return Answer::Nothing(complaint(&json));
    }
    Answer::Health(Box::new(smart))
}

/// What smartctl says went wrong.
fn complaint(json: &Value) -> String {
    let messages = json.pointer("/smartctl/messages").and_then(Value::as_array);
    let mut words = messages
        .into_iter()
        .flatten()
        .filter_map(|message| message.get("string")?.as_str());
    match words.next() {
        Some(words) => printable(words, LONGEST_WHY),
        None => "it does not tell how it is".into(),
    }
}

fn smart(json: &Value) -> Smart {
    const NVME: &str = "/nvme_smart_health_information_log";
    let nvme = |key: &str| number(json, &format!("{NVME}/{key}"));
    let table = json
        .pointer("/ata_smart_attributes/table")
        .and_then(Value::as_array);
    let table = table.map_or(&[][..], Vec::as_slice);
    let raw = |id: u64| {
        let attribute = table.iter().find(|row| number(row, "/id") == Some(id))?;
        raw_count(attribute)
    };
    let uncorrected = |way: &str| {
        let counter = format!("/scsi_error_counter_log/{way}/total_uncorrected_errors");
        number(json, &counter)
    };
    let ways = ["read", "write", "verify"].map(uncorrected);
    let scsi_errors = ways.into_iter().flatten().reduce(u64::saturating_add);
    let used = nvme("percentage_used")
        .or_else(|| number(json, "/scsi_percentage_used_endurance_indicator"))
        .or_else(|| number(json, "/endurance_used/current_percent"));
    Smart {
        passed: json
            .pointer("/smart_status/passed")
            .and_then(Value::as_bool),
        critical_warning: nvme("critical_warning").and_then(small),
        available_spare_percent: nvme("available_spare").and_then(small),
        available_spare_threshold_percent: nvme("available_spare_threshold").and_then(small),
        used_percent: used.and_then(small),
        media_errors: nvme("media_errors").or(scsi_errors),
        reallocated: raw(5).or_else(|| number(json, "/scsi_grown_defect_list")),
        pending: raw(197),
        uncorrectable: raw(198),
        failing_attributes: table.iter().filter_map(failing).collect(),
        temperature_c: number(json, "/temperature/current").map(|celsius| celsius as f64),
    }
}

/// The count of an attribute. Some makers put more into its 48 bits; smartctl knows how to read them, and writes the
/// count first: `12 (2 0)`.
fn raw_count(attribute: &Value) -> Option<u64> {
    let text = attribute.pointer("/raw/string").and_then(Value::as_str);
    let count = text.and_then(|text| text.split_whitespace().next()?.parse().ok());
    count.or_else(|| number(attribute, "/raw/value"))
}

/// The name of an attribute that foretells failure now. A threshold of 0 is none.
fn failing(attribute: &Value) -> Option<String> {
    let prefailure = attribute.pointer("/flags/prefailure")?.as_bool()?;
    let (value, threshold) = (number(attribute, "/value")?, number(attribute, "/thresh")?);
    let now = attribute.get("when_failed").and_then(Value::as_str) == Some("now");
    let below = 0 < threshold && value <= threshold;
    (prefailure && (now || below)).then(|| {
        let name = attribute.get("name").and_then(Value::as_str);
        printable(name.unwrap_or("unknown"), LONGEST_WHY)
    })
}

fn number(json: &Value, path: &str) -> Option<u64> {
    json.pointer(path)?.as_u64()
}

fn small<T: TryFrom<u64>>(number: u64) -> Option<T> {
    T::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &Value) -> Answer {
        answer(json.to_string().as_bytes())
    }

    fn attribute(id: u64, value: u64, thresh: u64, when_failed: &str, raw: &str) -> Value {
        json!({"id": id, "name": format!("Attribute_{id}"), "value": value, "worst": value, "thresh": thresh,
            "when_failed": when_failed, "flags": {"value": 51, "string": "PO--CK ", "prefailure": id < 10},
            "raw": {"value": 281_474_976_710_655_u64, "string": raw}})
    }

    #[test]
    fn attributes_at_their_threshold_fail_if_they_foretell_failure() {
        let table = [
            attribute(1, 100, 16, "", "0"),
            attribute(3, 24, 24, "", "180 (Average 187)"),
            attribute(4, 0, 0, "", "1"),
            attribute(5, 1, 5, "now", "1975"),
            attribute(7, 80, 60, "past", "0"),
            attribute(190, 10, 45, "now", "90 (Min/Max 30/92)"),
            attribute(197, 100, 0, "", "8 (2 0)"),
            attribute(198, 100, 0, "", "-"),
        ];
        // Bits 3, 4, 6 and 7: the disk fails, and answered all the same.
        let json = json!({"smartctl": {"exit_status": 216}, "smart_status": {"passed": false},
            "ata_smart_attributes": {"table": table}});
        let expected = Smart {
            passed: Some(false),
            reallocated: Some(1975),
            pending: Some(8),
            uncorrectable: Some(281_474_976_710_655),
            failing_attributes: vec!["Attribute_3".into(), "Attribute_5".into()],
            ..Smart::default()
        };
        assert_eq!(read(&json), Answer::Health(Box::new(expected)));
    }

    #[test]
    fn no_answer_is_not_health() {
        let said = |words: &str| json!([{"string": words, "severity": "error"}]);
        for (json, why) in [
            (json!({}), "it does not tell how it is"),
            (json!([]), "it does not tell how it is"),
            (
                json!({"smartctl": {"exit_status": 0}}),
                "it does not tell how it is",
            ),
            (
                json!({"smartctl": {"exit_status": 2, "messages": said("Smartctl open device: /dev/sda failed: Permission denied")},
                    "smart_status": {"passed": true}}),
                "Smartctl open device: /dev/sda failed: Permission denied",
            ),
            (
                json!({"smartctl": {"exit_status": 1, "messages": said("/dev/vda: Unable to detect device type")}}),
                "/dev/vda: Unable to detect device type",
            ),
        ] {
            assert_eq!(read(&json), Answer::Nothing(why.into()), "{json}");
        }
        let asleep = json!({"smartctl": {"exit_status": 3, "messages": said("Device is in STANDBY mode, exit(3)")}});
        assert_eq!(read(&asleep), Answer::Asleep);
        let old = answer(b"smartctl 6.6 2017-11-05 r4594\n=======> UNRECOGNIZED OPTION: json=c\n");
        assert_eq!(
            old,
            Answer::Nothing("smartctl printed no JSON; it must be 7.0 or later".into())
        );
    }

    #[test]
    fn a_sleeping_disk_keeps_what_it_said_but_not_what_another_said() {
        let at = |seconds| Moment::after_boot(Duration::from_secs(seconds));
        let drive = |id: &str| Drive {
            name: "sda".into(),
            id: Some(id.into()),
            ..Drive::default()
        };
        let smart = Smart {
            passed: Some(true),
            ..Smart::default()
        };
        let awake = health(
            &drive("a"),
            Answer::Health(Box::new(smart.clone())),
            None,
            at(1),
        );
        assert_eq!((awake.read, &awake.why), (Some(at(1)), &None));
        let asleep = health(&drive("a"), Answer::Asleep, Some(awake.clone()), at(2));
        assert_eq!((asleep.health, asleep.read), (Some(smart), Some(at(1))));
        assert_eq!(asleep.why.as_deref(), Some("it sleeps"));
        let other = health(&drive("b"), Answer::Asleep, Some(awake.clone()), at(2));
        assert_eq!((other.health, other.read), (None, None));
        let silent = health(
            &drive("a"),
            Answer::Nothing("no".into()),
            Some(awake),
            at(2),
        );
        assert_eq!((silent.health, silent.why.as_deref()), (None, Some("no")));
    }
}
