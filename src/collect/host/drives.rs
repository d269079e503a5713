//! Disks as devices, and software RAID: what sysfs keeps in memory, so that no disk is asked or woken.

use std::path::Path;

use super::sysfs::{entries, name, number, word};
use crate::domain::snapshot::{Drive, RaidArray};

/// sysfs counts a disk's size in these, whatever its own are.
const SECTOR_BYTES: u64 = 512;

/// A storage shelf has as many; more are not told apart by eye.
const MOST: usize = 128;

/// Optical drives and floppies: what is in them comes and goes.
const COME_AND_GO: [&str; 2] = ["sr", "fd"];

/// The disks below `folder` (/sys/block), by name.
pub(in crate::collect) fn read(folder: &Path) -> Vec<Drive> {
    let blocks = entries(folder, "");
    let mut drives: Vec<Drive> = blocks.iter().filter_map(|block| drive(block)).collect();
    drives.truncate(MOST);
    drives
}

/// `None` for what is no disk: loop devices, mappings, RAID and memory are virtual, a path of a multipath disk is
/// hidden, and a card reader without a card has no size.
fn drive(block: &Path) -> Option<Drive> {
    let name = name(block);
    let place = std::fs::canonicalize(block).ok()?;
    let place = place.to_string_lossy();
    let hidden = number::<u8>(&block.join("hidden")) == Some(1);
    let comes_and_goes = COME_AND_GO.iter().any(|kind| name.starts_with(kind));
    if place.contains("/devices/virtual/block/") || hidden || comes_and_goes {
        return None;
    }
    let size: Option<u64> = number(&block.join("size"));
    let removable = number::<u8>(&block.join("removable")) == Some(1);
    if removable && size == Some(0) {
        return None;
    }
    let device = block.join("device");
    let model = word(&device.join("model"));
    let serial = word(&device.join("serial"))
        .or_else(|| word(&block.join("serial")))
        .or_else(|| serial_page(&device.join("vpd_pg80")));
    let world_wide = word(&block.join("wwid")).or_else(|| word(&device.join("wwid")));
    let own_name = || {
        let serial = serial.as_deref()?;
        let model = model.as_deref().unwrap_or_default();
        Some(one_line(&format!("{model} {serial}")))
    };
    Some(Drive {
        id: world_wide.map(|id| one_line(&id)).or_else(own_name),
        size_bytes: size.map(|sectors| sectors.saturating_mul(SECTOR_BYTES)),
        removable,
        usb: place.contains("/usb"),
        state: state(&device),
        name,
        model,
        serial,
    })
}

/// The state of a SCSI disk or an NVMe controller. The device of a multipath NVMe disk is its subsystem, with the
/// controllers below it: one that is live carries the disk.
fn state(device: &Path) -> Option<String> {
    word(&device.join("state")).or_else(|| {
        let controllers = entries(device, "nvme");
        let states = controllers
            .iter()
            .filter_map(|controller| word(&controller.join("state")));
        let states: Vec<String> = states.collect();
        let live = states.iter().find(|state| *state == "live");
        live.or(states.first()).cloned()
    })
}

/// SCSI's page 0x80: four bytes, then the serial number.
fn serial_page(file: &Path) -> Option<String> {
    let page = std::fs::read(file).ok()?;
    let serial = String::from_utf8_lossy(page.get(4..)?);
    let serial = serial.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    (!serial.is_empty()).then(|| one_line(serial))
}

/// Fixed-width fields are filled up with spaces: one is enough.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The software RAIDs below `folder` (/sys/block).
pub(super) fn raids(folder: &Path) -> Vec<RaidArray> {
    let arrays = entries(folder, "md");
    let read = |array: &std::path::PathBuf| {
        let md = array.join("md");
        // Only an array has the folder.
        let state = word(&md.join("array_state"))?;
        Some(RaidArray {
            name: name(array),
            level: word(&md.join("level")),
            state: Some(state),
            action: word(&md.join("sync_action")),
            disks: number(&md.join("raid_disks")),
            missing: number(&md.join("degraded")),
        })
    };
    let mut arrays: Vec<RaidArray> = arrays.iter().filter_map(read).collect();
    arrays.truncate(MOST);
    arrays
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::plant;
    use super::*;

    const SATA: &str = "devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0";
    const USB: &str = "devices/pci0000:00/0000:00:14.0/usb2/2-1/host6/6:0:0:0";
    const NVME: &str = "devices/pci0000:00/0000:01:00.0/nvme/nvme0/nvme0n1";
    const MULTIPATH: &str = "devices/virtual/nvme-subsystem/nvme-subsys1";

    #[test]
    fn disks_and_only_disks() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for (folder, files) in [
            (
                format!("{SATA}/block/sda"),
                vec![("size", "976773168"), ("removable", "0")],
            ),
            (
                SATA.to_owned(),
                vec![
                    ("model", "Samsung SSD 860"),
                    ("state", "running"),
                    ("wwid", "naa.5002538e40a22954"),
                    ("vpd_pg80", "\0\u{1}\0\u{14}S3YZNB0KB00000  "),
                ],
            ),
            (
                format!("{USB}/block/sdb"),
                vec![("size", "62333952"), ("removable", "1")],
            ),
            (
                USB.to_owned(),
                vec![("model", "Ultra"), ("state", "running")],
            ),
            (
                format!("{USB}/block/sdc"),
                vec![("size", "0"), ("removable", "1")],
            ),
            (
                NVME.to_owned(),
                vec![("size", "8"), ("removable", "0"), ("wwid", "eui.002538b1")],
            ),
            (
                "devices/pci0000:00/0000:01:00.0/nvme/nvme0".to_owned(),
                vec![
                    ("model", "970 EVO"),
                    ("serial", "S466"),
                    ("state", "resetting"),
                ],
            ),
            (
                format!("{MULTIPATH}/nvme1n1"),
                vec![("size", "8"), ("removable", "0")],
            ),
            (
                MULTIPATH.to_owned(),
                vec![
                    ("model", "PM9A3"),
                    ("serial", "S64G"),
                    ("nvme1/state", "dead"),
                    ("nvme2/state", "live"),
                ],
            ),
            (
                format!("{MULTIPATH}/nvme1c1n1"),
                vec![("size", "8"), ("hidden", "1")],
            ),
            (
                "devices/pci0000:00/0000:00:03.0/virtio2/block/vda".to_owned(),
                vec![("size", "2"), ("serial", "disk-1"), ("device/x", "")],
            ),
            (
                "devices/virtual/block/loop0".to_owned(),
                vec![("size", "2"), ("removable", "0")],
            ),
            ("devices/virtual/block/md0".to_owned(), vec![("size", "2")]),
            (
                "devices/pci0000:00/ata2/block/sr0".to_owned(),
                vec![("size", "2"), ("removable", "1")],
            ),
        ] {
            for (file, text) in files {
                plant(root, &[(&format!("{folder}/{file}"), text)]);
            }
        }
        for (link, target) in [
            (format!("{SATA}/block/sda/device"), SATA.to_owned()),
            (format!("{USB}/block/sdb/device"), USB.to_owned()),
            (
                format!("{NVME}/device"),
                "devices/pci0000:00/0000:01:00.0/nvme/nvme0".into(),
            ),
            (format!("{MULTIPATH}/nvme1n1/device"), MULTIPATH.into()),
            ("block/sda".into(), format!("{SATA}/block/sda")),
            ("block/sdb".into(), format!("{USB}/block/sdb")),
            ("block/sdc".into(), format!("{USB}/block/sdc")),
            ("block/nvme0n1".into(), NVME.into()),
            ("block/nvme1n1".into(), format!("{MULTIPATH}/nvme1n1")),
            ("block/nvme1c1n1".into(), format!("{MULTIPATH}/nvme1c1n1")),
            (
                "block/vda".into(),
                "devices/pci0000:00/0000:00:03.0/virtio2/block/vda".into(),
            ),
            ("block/loop0".into(), "devices/virtual/block/loop0".into()),
            ("block/md0".into(), "devices/virtual/block/md0".into()),
            (
                "block/sr0".into(),
                "devices/pci0000:00/ata2/block/sr0".into(),
            ),
        ] {
            plant(root, &[(&link, &format!("->{target}"))]);
        }
        let seen = read(&root.join("block"));
        let told: Vec<_> = seen
            .iter()
            .map(|drive| {
                let id = drive.id.as_deref().unwrap_or("-");
                let state = drive.state.as_deref().unwrap_or("-");
                let serial = drive.serial.as_deref().unwrap_or("-");
                format!("{} {id} {serial} {state} usb={}", drive.name, drive.usb)
            })
            .collect();
        assert_eq!(
            told,
            [
                "sda naa.5002538e40a22954 S3YZNB0KB00000 running usb=false",
                "sdb - - running usb=true",
                "vda disk-1 disk-1 - usb=false",
                "nvme0n1 eui.002538b1 S466 resetting usb=false",
                "nvme1n1 PM9A3 S64G S64G live usb=false",
            ]
        );
        assert_eq!(seen[0].size_bytes, Some(500_107_862_016));
        assert!(seen[1].removable && !seen[0].removable);
        assert_eq!(read(&root.join("none")), []);
    }

    #[test]
    fn arrays_tell_what_they_lack() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        plant(
            root,
            &[
                ("md0/md/array_state", "clean"),
                ("md0/md/level", "raid1"),
                ("md0/md/degraded", "1"),
                ("md0/md/raid_disks", "2"),
                ("md0/md/sync_action", "recover"),
                ("md1/md/array_state", "broken"),
                ("md1/md/level", "raid0"),
                ("md_d0/size", "1"),
                ("sda/md/array_state", "clean"),
            ],
        );
        let seen = raids(root);
        assert_eq!(
            seen[0],
            RaidArray {
                name: "md0".into(),
                level: Some("raid1".into()),
                state: Some("clean".into()),
                action: Some("recover".into()),
                disks: Some(2),
                missing: Some(1),
            }
        );
        assert_eq!(
            (seen[1].missing, seen[1].state.as_deref()),
            (None, Some("broken"))
        );
        assert_eq!(seen.len(), 2);
    }
}
