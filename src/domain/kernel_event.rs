//! Kernel text → event: what the kernel means, by the words that its drivers print.

use super::kernel_line::KernelEvent;

/// What a line says of the hardware, and the process that it names. Lines must begin with the driver's own
/// words: those that only quote them (the name of a program, of a USB device) are no evidence.
#[must_use]
pub fn event(text: &str) -> Option<(KernelEvent, Option<u32>)> {
    if let Some(said) = text.strip_prefix("NVRM: ") {
        return nvidia(said);
    }
    if let Some(killed) = out_of_memory(text) {
        return Some((KernelEvent::OutOfMemory, killed));
    }
    filesystem(text)
        .or_else(|| disk(text))
        .map(|event| (event, None))
}

/// NVIDIA's driver (open-gpu-kernel-modules: kernel_rc.c, osapi.c, nv.c).
fn nvidia(said: &str) -> Option<(KernelEvent, Option<u32>)> {
    if let Some(xid) = said.strip_prefix("Xid (") {
        return self::xid(xid);
    }
    if said.starts_with("loading NVIDIA UNIX") {
        return Some((KernelEvent::GpuDriverLoaded, None));
    }
    let pci = || said.split_whitespace().find_map(pci);
    if said.contains("fallen off the bus") {
        // One line, or the last of three, of which only the first names the card; a /dev/kmsg record
        // holds all three.
        return Some((KernelEvent::GpuFellOff { pci: pci() }, None));
    }
    // `rm_init_adapter failed` follows it and is the same failure.
    said.contains("RmInitAdapter failed")
        .then(|| (KernelEvent::GpuInitFailed { pci: pci() }, None))
}

/// `PCI:0000:01:00 GPU-I:05): 31, pid=2079991, name=x, Ch 00000007`; pid, name and `PCI:` may be missing.
fn xid(said: &str) -> Option<(KernelEvent, Option<u32>)> {
    let (card, said) = said.split_once("): ")?;
    let pci = card.split_whitespace().find_map(pci)?;
    let (number, said) = said.split_once(',').unwrap_or((said, ""));
    let number = number.trim().parse().ok()?;
    let process = said
        .trim_start()
        .strip_prefix("pid=")
        .and_then(leading_number);
    Some((KernelEvent::Xid { pci, number }, process))
}

/// `PCI:00000000:01:00.0:` as `0000:01:00`.
fn pci(word: &str) -> Option<String> {
    let word = word.strip_prefix("PCI:").unwrap_or(word);
    let mut parts = word.trim_end_matches([':', ',', '.', ')']).split(':');
    let mut hex = |most: usize| {
        let part = parts.next()?;
        let is_hex = !part.is_empty() && part.len() <= most;
        u32::from_str_radix(part, 16).ok().filter(|_| is_hex)
    };
    let (domain, bus) = (hex(8)?, hex(2)?);
    let device = parts
        .next()?
        .split('.')
        .next()
        .filter(|part| part.len() == 2)?;
    let device = u8::from_str_radix(device, 16).ok()?;
    parts
        .next()
        .is_none()
        .then(|| format!("{domain:04x}:{bus:02x}:{device:02x}"))
}

fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// `Out of memory: Killed process 13536 (x) …`: the process. Of the lines that one kill prints only this one is
/// there once a kill in every kernel (`Kill process` before 5.0) at error level; `oom-kill:constraint` is
/// younger and only informational, `invoked oom-killer` comes without a kill too.
fn out_of_memory(text: &str) -> Option<Option<u32>> {
    let said = text
        .strip_prefix("Memory cgroup out of memory")
        .or_else(|| text.strip_prefix("Out of memory"))?;
    let (_, said) = said.split_once(": Kill")?;
    let said = said.strip_prefix("ed").unwrap_or(said);
    Some(leading_number(said.strip_prefix(" process ")?))
}

/// `EXT4-fs (md0): …`, `EXT4-fs error (device md0): …`, `XFS (dm-0): …`, `BTRFS info (device sda1: state E): …`.
fn filesystem(text: &str) -> Option<KernelEvent> {
    const FAMILIES: [&str; 6] = ["EXT4-fs", "EXT3-fs", "EXT2-fs", "XFS", "BTRFS", "FAT-fs"];
    const GIVEN_UP: [&str; 6] = [
        "Remounting filesystem read-only",
        "Filesystem has been set read-only",
        "ilesystem has been shut down",
        "hutting down filesystem",
        "Corruption of in-memory data",
        "forced readonly",
    ];
    const IO: [&str; 4] = ["I/O error", "I/O Error", "IO failure", "writeback error"];
    let family = FAMILIES.iter().find(|family| text.starts_with(**family))?;
    let (kind, said) = text[family.len()..].split_once('(')?;
    let (device, said) = said.split_once(')')?;
    let device = device.strip_prefix("device ").unwrap_or(device);
    let device = self::device(device.split(':').next()?)?;
    if GIVEN_UP.iter().any(|words| said.contains(words)) {
        return Some(KernelEvent::FilesystemReadonly { device });
    }
    let is_ext_error = family.starts_with("EXT") && kind.trim() == "error";
    (is_ext_error || IO.iter().any(|words| said.contains(words))).then_some(KernelEvent::DiskIo {
        device,
        gone: false,
    })
}

fn disk(text: &str) -> Option<KernelEvent> {
    let (device, gone) = block_layer(text)
        .or_else(|| buffer(text))
        .or_else(|| nvme(text))
        .or_else(|| ata(text))
        .or_else(|| scsi(text))
        .or_else(|| raid(text))?;
    Some(KernelEvent::DiskIo {
        device: self::device(device)?,
        gone,
    })
}

/// `blk_update_request: I/O error, dev sda, sector 1 op 0x0:(READ) …`; before Linux 4.3 `end_request: `, since
/// 5.16 without the function's name.
fn block_layer(text: &str) -> Option<(&str, bool)> {
    const ERRORS: [&str; 6] = [
        "I/O",
        "critical medium",
        "critical target",
        "protection",
        "recoverable transport",
        "timeout",
    ];
    let text = ["blk_update_request: ", "print_req_error: ", "end_request: "]
        .iter()
        .find_map(|function| text.strip_prefix(function))
        .unwrap_or(text);
    let (error, said) = text.split_once(" error, dev ")?;
    let (device, said) = said.split_once([',', ' ']).unwrap_or((said, ""));
    // A disk that does not understand a wish to discard is not broken.
    let wished = said.contains("(DISCARD)") || said.contains("(WRITE_ZEROES)");
    match error {
        "device offline" => Some((device, true)),
        error if ERRORS.contains(&error) && !wished => Some((device, false)),
        _ => None,
    }
}

/// `Buffer I/O error on dev dm-0, logical block 0, lost sync page write`; `device` before Linux 3.17.
fn buffer(text: &str) -> Option<(&str, bool)> {
    let said = text.strip_prefix("Buffer I/O error on dev")?;
    let said = said.strip_prefix("ice").unwrap_or(said).strip_prefix(' ')?;
    Some((said.split([',', ' ']).next()?, false))
}

/// `nvme nvme0: I/O tag 22 (2016) … timeout, reset controller`.
fn nvme(text: &str) -> Option<(&str, bool)> {
    let (device, said) = text.strip_prefix("nvme ")?.split_once(": ")?;
    let has = |words: &str| said.starts_with(words);
    if has("Disabling device after reset failure") || has("Removing after probe failure") {
        return Some((device, true));
    }
    // "timeout, completion polled": the answer was there, only its interrupt was missed.
    let timed_out = has("I/O ") && said.contains(" timeout") && !said.contains("completion polled");
    (timed_out || has("controller is down; will reset") || has("Device not ready; aborting"))
        .then_some((device, false))
}

/// `ata1.00: failed command: READ FPDMA QUEUED`. `PACKET` is what optical drives get.
fn ata(text: &str) -> Option<(&str, bool)> {
    let (device, said) = text.split_once(": ")?;
    let (port, unit) = device.strip_prefix("ata")?.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let failed = said.starts_with("exception Emask")
        || said
            .strip_prefix("failed command: ")
            .is_some_and(|command| !command.starts_with("PACKET"));
    (is_number(port) && is_number(unit) && failed).then_some((device, false))
}

/// `sd 0:0:0:0: [sda] tag#1 rejecting I/O to offline device`; without a name the address stands for it.
fn scsi(text: &str) -> Option<(&str, bool)> {
    let (address, said) = text.strip_prefix("sd ")?.split_once(": ")?;
    let name = said
        .strip_prefix('[')
        .and_then(|said| Some(said.split_once(']')?.0));
    (said.contains("rejecting I/O to offline device") || said.contains("Device offlined"))
        .then_some((name.unwrap_or(address), true))
}

/// `md/raid1:md0: Disk failure on sdb1, disabling device.`; gone when the array has no disk to spare for it.
fn raid(text: &str) -> Option<(&str, bool)> {
    let (_, said) = text.strip_prefix("md/")?.split_once(": Disk failure on ")?;
    let device = said.split([',', ' ']).next()?;
    Some((device, said.contains("failing array")))
}

/// A device's name, but for media that come and go or live in memory or files.
fn device(name: &str) -> Option<String> {
    const LONGEST: usize = 40;
    const IGNORED: [&str; 5] = ["loop", "sr", "fd", "zram", "ram"];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.!:".contains(c);
    let ignored = IGNORED.iter().any(|kind| {
        name.strip_prefix(kind)
            .is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    });
    (!name.is_empty() && name.len() <= LONGEST && name.chars().all(is_plain) && !ignored)
        .then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Option<String> {
        event(text).map(|(event, process)| {
            let said = match event {
                KernelEvent::Xid { pci, number } => format!("xid {number} {pci}"),
                KernelEvent::GpuFellOff { pci } => format!("off {}", pci.unwrap_or("?".into())),
                KernelEvent::GpuInitFailed { pci } => format!("init {}", pci.unwrap_or("?".into())),
                KernelEvent::GpuDriverLoaded => "loaded".to_owned(),
                KernelEvent::OutOfMemory => "oom".to_owned(),
                KernelEvent::DiskIo { device, gone: true } => format!("gone {device}"),
                KernelEvent::DiskIo { device, .. } => format!("io {device}"),
                KernelEvent::FilesystemReadonly { device } => format!("readonly {device}"),
            };
            match process {
                Some(process) => format!("{said} by {process}"),
                None => said,
            }
        })
    }

    #[test]
    fn the_gpus_words() {
        for (text, expected) in [
            (
                "NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout",
                "xid 119 0000:9b:00 by 2024380",
            ),
            (
                "NVRM: Xid (PCI:0000:38:00): 13, pid='<unknown>', name=<unknown>, Graphics",
                "xid 13 0000:38:00",
            ),
            (
                "NVRM: Xid (0000:03:00): 14, Channel 00000001",
                "xid 14 0000:03:00",
            ),
            (
                "NVRM: Xid (PCI:0000:01:00 GPU-I:05 GPU-CI:00): 31, pid=7, name=x, Ch",
                "xid 31 0000:01:00 by 7",
            ),
            (
                "NVRM: Xid (PCI:00000000:0A:00.0): 79, GPU has fallen off the bus.",
                "xid 79 0000:0a:00",
            ),
            ("NVRM: Xid (PCI:00010000:0a:1f): 48", "xid 48 10000:0a:1f"),
            (
                "NVRM: GPU 0000:91:00.0: GPU has fallen off the bus.",
                "off 0000:91:00",
            ),
            (
                "NVRM: GPU at PCI:0000:3b:00 has fallen off the bus.",
                "off 0000:3b:00",
            ),
            (
                "NVRM: The NVIDIA GPU 0000:05:00.0\nNVRM: (PCI ID: 10de:1eb8) installed in this system has\nNVRM: fallen off the bus and is not responding to commands.",
                "off 0000:05:00",
            ),
            (
                "NVRM: fallen off the bus and is not responding to commands.",
                "off ?",
            ),
            (
                "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x24:0xffff:1220)",
                "init 0000:01:00",
            ),
            ("NVRM: RmInitAdapter failed! (0x26:0xffff:1097)", "init ?"),
            (
                "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.161.07",
                "loaded",
            ),
            (
                "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65",
                "loaded",
            ),
        ] {
            assert_eq!(check(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_hosts_words() {
        for (text, expected) in [
            (
                "Out of memory: Kill process 13536 (memorymonster) score 1000 or sacrifice child",
                "oom by 13536",
            ),
            (
                "Out of memory: Killed process 12 (x) total-vm:1kB",
                "oom by 12",
            ),
            (
                "Out of memory (oom_kill_allocating_task): Killed process 12 (x)",
                "oom by 12",
            ),
            (
                "Memory cgroup out of memory: Killed process 12 (x) total-vm:1kB",
                "oom by 12",
            ),
            (
                "blk_update_request: I/O error, dev sda, sector 1 op 0x0:(READ) flags 0x0",
                "io sda",
            ),
            ("end_request: I/O error, dev sda, sector 1", "io sda"),
            (
                "I/O error, dev nvme0n1, sector 128 op 0x1:(WRITE) flags 0x800",
                "io nvme0n1",
            ),
            ("critical medium error, dev sda, sector 1", "io sda"),
            ("device offline error, dev sdb, sector 1", "gone sdb"),
            (
                "Buffer I/O error on dev dm-0, logical block 1308098575, lost async page write",
                "io dm-0",
            ),
            (
                "Buffer I/O error on device sda1, logical block 0",
                "io sda1",
            ),
            (
                "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2: comm ls: reading",
                "io sda1",
            ),
            (
                "EXT4-fs error (device sda1) in ext4_reserve_inode_write:5741: IO failure",
                "io sda1",
            ),
            (
                "EXT4-fs (dm-0): I/O error while writing superblock",
                "io dm-0",
            ),
            (
                "EXT4-fs warning (device sda1): ext4_end_bio:343: I/O error 10 writing to inode 1",
                "io sda1",
            ),
            (
                "EXT4-fs (md0): Remounting filesystem read-only",
                "readonly md0",
            ),
            (
                "XFS (sda1): metadata I/O error in \"xfs_trans_read_buf_map\" at daddr 0x1",
                "io sda1",
            ),
            (
                "XFS (dm-0): Corruption of in-memory data (0x8) detected at x.  Shutting down filesystem.",
                "readonly dm-0",
            ),
            (
                "XFS (dm-0): Log I/O Error Detected.  Shutting down filesystem",
                "readonly dm-0",
            ),
            (
                "XFS (dm-0): Filesystem has been shut down due to log error (0x2).",
                "readonly dm-0",
            ),
            (
                "BTRFS info (device sda1: state E): forced readonly",
                "readonly sda1",
            ),
            (
                "BTRFS: error (device sda1) in btrfs_commit_transaction:2418: errno=-5 IO failure",
                "io sda1",
            ),
            (
                "nvme nvme4: I/O tag 22 (2016) opcode 0x2 (Admin Cmd) QID 0 timeout, reset controller",
                "io nvme4",
            ),
            ("nvme nvme0: I/O 123 QID 4 timeout, aborting", "io nvme0"),
            (
                "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10",
                "io nvme0",
            ),
            (
                "nvme nvme4: Disabling device after reset failure: -19",
                "gone nvme4",
            ),
            (
                "nvme nvme0: Removing after probe failure status: -19",
                "gone nvme0",
            ),
            (
                "md/raid0md0: Disk failure on nvme0n1p1 detected, failing array.",
                "gone nvme0n1p1",
            ),
            (
                "md/raid1:md0: Disk failure on sdb1, disabling device.",
                "io sdb1",
            ),
            (
                "ata1.00: exception Emask 0x0 SAct 0x8 SErr 0x0 action 0x0",
                "io ata1.00",
            ),
            ("ata1.00: failed command: READ FPDMA QUEUED", "io ata1.00"),
            (
                "sd 0:0:0:0: [sda] tag#3 rejecting I/O to offline device",
                "gone sda",
            ),
            (
                "sd 0:0:0:0: rejecting I/O to offline device",
                "gone 0:0:0:0",
            ),
            (
                "sd 0:0:0:0: Device offlined - not ready after error recovery",
                "gone 0:0:0:0",
            ),
        ] {
            assert_eq!(check(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_words_are_no_events() {
        for text in [
            "",
            "NVRM: Xid (PCI:0000:01:00): , x",
            "NVRM: Xid (PCI:0000:01:00",
            "NVRM: Xid (bogus): 79, x",
            "NVRM: Xid (PCI:0000:01:00): 99999999999, x",
            "NVRM: Rate limiting GSP RPC error prints for GPU at PCI:0000:9b:00 (printing 1 of every 30).",
            "NVRM: GPU 0000:01:00.0: rm_init_adapter failed, device minor number 0",
            "usb 1-1: Product: NVRM: Xid (PCI:0000:01:00): 79, x",
            "usb 1-1: Product: x\nNVRM: Xid (PCI:0000:01:00): 79, x",
            "nvidia-nvswitch1: SXid (PCI:0000:06:00.0): 20034, Fatal, Link 48 LTSSM Fault Up",
            "memorymonster invoked oom-killer: gfp_mask=0xd0, order=0, oom_score_adj=0",
            "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=node,pid=863987,uid=0",
            "oom_reaper: reaped process 345646 (vector), now anon-rss:0kB",
            "Killed process 13536 (memorymonster) total-vm:33558652kB",
            "EXT4-fs (sda1): mounted filesystem with ordered data mode",
            "EXT4-fs (sda1): re-mounted. Opts: errors=remount-ro",
            "XFS (sda1): Mounting V5 Filesystem",
            "Buffer I/O error on dev sr0, logical block 0, async page read",
            "blk_update_request: I/O error, dev fd0, sector 0",
            "I/O error, dev loop3, sector 0",
            "EXT4-fs error (device loop0): x",
            "I/O error, dev zram0, sector 0",
            "critical target error, dev sda, sector 1 op 0x3:(DISCARD) flags 0x800",
            "operation not supported error, dev sda, sector 1",
            "nvme nvme0: I/O 5 QID 2 timeout, completion polled",
            "nvme nvme0: 8/0/0 default/read/poll queues",
            "ata1: SATA link up 6.0 Gbps",
            "ata2.00: failed command: PACKET",
            "INFO: task kcompactd1:1177 blocked for more than 120 seconds.",
            "watchdog: BUG: soft lockup - CPU#18 stuck for 27s! [python3:2254956]",
            "Kernel panic - not syncing: hung_task: blocked tasks",
        ] {
            assert_eq!(check(text), None, "{text}");
        }
    }
}
