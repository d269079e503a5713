//! The words of disks, file systems and software RAID.

use super::{Heard, KernelEvent, Wording, leading_number, plain};

pub(super) const WORDINGS: &[Wording] = &[
    Wording {
        needle: " error, dev ",
        words: &[],
        read: block_layer,
        source: "block/blk-core.c, block/blk-mq.c: `blk_update_request: ` until 5.15, `end_request: ` before 4.3",
    },
    Wording {
        needle: "Buffer I/O error on dev",
        words: &[],
        read: buffer,
        source: "fs/buffer.c; `device` before 3.17",
    },
    Wording {
        needle: "-fs ",
        words: &[],
        read: filesystem,
        source: "fs/ext4/super.c, fs/fat/misc.c",
    },
    Wording {
        needle: "XFS (",
        words: &[],
        read: filesystem,
        source: "fs/xfs/xfs_message.c, xfs_fsops.c, xfs_buf.c",
    },
    Wording {
        needle: "BTRFS",
        words: &[],
        read: filesystem,
        source: "fs/btrfs/messages.c, super.c",
    },
    Wording {
        needle: "Aborting journal on device ",
        words: &[],
        read: journal,
        source: "fs/jbd2/journal.c",
    },
    Wording {
        needle: "nvme nvme",
        words: &[],
        read: nvme,
        source: "drivers/nvme/host/pci.c, core.c; gpud disk/kmsg_matcher.go",
    },
    Wording {
        needle: "(sct 0x",
        words: &[" @ LBA "],
        read: nvme_command,
        source: "drivers/nvme/host/core.c nvme_log_error, since 5.18",
    },
    Wording {
        needle: ": exception Emask",
        words: &[],
        read: |text| ata(text, false),
        source: "drivers/ata/libata-eh.c",
    },
    Wording {
        needle: ": failed command: ",
        words: &[],
        read: |text| ata(text, false),
        source: "drivers/ata/libata-eh.c",
    },
    Wording {
        needle: ".00: disable",
        words: &[".00: disabled", ".00: disable device"],
        read: |text| ata(text, true),
        source: "drivers/ata/libata-core.c ata_dev_disable; `disable device` since 5.18",
    },
    Wording {
        needle: "rejecting I/O to offline device",
        words: &[],
        read: |text| scsi(text, |device| KernelEvent::DiskIo { device, gone: true }),
        source: "drivers/scsi/scsi_lib.c",
    },
    Wording {
        needle: "Device offlined",
        words: &[],
        read: |text| scsi(text, |device| KernelEvent::DiskIo { device, gone: true }),
        source: "drivers/scsi/scsi_error.c",
    },
    Wording {
        needle: "Sense Key : ",
        words: &["Sense Key : Medium Error"],
        read: |text| scsi(text, |device| KernelEvent::DiskMedium { device }),
        source: "drivers/scsi/scsi_logging.c",
    },
    Wording {
        needle: "Sense Key : ",
        words: &["Sense Key : Hardware Error"],
        read: |text| {
            scsi(text, |device| KernelEvent::DiskIo {
                device,
                gone: false,
            })
        },
        source: "drivers/scsi/scsi_logging.c",
    },
    Wording {
        needle: "md/raid",
        words: &[],
        read: raid,
        source: "drivers/md/raid0.c, raid1.c, raid10.c, raid5.c",
    },
];

/// `blk_update_request: I/O error, dev sda, sector 1 op 0x0:(READ) …`.
fn block_layer(text: &str) -> Option<Heard> {
    const ERRORS: [&str; 5] = [
        "I/O",
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
    let device = self::device(device)?;
    // A disk that does not understand a wish to discard is not broken.
    let wished = said.contains("(DISCARD)") || said.contains("(WRITE_ZEROES)");
    match error {
        "device offline" => Some(KernelEvent::DiskIo { device, gone: true }.into()),
        "critical medium" => Some(KernelEvent::DiskMedium { device }.into()),
        error if ERRORS.contains(&error) && !wished => Some(io(device)),
        _ => None,
    }
}

/// `Buffer I/O error on dev dm-0, logical block 0, lost sync page write`.
fn buffer(text: &str) -> Option<Heard> {
    let said = text.strip_prefix("Buffer I/O error on dev")?;
    let said = said.strip_prefix("ice").unwrap_or(said).strip_prefix(' ')?;
    device(said.split([',', ' ']).next()?).map(io)
}

/// `EXT4-fs (md0): …`, `EXT4-fs error (device md0): …`, `XFS (dm-0): …`, `BTRFS info (device sda1: state E): …`.
fn filesystem(text: &str) -> Option<Heard> {
    const FAMILIES: [&str; 6] = ["EXT4-fs", "EXT3-fs", "EXT2-fs", "XFS", "BTRFS", "FAT-fs"];
    const GIVEN_UP: [&str; 7] = [
        "Remounting filesystem read-only",
        "Filesystem has been set read-only",
        "ilesystem has been shut down",
        "hutting down filesystem",
        "Corruption of in-memory data",
        "forced readonly",
        "remounting read-only",
    ];
    const UNCLEAN: [&str; 4] = [
        "recovery complete",
        "Ending recovery",
        "start tree-log replay",
        "was not properly unmounted",
    ];
    const IO: [&str; 4] = ["I/O error", "I/O Error", "IO failure", "writeback error"];
    let family = FAMILIES.iter().find(|family| text.starts_with(**family))?;
    let (kind, said) = text[family.len()..].split_once('(')?;
    let (device, said) = said.split_once(')')?;
    let device = device.strip_prefix("device ").unwrap_or(device);
    let device = self::device(device.split(':').next()?)?;
    if GIVEN_UP.iter().any(|words| said.contains(words)) {
        return Some(KernelEvent::FilesystemReadonly { device }.into());
    }
    if UNCLEAN.iter().any(|words| said.contains(words)) {
        return Some(KernelEvent::FilesystemUnclean { device }.into());
    }
    let is_ext_error = family.starts_with("EXT") && kind.trim() == "error";
    // `bdev /dev/sda1 errs: wr 0, rd 1, …` follows each error of a device in a btrfs.
    let is_btrfs_error = said.contains(" errs: wr ")
        && !said.contains("errs: wr 0, rd 0, flush 0, corrupt 0, gen 0");
    (is_ext_error || is_btrfs_error || IO.iter().any(|words| said.contains(words)))
        .then(|| io(device))
}

/// `Aborting journal on device dm-0-8.`: a journal inside the file system has its inode behind the device's name.
/// What has no journal takes no writes.
fn journal(text: &str) -> Option<Heard> {
    let name = text
        .strip_prefix("Aborting journal on device ")?
        .trim_end_matches('.');
    let device = device(name.strip_suffix("-8").unwrap_or(name))?;
    Some(KernelEvent::FilesystemReadonly { device }.into())
}

/// `nvme nvme0: I/O tag 22 (2016) … timeout, reset controller`.
fn nvme(text: &str) -> Option<Heard> {
    const GONE: [&str; 2] = [
        "Disabling device after reset failure",
        "Removing after probe failure",
    ];
    const SICK: [&str; 2] = [
        "controller is down; will reset",
        "Device not ready; aborting",
    ];
    let (name, said) = text.strip_prefix("nvme ")?.split_once(": ")?;
    let device = device(name)?;
    let opens = |words: &&str| said.starts_with(*words);
    if GONE.iter().any(opens) {
        return Some(KernelEvent::DiskIo { device, gone: true }.into());
    }
    // "timeout, completion polled": the answer was there, only its interrupt was missed.
    let timed_out = said.starts_with("I/O ")
        && said.contains(" timeout")
        && !said.contains("completion polled");
    (timed_out || SICK.iter().any(opens)).then(|| io(device))
}

/// `nvme0n1: Read(0x2) @ LBA 0, 8 blocks, Unrecovered Read Error (sct 0x2 / sc 0x81) DNR`. Status code type 2 is
/// NVMe's "media and data integrity errors"; type 0 is mostly a command that the disk does not know.
fn nvme_command(text: &str) -> Option<Heard> {
    let (name, said) = text.split_once(": ")?;
    let device = device(name).filter(|name| name.starts_with("nvme"))?;
    let (_, kind) = said.split_once("(sct 0x")?;
    match leading_number::<u32>(kind)? {
        0 => None,
        2 => Some(KernelEvent::DiskMedium { device }.into()),
        _ => Some(io(device)),
    }
}

/// `ata1.00: failed command: READ FPDMA QUEUED`. `PACKET` is what optical drives get.
fn ata(text: &str, gone: bool) -> Option<Heard> {
    let (name, said) = text.split_once(": ")?;
    let (port, unit) = name.strip_prefix("ata")?.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let device = device(name).filter(|_| is_number(port) && is_number(unit))?;
    let is_optical = said.starts_with("failed command: PACKET");
    (!is_optical).then(|| KernelEvent::DiskIo { device, gone }.into())
}

/// `sd 0:0:0:0: [sda] tag#1 rejecting I/O to offline device`; without a name the address stands for it.
fn scsi(text: &str, means: fn(String) -> KernelEvent) -> Option<Heard> {
    let (address, said) = text.strip_prefix("sd ")?.split_once(": ")?;
    let name = said
        .strip_prefix('[')
        .and_then(|said| Some(said.split_once(']')?.0));
    Some(means(device(name.unwrap_or(address))?).into())
}

/// `md/raid1:md0: Disk failure on sdb1, disabling device.`, `md/raid1:md0: Operation continuing on 1 devices.` (one
/// record of /dev/kmsg holds both), `md/raid1:md0: active with 1 out of 2 mirrors`. A RAID 0 has nothing to spare.
///
/// `not clean -- starting background reconstruction` only tells that the machine went down without a goodbye: the
/// array is whole.
fn raid(text: &str) -> Option<Heard> {
    let after = text.strip_prefix("md/raid")?;
    let level: &str = &after[..after.find(|c: char| !c.is_ascii_digit())?];
    let after = after[level.len()..].trim_start_matches(':');
    let (array, said) = after.split_once(": ")?;
    let array = device(array)?;
    let failed = said.contains("failing array")
        || said.starts_with("Cannot continue ")
        || said.starts_with("not enough operational ");
    if failed {
        return Some(
            KernelEvent::DiskIo {
                device: array,
                gone: true,
            }
            .into(),
        );
    }
    let lost = said.starts_with("Disk failure on ") || said.starts_with("Operation continuing on ");
    let short = said
        .split_once("active with ")
        .and_then(|(_, said)| said.split_once(" out of "))
        .is_some_and(|(there, of)| {
            leading_number::<u32>(there)
                .zip(leading_number::<u32>(of))
                .is_some_and(|(there, of)| there < of)
        });
    (lost || short).then(|| KernelEvent::RaidDegraded { array }.into())
}

fn io(device: String) -> Heard {
    KernelEvent::DiskIo {
        device,
        gone: false,
    }
    .into()
}

/// A device's name, but for media that come and go or live in memory or files.
fn device(name: &str) -> Option<String> {
    const IGNORED: [&str; 5] = ["loop", "sr", "fd", "zram", "ram"];
    let ignored = IGNORED.iter().any(|kind| {
        name.strip_prefix(kind)
            .is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    });
    plain(name).filter(|_| !ignored)
}
