//! The words of NVIDIA's driver.

use super::{Heard, KernelEvent, Wording, leading_number, pci, plain};

const NVRM: &str = "NVRM: ";

pub(super) const WORDINGS: &[Wording] = &[
    Wording {
        needle: NVRM,
        words: &["Xid ("],
        read: xid,
        source: "OG kernel/gpu/rc/kernel_rc.c; without `PCI:` before driver 300 (gpud xid/kmsg.go)",
    },
    Wording {
        needle: NVRM,
        words: &["fallen off the bus"],
        read: |text| {
            Some(
                KernelEvent::GpuFellOff {
                    pci: card(said(text)?),
                }
                .into(),
            )
        },
        source: "OG arch/nvalloc/unix/src/osapi.c (one line); kernel-open/nvidia/nv.c (three)",
    },
    Wording {
        // `rm_init_adapter failed` follows it and is the same failure.
        needle: NVRM,
        words: &["RmInitAdapter failed"],
        read: |text| {
            Some(
                KernelEvent::GpuInitFailed {
                    pci: card(said(text)?),
                }
                .into(),
            )
        },
        source: "OG arch/nvalloc/unix/src/osinit.c",
    },
    Wording {
        needle: NVRM,
        words: &[
            "Rate limiting GSP RPC error prints",
            "PMU has halted",
            "eartbeat timed out",
            "eartbeat timeout",
            "GSP task watchdog timeout",
            "GSP-CrashCat Report",
            "failed to wait for GFW_BOOT",
            "Cannot initialize GSP firmware RM",
        ],
        read: |text| {
            Some(
                KernelEvent::GpuFirmware {
                    pci: card(said(text)?),
                }
                .into(),
            )
        },
        source: "OG kernel/gpu/gsp/kernel_gsp.c, arch/nvalloc/unix/src/osinit.c; gpud xid/testdata/dmesg-with-xid-119.log",
    },
    Wording {
        needle: NVRM,
        words: &["loading NVIDIA UNIX"],
        read: |text| driver(text).map(|_| KernelEvent::GpuDriverLoaded.into()),
        source: "OG kernel-open/nvidia/nv.c",
    },
];

/// `535.161.07`, where the line tells that the driver was loaded.
pub(in super::super) fn driver_version(text: &str) -> Option<String> {
    let version =
        |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
    plain(driver(text)?.split_whitespace().find(version)?)
}

/// The card that the first of three lines names (`NVRM: The NVIDIA GPU 0000:05:00.0`), of which only the third says
/// what happened to it.
pub(in super::super) fn names_card(text: &str) -> Option<String> {
    card(text.strip_prefix("NVRM: The NVIDIA GPU ")?)
}

/// What follows `loading NVIDIA UNIX`: ` x86_64 Kernel Module  535.161.07  Sat Feb …`.
fn driver(text: &str) -> Option<&str> {
    text.strip_prefix("NVRM: loading NVIDIA UNIX")
}

/// What the driver says, but for Xids: those name processes, and anyone may choose the name of a process.
fn said(text: &str) -> Option<&str> {
    text.strip_prefix(NVRM)
        .filter(|said| !said.starts_with("Xid ("))
}

fn card(said: &str) -> Option<String> {
    said.split_whitespace().find_map(pci)
}

/// `NVRM: Xid (PCI:0000:01:00 GPU-I:05): 31, pid=2079991, name=x, Ch 00000007`; pid, name and `PCI:` may be missing.
fn xid(text: &str) -> Option<Heard> {
    let (place, said) = text.strip_prefix("NVRM: Xid (")?.split_once("): ")?;
    let (number, said) = said.split_once(',').unwrap_or((said, ""));
    let event = KernelEvent::Xid {
        pci: card(place)?,
        number: number.trim().parse().ok()?,
    };
    let process = said
        .trim_start()
        .strip_prefix("pid=")
        .and_then(leading_number);
    Some(Heard {
        process,
        ..event.into()
    })
}
