//! Every form of recording, several at once, with readings, and over boots.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::desk::{
    BOOT, Desk, Judged, OTHER, STORY, WALL, boot_of, form, gzip, record, record_from, story, time,
    told,
};

#[test]
fn the_same_story_is_judged_the_same_however_it_was_recorded() {
    let desk = Desk::new();
    let expected = story();
    for (name, form) in WALL.iter().chain(&OTHER) {
        let text = record_from(*form, boot_of(name), &STORY);
        desk.write("log", &text);
        desk.write("log.gz", gzip(&text));
        let judged = desk.judged(&["log"]);
        assert_eq!(
            judged.clone().timeless(),
            expected.clone().timeless(),
            "{name}"
        );
        if WALL.iter().any(|(known, _)| known == name) {
            assert_eq!(judged, expected, "{name}");
        }
        assert_eq!(desk.judged(&["log.gz"]), judged, "{name}, packed");
        let piped = desk.replay_input(text.as_bytes(), &["--json", "-"]);
        assert_eq!(Judged::of(&piped), judged, "{name}, as standard input");
        assert_eq!((piped.status, piped.err.as_str()), (Some(2), ""), "{name}");
    }
    let piped = desk.replay_input(
        &gzip(record(form("dmesg -T"), BOOT, &STORY)),
        &["--json", "-"],
    );
    assert_eq!(Judged::of(&piped), expected, "packed, as standard input");
}

#[test]
fn every_line_tells_by_itself_how_it_was_recorded() {
    let desk = Desk::new();
    let mixed = STORY.iter().zip(&WALL);
    let mixed: String = mixed
        .map(|(line, (_, form))| record(*form, BOOT, std::slice::from_ref(line)))
        .collect();
    desk.write("mixed", &mixed);
    assert_eq!(desk.judged(&["mixed"]), story());
    desk.write("dos", mixed.replace('\n', "\r\n"));
    assert_eq!(desk.judged(&["dos"]), story());
}

#[test]
fn recordings_of_one_node_are_judged_in_the_order_of_their_times() {
    let desk = Desk::new();
    let text = record(form("journalctl -o short-iso"), BOOT, &STORY);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    desk.write("early", lines[..3].concat());
    desk.write("late", gzip(lines[3..].concat()));
    // Line by line in turn, too.
    desk.write("even", [lines[0], lines[2], lines[4]].concat());
    desk.write("odd", [lines[1], lines[3], lines[5]].concat());
    for files in [
        ["early", "late"],
        ["late", "early"],
        ["even", "odd"],
        ["odd", "even"],
    ] {
        assert_eq!(desk.judged(&files), story(), "{files:?}");
    }
    let piped = desk.replay_input(lines[..3].concat().as_bytes(), &["--json", "late", "-"]);
    assert_eq!(Judged::of(&piped), story());
}

/// A reading of so many cards, at a second since the boot.
fn cards(boot: &str, began: &str, second: i64, count: usize) -> String {
    let at = time(began) + SignedDuration::from_secs(second);
    let ids = ["GPU-aaaa", "GPU-bbbb"];
    let pci = ["0000:01:00", "0000:02:00"];
    let cards = ids.iter().zip(pci).take(count);
    let cards: Vec<Value> = cards
        .map(|(id, pci)| json!({"id": id, "name": "NVIDIA RTX A4000", "pci": pci, "state": "ok"}))
        .collect();
    let gpus = json!({"probe": "answering", "cards": cards, "pci": &pci[..count]});
    let record = json!({"at": at, "up": second, "boot": boot, "gpus": gpus});
    format!("{record}\n")
}

#[test]
fn a_kernel_log_and_readings_make_one_story() {
    let desk = Desk::new();
    let readings: String = (0..73)
        .map(|step| cards("b1", BOOT, 100 * step, 2))
        .collect();
    desk.write("night.rec.gz", gzip(&readings));
    desk.write("kern.log", record(form("dmesg -T"), BOOT, &STORY));
    for files in [["night.rec.gz", "kern.log"], ["kern.log", "night.rec.gz"]] {
        let judged = desk.judged(&files);
        let expected = [
            "gpu.xid.31 gpu:GPU-bbbb info 1",
            "gpu.xid.79 gpu:GPU-bbbb failing 1",
            "host.disk_io disk:sdb degraded 1",
        ];
        assert_eq!(
            judged.findings(),
            expected,
            "the card has its name from the readings"
        );
        assert_eq!(judged.summary["lines"], 79);
        assert_eq!(judged.summary["matched"], 76);
    }
}

#[test]
fn findings_end_with_the_boot() {
    let desk = Desk::new();
    let second = [
        (0, "Linux version 6.8.0-45-generic (buildd@lcy02-amd64-115)"),
        (60_000_000, "usb 1-1: new high-speed USB device number 2"),
    ];
    let expected = [
        "opened gpu.xid.31",
        "closed gpu.xid.31",
        "opened gpu.xid.79",
        "opened host.disk_io",
    ];
    let ends = ["closed gpu.xid.79", "closed host.disk_io"];
    let expected = [&expected[..], &ends].concat();
    // Where the second boot is hours later, the disk was forgotten before.
    let in_order = |judged: &Judged| {
        let mut changes = judged.changes();
        changes[4..].sort();
        changes
    };
    for (name, form) in WALL.iter().chain(&OTHER) {
        let boot = boot_of(name);
        let first = record_from(*form, boot, &STORY);
        let second = record_from(*form, boot + SignedDuration::from_hours(3), &second);
        desk.write("both", [first.as_str(), &second].concat());
        let both = desk.judged(&["both"]);
        assert_eq!(in_order(&both), expected, "{name}");
        assert_eq!(both.summary["final"], "healthy", "{name}");
        if WALL.iter().any(|(known, _)| known == name) {
            // A log that was put aside at the restart: the new one begins with the new boot.
            desk.write("kern.log.1", &first);
            desk.write("kern.log", format!("usb 2-1: something\n{second}"));
            let apart = desk.judged(&["kern.log", "kern.log.1"]);
            assert_eq!(in_order(&apart), expected, "{name}, two files");
        }
    }
    // Where the beginning of the new boot is missing, the time that goes back tells of it.
    for form in [form("dmesg"), form("/dev/kmsg")] {
        let text = [record(form, BOOT, &STORY), record(form, BOOT, &STORY[2..3])].concat();
        desk.write("wrapped", text);
        let closes = desk.judged(&["wrapped"]);
        assert_eq!(in_order(&closes)[4..6], ends);
        assert_eq!(closes.summary["final"], "healthy");
        assert_eq!(closes.findings()[0], "gpu.xid.31 gpu:0000:02:00 info 1");
    }
}

#[test]
fn the_hardware_of_one_boot_is_remembered_in_the_next() {
    let desk = Desk::new();
    let later = "2025-11-21T11:00:00Z";
    let first = [0, 10, 20]
        .map(|second| cards("b1", BOOT, second, 2))
        .concat();
    let second = |count| {
        [60, 70, 80]
            .map(|at| cards("b2", later, at, count))
            .concat()
    };
    desk.write("first", first);
    desk.write("less", second(1));
    desk.write("same", second(2));
    let less = desk.judged(&["first", "less"]);
    assert_eq!(less.findings(), ["gpu.missing gpu:GPU-bbbb failing 1"]);
    assert_eq!(less.steps[0]["at"], "2025-11-21T11:01:00Z");
    assert_eq!(less.summary["final"], "failing");
    let same = desk.judged(&["first", "same"]);
    assert_eq!(
        (same.findings().len(), same.steps.len()),
        (0, 0),
        "{same:?}"
    );
    // A boot that only the kernel's log tells of counts as well.
    desk.write("only", cards("", BOOT, 20, 2));
    let banner = (0, "Linux version 6.8.0-45-generic (buildd@lcy02-amd64-115)");
    desk.write("kern.log", record(form("dmesg -T"), later, &[banner]));
    desk.write("after", cards("", later, 60, 1));
    let told = desk.judged(&["only", "kern.log", "after"]);
    assert_eq!(told.findings(), ["gpu.missing gpu:GPU-bbbb failing 1"]);
}

#[tokio::test]
async fn a_clock_that_jumps_by_decades_takes_no_longer() {
    let desk = Desk::new();
    let reading = |at: &str, up: f64| {
        let hole = json!({"enabled": true, "fps": 5.0});
        let cameras = json!({"kind": "frigate", "name": "frigate", "ingest": "online", "cameras": {"hole07": hole}});
        let record = json!({"at": at, "up": up, "boot": "b1", "cameras": cameras});
        format!("{record}\n")
    };
    // A board without a battery starts in 1970, until somebody tells it the time.
    let text = [
        reading("1970-01-01T00:00:20Z", 20.0),
        reading("2025-11-21T10:00:00Z", 30.0),
    ];
    desk.write("night.rec", text.concat());
    let mut command = tokio::process::Command::from(desk.command(&["night.rec"]));
    let run = command.kill_on_drop(true).output();
    let run = tokio::time::timeout(Duration::from_secs(60), run).await;
    let told = told(run.expect("it ends"));
    assert!(
        told.out.contains("2 lines, 2 of them told something"),
        "{told:?}"
    );
}
