//! Lines and what they mean; the scanner must find each of those that mean something.

mod lines;

use self::lines::{GPU, MACHINE, NETWORK, STORAGE};
use super::*;

/// What a line means, with the process and the weight where it has them.
fn meaning(text: &str) -> Option<String> {
    event(text).map(|heard| {
        let mut said = heard.event.to_string();
        if let Some(process) = heard.process {
            said += &format!(" by {process}");
        }
        if heard.weight != 1 {
            said += &format!(" ×{}", heard.weight);
        }
        said
    })
}

#[test]
fn what_lines_mean() {
    for (text, expected) in [GPU, STORAGE, NETWORK, MACHINE].into_iter().flatten() {
        assert_eq!(meaning(text).as_deref(), Some(*expected), "{text}");
    }
}

#[test]
fn the_scanner_finds_every_line_that_means_something() {
    for (text, _) in [GPU, STORAGE, NETWORK, MACHINE].into_iter().flatten() {
        // As /dev/kmsg, dmesg and journalctl write it.
        let escaped = text.replace('\n', "\\x0a");
        let entry = serde_json::json!({"_TRANSPORT": "kernel", "MESSAGE": text}).to_string();
        for raw in [
            format!("4,1,2,-;{escaped}"),
            format!("[    1.000000] {escaped}"),
            entry,
        ] {
            let log = format!("usb 1-1: new device\n{raw}\nusb 1-1: new device\n");
            let lines: Vec<_> = Scanner::shared().lines(log.as_bytes()).collect();
            assert_eq!(lines, [raw.as_bytes()], "{text}");
        }
    }
}

#[test]
fn every_wording_is_needed_and_names_its_source() {
    for wording in wordings() {
        assert!(!wording.source.is_empty());
        let used = [GPU, STORAGE, NETWORK, MACHINE]
            .into_iter()
            .flatten()
            .any(|(text, _)| {
                text.contains(wording.needle)
                    && (wording.words.is_empty()
                        || wording.words.iter().any(|words| text.contains(words)))
                    && (wording.read)(text).is_some()
            });
        assert!(
            used,
            "no line is read by the wording of {:?} {:?}",
            wording.needle, wording.words
        );
    }
}

#[test]
fn other_words_are_no_events() {
    for text in [
        "",
        "NVRM: Xid (PCI:0000:01:00): , x",
        "NVRM: Xid (PCI:0000:01:00",
        "NVRM: Xid (bogus): 79, x",
        "NVRM: Xid (bogus): 79, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:01:00): 99999999999, x",
        "NVRM: GPU 0000:01:00.0: rm_init_adapter failed, device minor number 0",
        "NVRM: The NVIDIA GPU 0000:05:00.0",
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
        "BTRFS info (device sda1): bdev /dev/sda1 errs: wr 0, rd 0, flush 0, corrupt 0, gen 0",
        "Buffer I/O error on dev sr0, logical block 0, async page read",
        "blk_update_request: I/O error, dev fd0, sector 0",
        "I/O error, dev loop3, sector 0",
        "EXT4-fs error (device loop0): x",
        "I/O error, dev zram0, sector 0",
        "critical target error, dev sda, sector 1 op 0x3:(DISCARD) flags 0x800",
        "operation not supported error, dev sda, sector 1",
        "nvme nvme0: I/O 5 QID 2 timeout, completion polled",
        "nvme nvme0: 8/0/0 default/read/poll queues",
        "nvme0: Identify(0x6), Invalid Field in Command (sct 0x0 / sc 0x2) MORE DNR",
        "ata1: SATA link up 6.0 Gbps",
        "ata1: SATA link down (SStatus 0 SControl 300)",
        "ata2.00: failed command: PACKET",
        "sd 0:0:0:0: [sda] tag#3 Sense Key : Illegal Request [current] ",
        "md/raid1:md0: active with 2 out of 2 mirrors",
        "md/raid1:md0: not clean -- starting background reconstruction",
        "md0: detected capacity change from 0 to 1000",
        "EDAC MC0: Giving out device to module skx_edac controller Skylake Socket#0 IMC#0",
        "mce: [Hardware Error]: TSC 0 ADDR fef1ffc0",
        "usb 1-1: Product: mce: [Hardware Error]: Machine check events logged",
        "pcieport 0000:00:1c.0: AER: enabled with IRQ 122",
        "usb 1-1: Product: PCIe Bus Error: severity=Corrected, x",
        "thermal thermal_zone0: critical temperature reached (100 C), shutting down",
        "usb 1-1: Product: NIC Link is Down",
        "usb 1-1: Manufacturer: eth0: Link is Down",
        "IPv6: ADDRCONF(NETDEV_CHANGE): veth8c1f2aa: link becomes ready",
        "bond0: (slave eth1): link status definitely down, disabling slave",
        "traps: ffmpeg[12] general protection fault ip:7f sp:7f error:0 in libc.so[7f]",
        "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 30s!",
        "VFS: file-max limit 1000000 reached",
    ] {
        assert_eq!(meaning(text), None, "{text}");
    }
}

#[test]
fn a_driver_tells_its_version() {
    for (text, version) in [
        (
            "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.161.07  Sat Feb 17 22:55:48 UTC 2024",
            Some("535.161.07"),
        ),
        (
            "NVRM: loading NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build",
            Some("580.65.06"),
        ),
        ("NVRM: loading NVIDIA UNIX x86_64 Kernel Module", None),
        ("NVRM: Xid (PCI:0000:01:00): 79, x", None),
    ] {
        assert_eq!(driver_version(text).as_deref(), version, "{text}");
    }
}
