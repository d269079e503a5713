//! What is cut off, unreadable, empty or no recording at all, and what is printed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use jiff::SignedDuration;
use serde_json::json;

use crate::desk::{BOOT, Desk, Judged, STORY, form, gzip, record, story, time, told};

#[test]
fn a_recording_that_was_cut_off_is_judged_as_far_as_it_goes() {
    let desk = Desk::new();
    let mut random = 1_u64;
    let mut text = record(form("dmesg -T"), BOOT, &STORY);
    for _ in 0..100_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text.push_str(&format!("{random:x}\n"));
    }
    let packed = gzip(&text);
    desk.write("cut.gz", &packed[..packed.len() / 2]);
    let told = desk.replay(&["--json", "cut.gz"]);
    let judged = Judged::of(&told);
    assert_eq!(judged.steps, story().steps);
    assert_eq!(judged.summary["findings"], story().summary["findings"]);
    assert_eq!(told.status, Some(3), "{told:?}");
    let says = |err: &str| {
        err.starts_with("sideline: cut.gz: ") && err.ends_with("; judged up to there\n")
    };
    assert!(says(&told.err), "{}", told.err);
    // Several in one file are one recording, as `cat a.gz b.gz` makes it.
    let (one, other) = text.split_at(text.find("I/O error").expect("it is there"));
    desk.write("both.gz", [gzip(one), gzip(other)].concat());
    assert_eq!(desk.judged(&["both.gz"]).steps, story().steps);
}

#[test]
fn a_line_without_end_costs_only_itself() {
    let desk = Desk::new();
    let text = record(form("dmesg -T"), BOOT, &STORY);
    let (head, tail) = text.split_at(text.find("[Fri Nov 21 12:01").expect("it is there"));
    let long = "x".repeat(10 << 20);
    let forged = "NVRM: Xid (PCI:0000:05:00): 79, GPU has fallen off the bus.";
    for (name, middle) in [
        ("text", format!("{long}\n")),
        (
            "a kernel's word somewhere in it",
            format!("{long} {forged} {long}\n"),
        ),
        (
            "a kernel's word wherever it is cut",
            format!("{}\n", forged.repeat(200_000)),
        ),
    ] {
        desk.write("long", [head, "usb 1-1: y ", &middle, tail].concat());
        let judged = desk.judged(&["long"]);
        assert_eq!(judged.steps, story().steps, "{name}");
        assert_eq!(judged.summary["lines"], 7, "{name}");
    }
    desk.write("long", [&text, "usb 1-1: y ", &long].concat());
    let judged = desk.judged(&["long"]);
    assert_eq!(judged.steps, story().steps, "at the end");
    assert_eq!(judged.summary["lines"], 7, "at the end");
}

#[test]
fn what_is_no_recording_is_told_and_nothing_is_judged() {
    let desk = Desk::new();
    fs::create_dir(desk.path("logs")).expect("a folder");
    desk.write("log", record(form("dmesg"), BOOT, &STORY));
    let noise: Vec<u8> = (0..65_536_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    desk.write("noise", &noise);
    desk.write("noise.gz", gzip(&noise));
    desk.write("torn.gz", [0x1f, 0x8b]);
    desk.write("false.gz", b"\x1f\x8bnothing of the kind");
    desk.write("a.journal", b"LPKSHHRH\0\0\0\0\0\0\0\0");
    desk.write("log.xz", b"\xfd7zXZ\0\0\x04");
    desk.write("log.zst", b"\x28\xb5\x2f\xfd\x04\x00");
    desk.write("log.bz2", b"BZh91AY&SY");
    desk.write("wrong.toml", "[host]\nevry = '1s'\n");
    for (arguments, says) in [
        (
            &["absent"][..],
            "sideline: absent: No such file or directory",
        ),
        (
            &["log", "absent"],
            "sideline: absent: No such file or directory",
        ),
        (
            &["logs"],
            "sideline: logs: is a folder; name the recordings in it",
        ),
        (&["noise"], "sideline: noise: is no text, so no recording"),
        (
            &["noise.gz"],
            "sideline: noise.gz: is no text, so no recording",
        ),
        (&["torn.gz"], "sideline: torn.gz: unexpected end of file"),
        (&["false.gz"], "sideline: false.gz: invalid gzip header"),
        (
            &["a.journal"],
            "sideline: a.journal: is a journal: journalctl --file FILE",
        ),
        (&["log.xz"], "sideline: log.xz: is packed: xz -dc FILE"),
        (&["log.zst"], "sideline: log.zst: is packed: zstd -dc FILE"),
        (&["log.bz2"], "sideline: log.bz2: is packed: bzip2 -dc FILE"),
        (
            &[],
            "error: the following required arguments were not provided",
        ),
        (
            &["log", "--jsn"],
            "error: unexpected argument '--jsn' found",
        ),
        (
            &["log", "--config", "absent.toml"],
            "sideline: absent.toml cannot be read: No such file",
        ),
        (
            &["log", "--config", "wrong.toml"],
            "sideline: wrong.toml:2:1: unknown key \"evry\" in [host]; did you mean \"every\"?",
        ),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sideline"));
        command.arg("replay").args(arguments);
        if !arguments.contains(&"--config") {
            command.args(["--config", "empty.toml"]);
        }
        let run = command
            .current_dir(desk.0.path())
            .env_clear()
            .stdin(Stdio::null());
        let told = told(run.output());
        assert!(told.err.starts_with(says), "{arguments:?}: {told:?}");
        assert_eq!(
            (told.status, told.out.as_str()),
            (Some(3), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn a_file_that_may_not_be_read_is_told() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;

    let desk = Desk::new();
    desk.write("log", record(form("dmesg"), BOOT, &STORY));
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its owner may");
    };
    mode(&desk.path("log"), 0o000);
    mode(desk.0.path(), 0o755);
    let mut command = desk.command(&["log"]);
    if rustix::process::geteuid().is_root() {
        // Root may read everything, and the program may lie where nobody else may look.
        let program = desk.path("sideline");
        fs::copy(env!("CARGO_BIN_EXE_sideline"), &program).expect("a copy");
        mode(&program, 0o755);
        command = Command::new(program);
        command.args(["--config", "empty.toml", "replay", "log"]);
        command.current_dir(desk.0.path()).uid(65_534).gid(65_534);
    }
    let expected = "sideline: log: Permission denied (os error 13)\n";
    let told = told(command.output());
    assert_eq!((told.status, told.err.as_str()), (Some(3), expected));
}

#[test]
fn nothing_and_very_old_lines_are_recordings_too() {
    let desk = Desk::new();
    for (name, text, lines) in [
        ("nothing", "", 0),
        ("an empty line", "\n", 1),
        (
            "zeros, as a power cut leaves them",
            "\0\0\0\0\n\0\0\0\0\0\0\0\0",
            2,
        ),
        ("no line of a kernel", "GET / HTTP/1.1\nHost: x\n", 2),
    ] {
        desk.write("log", text);
        let judged = desk.judged(&["log"]);
        let expected = json!({"final": "healthy", "lines": lines, "matched": 0, "findings": []});
        assert_eq!((judged.steps, judged.summary), (vec![], expected), "{name}");
    }
    for boot in [
        "1970-01-01T00:00:00Z",
        "1999-12-31T23:00:00Z",
        "0001-01-01T00:00:00Z",
    ] {
        for name in ["dmesg -T", "journalctl -o short-iso"] {
            desk.write("old", record(form(name), boot, &STORY));
            let judged = desk.judged(&["old"]);
            assert_eq!(
                judged.clone().timeless(),
                story().timeless(),
                "{name} of {boot}"
            );
            let death = time(boot) + SignedDuration::from_hours(2);
            assert_eq!(judged.steps[2]["at"], json!(death), "{name} of {boot}");
        }
    }
}

#[test]
fn people_are_told_in_words() {
    let desk = Desk::new();
    desk.write("log", record(form("dmesg -T"), BOOT, &STORY));
    let told = desk.replay(&["log"]);
    let expected = "\
2025-11-21T11:00:00Z      healthy   1 of 1
  + gpu.xid.31 of gpu:0000:02:00: info; advice: restart_app
      NVRM: Xid (PCI:0000:02:00): 31, pid=1234, name=ffmpeg, Ch 00000008
2025-11-21T11:10:00.001Z  healthy   1 of 1
  - gpu.xid.31 is over
2025-11-21T12:00:00Z      failing   0 of 1  gpu.xid.79
  + gpu.xid.79 of gpu:0000:02:00: failing; advice: reboot
      NVRM: Xid (PCI:0000:02:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.
2025-11-21T12:01:00Z      failing   0 of 1  gpu.xid.79
  + host.disk_io of disk:sdb: degraded; advice: inspect
      I/O error, dev sdb, sector 12345 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2

failing in the end; 6 lines, 3 of them told something
  gpu.xid.31             info     restart_app         1 times, 2025-11-21T11:00:00Z to 2025-11-21T11:00:00Z  gpu:0000:02:00
  gpu.xid.79             failing  reboot              1 times, 2025-11-21T12:00:00Z to 2025-11-21T12:00:00Z  gpu:0000:02:00
  host.disk_io           degraded inspect             1 times, 2025-11-21T12:01:00Z to 2025-11-21T12:01:00Z  disk:sdb
";
    assert_eq!((told.out.as_str(), told.err.as_str()), (expected, ""));
    assert_eq!(told.status, Some(2));
    desk.write("well", record(form("dmesg -T"), BOOT, &STORY[..2]));
    let told = desk.replay(&["well"]);
    let expected = "healthy in the end; 2 lines, 0 of them told something\n";
    assert_eq!((told.out.as_str(), told.status), (expected, Some(0)));
}

#[test]
fn no_recording_steers_a_terminal() {
    let desk = Desk::new();
    let status = "ALARM \u{1b}]0;x\u{9b}2J\u{7f}";
    let rack = json!({"name": "rack", "power": "line", "status": status, "alarm": true});
    let record = json!({"at": BOOT, "up": 60.0, "boot": "b1", "ups": [rack]});
    desk.write("night.rec", format!("{record}\n"));
    let out = desk.replay(&["night.rec"]).out;
    let expected = "raises an alarm: ALARM \u{fffd}]0;x\u{fffd}2J\u{fffd}\n";
    assert!(out.contains(expected), "{out}");
    assert!(
        !out.contains(|c: char| c.is_control() && c != '\n'),
        "{out:?}"
    );
}

#[test]
fn a_reader_that_goes_early_is_no_error() {
    let desk = Desk::new();
    desk.write("log", record(form("dmesg"), BOOT, &STORY).repeat(300));
    for option in [&["log"][..], &["log", "--json"]] {
        let child = desk
            .command(option)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("the program starts");
        // As `head -1` does, once it has its line.
        let mut reader = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        std::io::BufRead::read_line(&mut reader, &mut line).expect("a line");
        drop(reader);
        let told = told(child.wait_with_output());
        assert_eq!(
            (told.status, told.err.as_str()),
            (Some(2), ""),
            "after {line:?}"
        );
    }
}
