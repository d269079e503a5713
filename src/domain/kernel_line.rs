//! Recorded line → kernel text: frees a line of the kernel log of the many forms it is recorded in.

use std::borrow::Cow;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

/// One line of a kernel log, freed of its recording's decoration.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelLine<'a> {
    /// When it was written, where the recording says.
    pub stamp: Stamp,
    /// The message.
    pub text: Cow<'a, str>,
}

/// When a line was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stamp {
    /// Not recorded.
    None,
    /// Microseconds since boot.
    SinceBoot(u64),
    /// Wall time.
    Wall(Timestamp),
}

/// Frees a line of its recording: /dev/kmsg records, `dmesg` in all its time formats, `journalctl -k` (short,
/// short-iso, short-monotonic, json, cat), syslog files, or bare text, told apart line by line.
///
/// `None` for what the kernel itself did not say, wherever the recording tells: anyone may write into
/// /dev/kmsg or the system log, and such lines carry another facility, transport or tag.
///
/// Times without a zone (`dmesg -T`, syslog) are taken as UTC; the recording does not say better. Dates
/// without a year get the latest year that is not in the future of `now` (by more than the day that a time
/// zone can make).
#[must_use]
pub fn parse_line(raw: &str, now: Timestamp) -> Option<KernelLine<'_>> {
    let raw = raw.trim_end_matches(['\n', '\r', '\0']);
    if let Some(entry) = journal_entry(raw) {
        return entry.kernel_line();
    }
    if let Some(record) = Record::parse(raw) {
        return (record.facility == KERN).then(|| KernelLine {
            stamp: Stamp::SinceBoot(record.micros),
            text: unescape(record.text),
        });
    }
    if is_dictionary(raw) || raw.trim().is_empty() {
        return None;
    }
    printed(raw.trim_start(), now)
}

/// The sequence number of a /dev/kmsg record.
#[must_use]
pub fn kmsg_sequence(raw: &str) -> Option<u64> {
    Record::parse(raw).map(|record| record.sequence)
}

/// The kernel's own facility; user space can't use it in /dev/kmsg.
const KERN: u64 = 0;

/// `priority,sequence,microseconds,flags[,…];text`, then dictionary lines.
struct Record<'a> {
    facility: u64,
    sequence: u64,
    micros: u64,
    text: &'a str,
}

impl<'a> Record<'a> {
    fn parse(raw: &'a str) -> Option<Self> {
        if !raw.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let (head, body) = raw.split_once(';')?;
        let mut fields = head.split(',');
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (priority, sequence, micros) = (number()?, number()?, number()?);
        fields.next()?; // flags
        Some(Record {
            facility: priority >> 3,
            sequence,
            micros,
            text: body.split('\n').next().unwrap_or(body),
        })
    }
}

/// The kernel writes bytes that are not printable, and backslashes, as `\x0a`.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains("\\x") {
        return text.into();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escaped)) = rest.split_once("\\x") {
        bytes.extend_from_slice(plain.as_bytes());
        match escaped.get(..2).map(|hex| u8::from_str_radix(hex, 16)) {
            Some(Ok(byte)) => {
                bytes.push(byte);
                rest = &escaped[2..];
            }
            Some(Err(_)) | None => {
                bytes.extend_from_slice(b"\\x");
                rest = escaped;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// ` SUBSYSTEM=pci`, as it stands below a /dev/kmsg record.
fn is_dictionary(raw: &str) -> bool {
    raw.strip_prefix(' ')
        .and_then(|entry| entry.split_once('='))
        .is_some_and(|(key, _)| {
            !key.is_empty()
                && key
                    .bytes()
                    .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        })
}

/// One line of `journalctl -o json`; values are strings, or arrays of bytes where they are not UTF-8.
#[derive(Deserialize)]
struct JournalEntry {
    #[serde(rename = "MESSAGE")]
    message: Value,
    #[serde(rename = "_TRANSPORT")]
    transport: Option<Value>,
    #[serde(rename = "SYSLOG_FACILITY")]
    facility: Option<Value>,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Option<Value>,
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    realtime: Option<Value>,
    #[serde(rename = "_SOURCE_MONOTONIC_TIMESTAMP")]
    monotonic: Option<Value>,
}

fn journal_entry(raw: &str) -> Option<JournalEntry> {
    // Kernel text may begin with a brace too: `{1}[Hardware Error]: …`.
    raw.starts_with('{')
        .then(|| serde_json::from_str(raw).ok())
        .flatten()
}

impl JournalEntry {
    fn kernel_line(&self) -> Option<KernelLine<'static>> {
        // What is written into /dev/kmsg has the kernel's transport and another facility; a program may
        // claim the kernel's facility and identifier, but has another transport.
        let is_kernels = [
            (&self.transport, "kernel"),
            (&self.facility, "0"),
            (&self.identifier, "kernel"),
        ]
        .map(|(field, kernels)| field.as_ref().map(|value| value_text(value) == kernels));
        if is_kernels.contains(&Some(false)) || !is_kernels.contains(&Some(true)) {
            return None;
        }
        let micros = |field: &Option<Value>| value_text(field.as_ref()?).parse::<u64>().ok();
        // Wall time first: a journal holds many boots.
        let wall = micros(&self.realtime)
            .and_then(|micros| Timestamp::from_microsecond(i64::try_from(micros).ok()?).ok());
        let stamp = match (wall, micros(&self.monotonic)) {
            (Some(wall), _) => Stamp::Wall(wall),
            (None, Some(micros)) => Stamp::SinceBoot(micros),
            (None, None) => Stamp::None,
        };
        let text = value_text(&self.message);
        (!text.is_empty()).then_some(KernelLine {
            stamp,
            text: text.into(),
        })
    }
}

fn value_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Array(bytes) => {
            let bytes: Vec<u8> = bytes
                .iter()
                .filter_map(|byte| u8::try_from(byte.as_u64()?).ok())
                .collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Value::Null | Value::Bool(_) | Value::Object(_) => String::new(),
    }
}

/// What `dmesg`, `journalctl` and syslog print for people.
fn printed(raw: &str, now: Timestamp) -> Option<KernelLine<'_>> {
    let mut rest = raw;
    if let Some((priority, after)) = raw_priority(rest) {
        if priority >> 3 != KERN {
            return None;
        }
        rest = after;
    }
    let decoded = decoded_facility(rest);
    if let Some((facility, after)) = decoded {
        if facility != "kern" {
            return None;
        }
        rest = after;
    }
    let (stamp, text) = if let Some((stamp, after)) = bracketed_stamp(rest) {
        (stamp, tagged_text(after).unwrap_or(after))
    } else if let Some((wall, after)) = iso_stamp(rest) {
        // Only dmesg writes a comma before the fraction; all others go on with a host and a tag.
        let is_dmesg = decoded.is_some() || rest[..rest.len() - after.len()].contains(',');
        let text = if is_dmesg { after } else { tagged_text(after)? };
        (Stamp::Wall(wall), text)
    } else if let Some((wall, after)) = syslog_stamp(rest, now) {
        (Stamp::Wall(wall), tagged_text(after)?)
    } else {
        (Stamp::None, rest)
    };
    Some(KernelLine {
        stamp,
        text: text.into(),
    })
}

/// `<4>`.
fn raw_priority(text: &str) -> Option<(u64, &str)> {
    let (priority, after) = text.strip_prefix('<')?.split_once('>')?;
    Some((priority.parse().ok()?, after))
}

/// `kern  :warn  : `, as `dmesg -x` writes it.
fn decoded_facility(text: &str) -> Option<(&str, &str)> {
    const LEVELS: [&str; 8] = [
        "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug",
    ];
    let (facility, after) = text.split_once(':')?;
    let (level, after) = after.split_once(':')?;
    let is_word = |c: char| c.is_ascii_alphanumeric();
    let facility = facility.trim_end();
    (!facility.is_empty() && facility.chars().all(is_word) && LEVELS.contains(&level.trim_end()))
        .then(|| (facility, after.strip_prefix(' ').unwrap_or(after)))
}

/// `[  123.456789] `, `[Sun Feb 23 16:24:18 2025] ` and their kin, and the kernel's `[    T1] ` behind it.
fn bracketed_stamp(text: &str) -> Option<(Stamp, &str)> {
    let (inside, after) = text.strip_prefix('[')?.split_once(']')?;
    let stamp = bracketed(inside.trim())?;
    let after = after.strip_prefix(' ').unwrap_or(after);
    let caller = after
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .filter(|(caller, _)| {
            let number = caller.trim_start().strip_prefix(['T', 'C']);
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        });
    Some((stamp, caller.map_or(after, |(_, after)| after)))
}

fn bracketed(inside: &str) -> Option<Stamp> {
    let mut words = inside.split_whitespace();
    let words: [Option<&str>; 6] = std::array::from_fn(|_| words.next());
    match words {
        // A placeholder, or time since the line before: not a time.
        [Some("..."), None, ..] => Some(Stamp::None),
        [Some(step), None, ..] if step.starts_with('+') => seconds(&step[1..]).map(|_| Stamp::None),
        // `Feb23 16:24`: too coarse.
        [Some(day), Some(time), None, ..]
            if month(day.get(..3)?).is_some() && time.contains(':') =>
        {
            Some(Stamp::None)
        }
        [
            Some(_),
            Some(month),
            Some(day),
            Some(clock),
            Some(year),
            None,
        ] => {
            let year = year.parse().ok()?;
            utc(year, month, day, clock).map(Stamp::Wall)
        }
        // `123.456789`, or `123.456789 <  0.000017>`.
        [Some(first), second, ..] if second.is_none_or(|word| word.starts_with('<')) => {
            seconds(first).map(Stamp::SinceBoot)
        }
        _ => None,
    }
}

/// `123.456789` in microseconds.
fn seconds(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.')?;
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros: u64 = format!("{:0<6}", fraction.get(..6).unwrap_or(fraction))
        .parse()
        .ok()?;
    whole
        .parse::<u64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(micros)
}

/// `2025-01-21T04:41:44,283302+00:00 `, with or without fraction and zone.
fn iso_stamp(text: &str) -> Option<(Timestamp, &str)> {
    let (stamp, after) = text.split_once(' ')?;
    if !stamp.starts_with(|c: char| c.is_ascii_digit()) || !stamp.contains('T') {
        return None;
    }
    let wall = stamp.parse::<Timestamp>().ok().or_else(|| {
        let local: DateTime = stamp.parse().ok()?;
        Offset::UTC.to_timestamp(local).ok()
    });
    Some((wall?, after))
}

/// `Oct 16 20:47:19 `, of the latest such day that is not in the future.
fn syslog_stamp(text: &str, now: Timestamp) -> Option<(Timestamp, &str)> {
    let (month, after) = text.split_once(' ')?;
    self::month(month)?;
    let (day, after) = after.trim_start().split_once(' ')?;
    let (clock, after) = after.split_once(' ')?;
    let latest = now.checked_add(SignedDuration::from_hours(24)).ok()?;
    let year = latest.to_zoned(TimeZone::UTC).year();
    // Leap days are up to eight years apart.
    let wall = (0..=8)
        .filter_map(|back| utc(year - back, month, day, clock))
        .find(|wall| *wall <= latest)?;
    Some((wall, after))
}

fn utc(year: i16, month: &str, day: &str, clock: &str) -> Option<Timestamp> {
    let month = self::month(month)?;
    let day: u8 = day.parse().ok()?;
    let local: DateTime = format!("{year:04}-{month:02}-{day:02}T{clock}")
        .parse()
        .ok()?;
    Offset::UTC.to_timestamp(local).ok()
}

/// 1 to 12.
fn month(name: &str) -> Option<usize> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    MONTHS
        .iter()
        .position(|month| *month == name)
        .map(|at| at + 1)
}

/// The text of `V09 kernel: text` or `V09 kernel: [  123.456789] text`.
fn tagged_text(text: &str) -> Option<&str> {
    let (_host, after) = text.split_once(' ')?;
    let text = after.strip_prefix("kernel: ")?;
    Some(bracketed_stamp(text).map_or(text, |(_, text)| text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-03-01T12:00:00Z".parse().unwrap()
    }

    fn wall(text: &str) -> Stamp {
        Stamp::Wall(text.parse().unwrap())
    }

    #[test]
    fn each_recording_yields_the_same_line() {
        let early = Stamp::SinceBoot(123_456_789);
        let sunday = wall("2025-02-23T16:24:18Z");
        for (raw, stamp) in [
            ("NVRM: x", Stamp::None),
            ("4,1234,123456789,-;NVRM: x", early),
            (
                "4,1234,123456789,c,caller=T12;NVRM: x\n SUBSYSTEM=pci\n DEVICE=+pci:0",
                early,
            ),
            ("[  123.456789] NVRM: x", early),
            ("[  123.456789][   T12] NVRM: x", early),
            ("[  123.456789 <    0.000017>] NVRM: x", early),
            ("<4>[  123.456789] NVRM: x\n", early),
            ("kern  :warn  : [  123.456789] NVRM: x", early),
            ("[  123.456789] V09 kernel: NVRM: x", early),
            ("[Sun Feb 23 16:24:18 2025] NVRM: x", sunday),
            ("kern  :warn  : [Sun Feb 23 16:24:18 2025] NVRM: x", sunday),
            ("2025-02-23T16:24:18,000000+00:00 NVRM: x", sunday),
            (
                "kern  :err   : 2025-02-23T17:24:18,000000+01:00 NVRM: x",
                sunday,
            ),
            ("2025-02-23T16:24:18+0000 V09 kernel: NVRM: x", sunday),
            (
                "2025-02-23T16:24:18.000000+00:00 V09 kernel: [  1.000000] NVRM: x",
                sunday,
            ),
            (
                "Feb 23 16:24:18 V09 kernel: NVRM: x",
                wall("2026-02-23T16:24:18Z"),
            ),
            (
                "Mar  2 05:00:00 V09 kernel: NVRM: x",
                wall("2026-03-02T05:00:00Z"),
            ),
            (
                "Mar  9 05:00:00 V09 kernel: NVRM: x",
                wall("2025-03-09T05:00:00Z"),
            ),
            (
                "Feb 29 05:00:00.5 V09 kernel: NVRM: x",
                wall("2024-02-29T05:00:00.5Z"),
            ),
            ("[...] NVRM: x", Stamp::None),
            ("[  +0.000017] NVRM: x", Stamp::None),
            ("[Feb23 16:24] NVRM: x", Stamp::None),
            (
                r#"{"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","__REALTIME_TIMESTAMP":"1740327858000000","_SOURCE_MONOTONIC_TIMESTAMP":"123456789","MESSAGE":"NVRM: x"}"#,
                sunday,
            ),
            (
                r#"{"SYSLOG_FACILITY":"0","_SOURCE_MONOTONIC_TIMESTAMP":"123456789","MESSAGE":[78,86,82,77,58,32,120]}"#,
                early,
            ),
            (
                r#"{"MESSAGE":"NVRM: x","SYSLOG_IDENTIFIER":"kernel"}"#,
                Stamp::None,
            ),
        ] {
            let line = parse_line(raw, now()).unwrap_or_else(|| panic!("refused: {raw}"));
            assert_eq!((line.stamp, &*line.text), (stamp, "NVRM: x"), "{raw}");
        }
    }

    #[test]
    fn what_the_kernel_did_not_say_is_refused() {
        for raw in [
            "12,1234,123456789,-;NVRM: x",
            "<12>[  123.456789] NVRM: x",
            "user  :warn  : [  123.456789] NVRM: x",
            "user  :notice: 2025-02-23T16:24:18,000000+00:00 NVRM: x",
            "Oct 16 20:47:19 V09 logger[12]: NVRM: x",
            "Oct 16 20:47:19 V09 root: kernel: NVRM: x",
            "2025-02-23T16:24:18+0000 V09 root[1]: NVRM: x",
            r#"{"_TRANSPORT":"kernel","SYSLOG_FACILITY":"1","MESSAGE":"NVRM: x"}"#,
            r#"{"_TRANSPORT":"syslog","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"NVRM: x"}"#,
            r#"{"_TRANSPORT":["kernel","journal"],"MESSAGE":"NVRM: x"}"#,
            r#"{"MESSAGE":"NVRM: x"}"#,
            r#"{"_TRANSPORT":"kernel","MESSAGE":null}"#,
            " SUBSYSTEM=pci",
            "",
            "\n",
        ] {
            assert_eq!(parse_line(raw, now()), None, "{raw}");
        }
    }

    #[test]
    fn text_keeps_its_own_brackets_and_escapes() {
        for (raw, text) in [
            (
                "[drm] Initialized nvidia-drm",
                "[drm] Initialized nvidia-drm",
            ),
            ("{1}[Hardware Error]: event", "{1}[Hardware Error]: event"),
            ("4,1,2,-;[drm] x", "[drm] x"),
            (
                r"4,1,2,-;a\x0ab\x5cx \xc3\xa4 \xzz \x",
                "a\nb\\x ä \\xzz \\x",
            ),
            ("3,1,2;no flags", "3,1,2;no flags"),
            ("md/raid1:md0: active", "md/raid1:md0: active"),
        ] {
            let line = parse_line(raw, now()).unwrap();
            assert_eq!(line.text, text, "{raw}");
        }
        assert_eq!(kmsg_sequence("12,1234,5,-;x"), Some(1234));
        assert_eq!(kmsg_sequence("NVRM"), None);
    }

    proptest! {
        #[test]
        fn no_line_panics(raw in "([\\[<{]|[0-9],){0,3}(Feb |kern :warn : )?\\PC{0,40}[\\];,:\\\\x]{0,4}\\PC{0,40}") {
            if let Some(line) = parse_line(&raw, now()) {
                let _ = crate::domain::kernel_event::event(&line.text);
            }
        }
    }
}
