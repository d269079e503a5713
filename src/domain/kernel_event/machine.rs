//! The words of processors, memory, PCIe, and of the kernel about itself.

use super::{Heard, KernelEvent, PcieSeverity, Wording, leading_number, pci, plain};

const HARDWARE: &str = "[Hardware Error]: ";

pub(super) const WORDINGS: &[Wording] = &[
    Wording {
        needle: "ut of memory",
        words: &[": Kill"],
        read: out_of_memory,
        source: "mm/oom_kill.c; `Kill process` before 5.0",
    },
    Wording {
        needle: HARDWARE,
        words: &["Machine Check: ", "Machine Check Exception: "],
        read: machine_check,
        source: "arch/x86/kernel/cpu/mce/core.c print_mce",
    },
    Wording {
        needle: HARDWARE,
        words: &[
            "Machine check events logged",
            "event severity: ",
            "System Fatal error",
            "Fatal machine check",
        ],
        read: hardware_error,
        source: "arch/x86/kernel/cpu/mce/core.c, drivers/firmware/efi/cper.c, drivers/edac/mce_amd.c",
    },
    Wording {
        needle: "EDAC MC",
        words: &[" CE", " UE"],
        read: edac,
        source: "drivers/edac/edac_mc.c; the number is missing before 3.5",
    },
    Wording {
        needle: "Memory failure: 0x",
        words: &["recovery action for"],
        read: |text| {
            text.starts_with("Memory failure: ")
                .then(|| ecc(true, "page", 1))
        },
        source: "mm/memory-failure.c",
    },
    Wording {
        needle: "PCIe Bus Error: ",
        words: &[],
        read: bus_error,
        source: "drivers/pci/pcie/aer.c aer_print_error; `Correctable` since 6.13",
    },
    Wording {
        needle: "AER: ",
        words: &[" error received: ", " error message received from "],
        read: port_error,
        source: "drivers/pci/pcie/aer.c aer_print_port_info; `message received from` since 6.8",
    },
    Wording {
        needle: "AER: ",
        words: &["can't recover"],
        read: unrecovered,
        source: "drivers/pci/pcie/err.c report_error_detected",
    },
    Wording {
        needle: " temperature",
        words: &["above threshold"],
        read: |text| cpu(text).then(|| KernelEvent::CpuThrottled.into()),
        source: "arch/x86/kernel/cpu/mce/therm_throt.c; drivers/thermal/intel/therm_throt.c since 5.13",
    },
    Wording {
        needle: " temperature",
        words: &["temperature/speed normal"],
        read: |text| cpu(text).then(|| KernelEvent::CpuThrottleEnded.into()),
        source: "the same",
    },
    Wording {
        needle: "soft lockup",
        words: &["BUG: soft lockup - CPU#"],
        read: |text| watchdog(text, false),
        source: "kernel/watchdog.c; gpud cpu/kmsg_matcher.go",
    },
    Wording {
        needle: "hard LOCKUP",
        words: &["Watchdog detected hard LOCKUP on cpu"],
        read: |text| watchdog(text, true),
        source: "kernel/watchdog.c, watchdog_hld.c",
    },
    Wording {
        needle: "detected stall",
        words: &["INFO: rcu"],
        read: stall,
        source: "kernel/rcu/tree_stall.h",
    },
    Wording {
        needle: "blocked for more than",
        words: &[" seconds."],
        read: hung_task,
        source: "kernel/hung_task.c; gpud cpu/kmsg_matcher.go",
    },
    Wording {
        needle: "BUG: ",
        words: &[
            "BUG: unable to handle ",
            "BUG: kernel NULL pointer dereference",
        ],
        read: |text| opens(text, "BUG: ", KernelEvent::Oops),
        source: "arch/x86/mm/fault.c",
    },
    Wording {
        needle: "kernel BUG at ",
        words: &[],
        read: |text| opens(text, "kernel BUG at ", KernelEvent::Oops),
        source: "lib/bug.c",
    },
    Wording {
        needle: "general protection fault",
        words: &["[#"],
        read: |text| opens(text, "general protection fault", KernelEvent::Oops),
        source: "arch/x86/kernel/traps.c; a program's own fault begins with `traps: `",
    },
    Wording {
        needle: "Oops: ",
        words: &["[#"],
        read: oops,
        source: "arch/x86/kernel/dumpstack.c, arch/arm64/kernel/traps.c",
    },
    Wording {
        needle: "Kernel panic - ",
        words: &[],
        read: |text| opens(text, "Kernel panic - ", KernelEvent::Panic),
        source: "kernel/panic.c; gpud os/kmsg_matcher.go",
    },
];

fn opens(text: &str, words: &str, event: KernelEvent) -> Option<Heard> {
    text.starts_with(words).then(|| event.into())
}

/// `Out of memory: Killed process 13536 (x) …`: the process. Of the lines that one kill prints only this one is
/// there once a kill in every kernel at error level; `oom-kill:constraint` is younger and only informational,
/// `invoked oom-killer` comes without a kill too.
fn out_of_memory(text: &str) -> Option<Heard> {
    let said = text
        .strip_prefix("Memory cgroup out of memory")
        .or_else(|| text.strip_prefix("Out of memory"))?;
    let (_, said) = said.split_once(": Kill")?;
    let said = said.strip_prefix("ed").unwrap_or(said);
    Some(Heard {
        process: leading_number(said.strip_prefix(" process ")?),
        ..KernelEvent::OutOfMemory.into()
    })
}

/// `mce: [Hardware Error]: CPU 1: Machine Check: 0 Bank 5: bea0000000000108`: bit 61 of the bank's status is UC, "not
/// corrected" (Intel SDM 3B 16.3.2.2, AMD APM 2 9.3.2).
fn machine_check(text: &str) -> Option<Heard> {
    const NOT_CORRECTED: u64 = 1 << 61;
    let said = hardware(text)?;
    let (_, status) = said.split_once(" Bank ")?.1.split_once(": ")?;
    let status = status.split_whitespace().next()?;
    let status = u64::from_str_radix(status, 16).ok()?;
    let uncorrected = status & NOT_CORRECTED != 0;
    Some(KernelEvent::MachineCheck { uncorrected }.into())
}

/// `mce: [Hardware Error]: Machine check events logged`, `{1}[Hardware Error]: event severity: recoverable`.
fn hardware_error(text: &str) -> Option<Heard> {
    let said = hardware(text)?;
    let uncorrected = match said.strip_prefix("event severity: ") {
        Some(severity) => ["fatal", "recoverable"].contains(&severity.trim_end()),
        None => !said.starts_with("Machine check events logged"),
    };
    Some(KernelEvent::MachineCheck { uncorrected }.into())
}

/// What stands behind `mce: [Hardware Error]: ` or `{1}[Hardware Error]: `.
fn hardware(text: &str) -> Option<&str> {
    let (before, said) = text.split_once(HARDWARE)?;
    let is_number = |inside: &str| inside.bytes().all(|b| b.is_ascii_digit());
    let numbered = before
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(is_number);
    (["", "mce: "].contains(&before) || numbered).then_some(said)
}

/// `EDAC MC0: 3 CE memory read error on CPU_SrcID#0_Ha#0_Chan#1_DIMM#0 (channel:1 …)`,
/// `EDAC MC0: UE page 0x0, offset 0x0, …`.
fn edac(text: &str) -> Option<Heard> {
    let (controller, said) = text.strip_prefix("EDAC MC")?.split_once(": ")?;
    let controller: u32 = controller.parse().ok()?;
    let (weight, said) = match leading_number::<u64>(said) {
        Some(number) => (number, said.split_once(' ')?.1),
        None => (1, said),
    };
    let kind = said.split(' ').next()?;
    let uncorrected = match kind {
        "CE" => false,
        "UE" => true,
        _ => return None,
    };
    let label = said
        .split_once(" on ")
        .map(|(_, label)| label.split(" (").next().unwrap_or(label));
    let module = label
        .and_then(module)
        .unwrap_or_else(|| format!("mc{controller}"));
    Some(ecc(uncorrected, &module, weight.max(1)))
}

fn ecc(uncorrected: bool, module: &str, weight: u64) -> Heard {
    let event = KernelEvent::MemoryEcc {
        uncorrected,
        module: module.to_owned(),
    };
    Heard {
        weight,
        ..event.into()
    }
}

/// `CPU_SrcID#0_Ha#0_Chan#1_DIMM#0` as a name without signs; boards call their modules anything.
fn module(label: &str) -> Option<String> {
    let name: String = label
        .trim()
        .chars()
        .take(40)
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let is_unknown = label.starts_with("unknown") || label.starts_with("any memory");
    plain(&name).filter(|name| !is_unknown && name.contains(|c| c != '_'))
}

/// `nvidia 0000:01:00.0: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)`; `AER: ` may stand
/// before it.
fn bus_error(text: &str) -> Option<Heard> {
    let (before, said) = text.split_once("PCIe Bus Error: severity=")?;
    let before = before.strip_suffix("AER: ").unwrap_or(before);
    let severity = severity(said.split([',', ';']).next()?)?;
    Some(
        KernelEvent::PcieError {
            pci: reporter(before)?,
            severity,
        }
        .into(),
    )
}

/// `pcieport 0000:00:1c.0: AER: Multiple Corrected error received: 0000:01:00.0`; before 4.18 `id=00e0`, which does not
/// say the domain: the port stands for it.
fn port_error(text: &str) -> Option<Heard> {
    let (before, said) = text.split_once("AER: ")?;
    let said = said.strip_prefix("Multiple ").unwrap_or(said);
    let (kind, source) = said
        .split_once(" error received: ")
        .or_else(|| said.split_once(" error message received from "))?;
    let port = reporter(before)?;
    let pci = source
        .split_whitespace()
        .next()
        .and_then(pci)
        .unwrap_or(port);
    Some(
        KernelEvent::PcieError {
            pci,
            severity: severity(kind)?,
        }
        .into(),
    )
}

/// `nvidia 0000:03:00.0: AER: can't recover (no error_detected callback)`: a fatal error, and the device stays as it is.
fn unrecovered(text: &str) -> Option<Heard> {
    let (before, _) = text.split_once("AER: can't recover")?;
    let severity = PcieSeverity::Fatal;
    let pci = reporter(before)?;
    Some(KernelEvent::PcieError { pci, severity }.into())
}

/// The address in `nvidia 0000:01:00.0: `.
fn reporter(before: &str) -> Option<String> {
    let (driver, address) = before.trim_end().split_once(' ')?;
    (!driver.is_empty() && !driver.ends_with(':'))
        .then(|| pci(address))
        .flatten()
}

fn severity(word: &str) -> Option<PcieSeverity> {
    match word {
        "Corrected" | "Correctable" => Some(PcieSeverity::Corrected),
        "Uncorrected (Non-Fatal)" | "Uncorrectable (Non-Fatal)" => Some(PcieSeverity::NonFatal),
        "Uncorrected (Fatal)" | "Uncorrectable (Fatal)" => Some(PcieSeverity::Fatal),
        _ => None,
    }
}

/// `mce: CPU0: Core temperature above threshold, cpu clock throttled (total events = 1)`,
/// `CPU3: Package temperature is above threshold, …`, `CPU0: Core temperature/speed normal`.
fn cpu(text: &str) -> bool {
    let text = text.strip_prefix("mce: ").unwrap_or(text);
    text.strip_prefix("CPU")
        .and_then(|said| said.split_once(": "))
        .is_some_and(|(number, said)| {
            let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            is_number
                && (said.starts_with("Core temperature") || said.starts_with("Package temperature"))
        })
}

/// `watchdog: BUG: soft lockup - CPU#18 stuck for 27s! [python3:2254956]`, with the process; `NMI watchdog: ` before it
/// in older kernels.
fn watchdog(text: &str, hard: bool) -> Option<Heard> {
    let said = ["NMI watchdog: ", "watchdog: "]
        .iter()
        .find_map(|watchdog| text.strip_prefix(watchdog))
        .unwrap_or(text);
    let said = match said.split_once(": ") {
        Some((cpu, said)) if cpu.starts_with("CPU") => said,
        Some(_) | None => said,
    };
    let opens = said.starts_with("BUG: soft lockup - ")
        || said.starts_with("Watchdog detected hard LOCKUP");
    let process = said
        .rsplit_once(':')
        .and_then(|(_, process)| process.trim_end().strip_suffix(']')?.parse().ok());
    opens.then(|| Heard {
        process,
        ..KernelEvent::Lockup { hard }.into()
    })
}

/// `rcu: INFO: rcu_sched self-detected stall on CPU`, `INFO: rcu_preempt detected stalls on CPUs/tasks:`: a processor or
/// a task that keeps the kernel from going on, as a soft lockup does.
fn stall(text: &str) -> Option<Heard> {
    let said = text.strip_prefix("rcu: ").unwrap_or(text);
    opens(said, "INFO: rcu", KernelEvent::Lockup { hard: false })
}

/// `INFO: task php-fpm:2767319 blocked for more than 120 seconds.`
fn hung_task(text: &str) -> Option<Heard> {
    let said = text.strip_prefix("INFO: ").unwrap_or(text);
    let (task, _) = said
        .strip_prefix("task ")?
        .split_once(" blocked for more than ")?;
    Some(Heard {
        process: task
            .rsplit_once(':')
            .and_then(|(_, process)| process.parse().ok()),
        ..KernelEvent::HungTask.into()
    })
}

/// `Oops: 0000 [#1] SMP`, `Internal error: Oops: 96000004 [#1]`.
fn oops(text: &str) -> Option<Heard> {
    opens(
        text.strip_prefix("Internal error: ").unwrap_or(text),
        "Oops: ",
        KernelEvent::Oops,
    )
}
