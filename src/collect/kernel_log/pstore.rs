//! What the kernel said last before it gave up: the next boot finds it in pstore, or where systemd has moved it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;

use crate::domain::kernel_event::{KernelEvent, event};
use crate::domain::kernel_facts::evidence;
use crate::domain::kernel_line::parse_line;

/// Where the kernel keeps it, until systemd-pstore has taken it away.
pub const KERNELS: &str = "/sys/fs/pstore";

/// Where systemd-pstore keeps it, in a folder a panic.
pub const SYSTEMDS: &str = "/var/lib/systemd/pstore";

/// How many files are read at most, the latest first.
const FILES: usize = 16;

/// How many entries are looked at while searching for files.
const ENTRIES: usize = 256;

/// How much of a file is read at most, in bytes: its end, where a panic stands.
const BYTES: u64 = 64 * 1024;

/// `/var/lib/systemd/pstore/<stamp>/<number>/dmesg.txt`.
const DEPTH: usize = 2;

/// A kernel's last words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastWords {
    /// When they were written, as far as the files tell.
    pub at: Option<Timestamp>,
    /// `Kernel panic - not syncing: …`, cut as all evidence is.
    pub panic: String,
}

/// The latest panic below `root`, one of `KERNELS` and `SYSTEMDS`. `None` where there is none, or none that may be
/// read: a machine without pstore is a machine like any other. Reads files, few and small.
#[must_use]
pub fn last_words(root: &Path) -> Option<LastWords> {
    let mut files = Vec::new();
    let mut left = ENTRIES;
    collect(root, DEPTH, &mut left, &mut files);
    // Parts of one log have one time; the names tell their order.
    files.sort_unstable_by(|one, other| other.cmp(one));
    files.truncate(FILES);
    files.into_iter().find_map(|(at, path)| {
        let panic = panic(&tail(&path).ok()?)?;
        Some(LastWords { at, panic })
    })
}

/// The files below a folder that hold kernel text, with their times.
fn collect(
    folder: &Path,
    depth: usize,
    left: &mut usize,
    files: &mut Vec<(Option<Timestamp>, PathBuf)>,
) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // A link could lead anywhere.
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth > 0 {
            collect(&path, depth - 1, left, files);
        } else if kind.is_file() && name.starts_with("dmesg") && !name.ends_with(".enc.z") {
            files.push((written(&path), path));
        }
    }
}

/// The seconds that the name of the file or of a folder above begins with, else the file's time. EFI's numbers begin
/// with the time of the panic (drivers/firmware/efi/efi-pstore.c), and systemd names folders by them.
fn written(path: &Path) -> Option<Timestamp> {
    let named = path.iter().rev().take(DEPTH + 1).find_map(|part| {
        let part = part.to_string_lossy();
        let number = part
            .rsplit('-')
            .next()
            .filter(|number| number.len() >= 10)?;
        let seconds: i64 = number.get(..10)?.parse().ok()?;
        Timestamp::from_second(seconds)
            .ok()
            .filter(|_| (1_262_304_000..4_102_444_800).contains(&seconds))
    });
    let modified = || fs::metadata(path).and_then(|file| file.modified()).ok();
    named.or_else(|| modified().and_then(|at: SystemTime| Timestamp::try_from(at).ok()))
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first line that tells of a panic: what follows may be a panic over the panic.
fn panic(log: &str) -> Option<String> {
    log.lines().find_map(|raw| {
        let line = parse_line(raw, Timestamp::UNIX_EPOCH)?;
        let heard = event(&line.text)?;
        (heard.event == KernelEvent::Panic).then(|| evidence(&line.text))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PANIC: &str = "<0>[2315424.098863] Kernel panic - not syncing: hung_task: blocked tasks";

    #[test]
    fn finds_the_latest_panic() {
        let noise = "Panic#1 Part2\n<6>[ 1.0] usb 1-1: new device\n";
        let second = "<0>[ 9.000000] Kernel panic - not syncing: Fatal exception in interrupt";
        let hung = Some("Kernel panic - not syncing: hung_task: blocked tasks");
        let long = format!("{}\n{PANIC}\n", "<6>[ 1.0] x\n".repeat(20_000));
        for (files, at, expected) in [
            (vec![], None, None),
            (vec![("dmesg-efi-173210000001001", noise)], None, None),
            (vec![("console-ramoops-0", PANIC)], None, None),
            (vec![("dmesg-efi-173210000001001.enc.z", PANIC)], None, None),
            (
                vec![
                    ("dmesg-efi-173210000002001", noise),
                    ("dmesg-efi-173210000001001", PANIC),
                ],
                Some(1_732_100_000),
                hung,
            ),
            (
                vec![
                    ("1732100000/001/dmesg.txt", second),
                    ("1732200000/001/dmesg.txt", PANIC),
                ],
                Some(1_732_200_000),
                hung,
            ),
            (
                vec![("173210000001001/dmesg.txt", &long)],
                Some(1_732_100_000),
                hung,
            ),
            (vec![("173210000001001/1/2/dmesg.txt", PANIC)], None, None),
            (
                vec![(
                    "dmesg-efi-173210000001001",
                    "<0>[ 1.0] usb 1-1: Product: Kernel panic - not syncing: x",
                )],
                None,
                None,
            ),
        ] {
            let root = tempfile::tempdir().unwrap();
            for (name, text) in &files {
                let path = root.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let words = last_words(root.path());
            let names: Vec<_> = files.iter().map(|(name, _)| name).collect();
            assert_eq!(
                words.as_ref().map(|words| words.panic.as_str()),
                expected,
                "{names:?}"
            );
            let seconds = words.and_then(|words| words.at).map(Timestamp::as_second);
            assert_eq!(seconds, at, "{names:?}");
        }
        assert_eq!(last_words(Path::new("/nowhere/at/all")), None);
    }

    #[test]
    fn reads_few_files() {
        let root = tempfile::tempdir().unwrap();
        // The oldest of many holds the panic: it is out of reach.
        for number in 0..=FILES {
            let text = if number == 0 { PANIC } else { "nothing" };
            let name = format!("dmesg-efi-{}01001", 1_732_100_000 + number);
            fs::write(root.path().join(name), text).unwrap();
        }
        assert_eq!(last_words(root.path()), None);
    }
}
