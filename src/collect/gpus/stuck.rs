//! Processes that sleep uninterruptibly in NVIDIA's driver: nothing can end them, and they tell that the driver hangs
//! even where NVML still answers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::machine::Machine;
use super::probe;
use crate::domain::moment::Moment;
use crate::domain::snapshot::{Gpu, StuckProcess};

/// How often processes are looked at: every look reads a line of each.
const LOOK: Duration = Duration::from_secs(30);

/// Processes that are looked at; a machine with more has other troubles.
const PROCESSES: usize = 8192;

/// Stuck processes that are told.
const TOLD: usize = 32;

/// Open files of a process that are looked at.
const FILES: usize = 256;

/// What the last look found.
#[derive(Debug, Default)]
pub(super) struct StuckLook {
    looked: Option<Moment>,
    /// Programs on the cards, as they were last told: a card that hangs tells no more.
    users: BTreeSet<u32>,
    sleeping: Vec<Sleeper>,
}

/// A process that was asleep in the driver at the last look.
#[derive(Debug)]
struct Sleeper {
    /// When the process began, in the kernel's ticks: ids are given out again.
    began: u64,
    looks: u32,
    process: StuckProcess,
}

impl StuckLook {
    /// The processes that have slept in the driver for two looks or more; `None` while it is not time to look.
    ///
    /// Of a process with many threads the first one counts. Any process sleeps so for moments.
    pub(super) fn look(
        &mut self,
        machine: &Machine,
        cards: &[Gpu],
        now: Moment,
    ) -> Option<Vec<StuckProcess>> {
        if self.looked.is_some_and(|looked| now - looked < LOOK) {
            return None;
        }
        self.looked = Some(now);
        let told: BTreeSet<u32> = cards.iter().flat_map(|card| card.pids.clone()).collect();
        if !told.is_empty() {
            self.users = told;
        }
        let before = std::mem::take(&mut self.sleeping);
        let processes = fs::read_dir(machine.proc()).into_iter().flatten();
        self.sleeping = processes
            .flatten()
            .take(PROCESSES)
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
                let (name, began) = uninterruptible(&stat)?;
                let known = before
                    .iter()
                    .find(|known| known.process.pid == pid && known.began == began);
                let ours = name == probe::NAME;
                if !(known.is_some()
                    || ours
                    || self.users.contains(&pid)
                    || in_driver(&entry.path()))
                {
                    return None;
                }
                Some(Sleeper {
                    began,
                    looks: known.map_or(1, |known| known.looks + 1),
                    process: StuckProcess {
                        pid,
                        name: name.to_owned(),
                        since: known.map_or(now, |known| known.process.since),
                    },
                })
            })
            .take(TOLD)
            .collect();
        self.sleeping
            .sort_unstable_by_key(|sleeper| sleeper.process.pid);
        let stuck = self.sleeping.iter().filter(|sleeper| sleeper.looks > 1);
        Some(stuck.map(|sleeper| sleeper.process.clone()).collect())
    }
}

/// Name and start of a process in uninterruptible sleep: `812 (name) D 1 …`, where names may hold blanks and brackets.
fn uninterruptible(stat: &str) -> Option<(&str, u64)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    // The state is the 3rd field of the file, the start the 22nd.
    (fields.next() == Some("D")).then_some(())?;
    Some((name, fields.nth(18)?.parse().ok()?))
}

/// Whether it is in NVIDIA's driver that a process sleeps. Each of these may be closed to us, and then tells nothing.
fn in_driver(process: &Path) -> bool {
    let read = |file| fs::read_to_string(process.join(file)).unwrap_or_default();
    let wchan = read("wchan");
    let ours = ["nv", "_nv", "rm_", "uvm_"];
    ours.iter().any(|start| wchan.starts_with(start))
        || read("stack").contains("[nvidia")
        || has_card_open(&process.join("fd"))
}

fn has_card_open(files: &Path) -> bool {
    let files = fs::read_dir(files).into_iter().flatten().flatten();
    files.take(FILES).any(|file| {
        fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy().starts_with("/dev/nvidia"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_stuck_when_it_sleeps_in_the_driver_in_two_looks() {
        let root = tempfile::tempdir().unwrap();
        let process = |pid: &str, name: &str, state: &str, began: u32| {
            let folder = root.path().join("proc").join(pid);
            fs::create_dir_all(folder.join("fd")).unwrap();
            let between = "0 ".repeat(18);
            let stat = format!("{pid} ({name}) {state} {between}{began} 0 0\n");
            fs::write(folder.join("stat"), stat).unwrap();
            folder
        };
        // One a hint; and a disk's, an idle one, what is no process.
        let open = process("20", "ffmpeg (1)", "D", 1);
        std::os::unix::fs::symlink("/dev/nvidia0", open.join("fd/7")).unwrap();
        let wchan = process("21", "python3", "D", 1);
        fs::write(wchan.join("wchan"), "rm_execute_work_item").unwrap();
        let stack = process("22", "Xorg", "D", 1);
        fs::write(
            stack.join("stack"),
            "[<0>] os_acquire_mutex+0x3a/0x50 [nvidia]\n",
        )
        .unwrap();
        process("23", "frigate", "D", 1);
        process("24", "sideline-probe", "D", 1);
        let disk = process("30", "jbd2/sda1-8", "D", 1);
        fs::write(disk.join("wchan"), "jbd2_journal_commit_transaction").unwrap();
        let idle = process("31", "ffmpeg", "S", 1);
        std::os::unix::fs::symlink("/dev/nvidia0", idle.join("fd/7")).unwrap();
        process("self", "x", "D", 1);
        fs::create_dir_all(root.path().join("proc/40")).unwrap();

        let machine = Machine::at(root.path());
        let card = Gpu {
            pids: vec![23],
            ..Gpu::default()
        };
        let mut look = StuckLook::default();
        let mut at = |second: u64, cards: &[Gpu]| {
            let now = Moment::after_boot(Duration::from_secs(second));
            let stuck = look.look(&machine, cards, now)?;
            let told = stuck.iter().map(|stuck| {
                let since = stuck.since.since_boot().as_secs();
                format!("{} {} {since}", stuck.pid, stuck.name)
            });
            Some(told.collect::<Vec<_>>().join(", "))
        };
        assert_eq!(
            at(100, &[card]).as_deref(),
            Some(""),
            "any sleeps for moments"
        );
        assert_eq!(at(129, &[]), None, "it is not time");
        let all =
            "20 ffmpeg (1) 100, 21 python3 100, 22 Xorg 100, 23 frigate 100, 24 sideline-probe 100";
        assert_eq!(at(130, &[]).as_deref(), Some(all));
        // One awakes, one goes, and another takes the id of a third.
        process("20", "ffmpeg (1)", "S", 1);
        fs::remove_dir_all(root.path().join("proc/21")).unwrap();
        process("22", "Xorg", "D", 2);
        let rest = "23 frigate 100, 24 sideline-probe 100";
        assert_eq!(at(160, &[]).as_deref(), Some(rest));
        assert_eq!(
            at(190, &[]).as_deref(),
            Some(&*format!("22 Xorg 160, {rest}"))
        );
    }
}
