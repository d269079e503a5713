//! What is said of the findings of the server itself.

use super::{EKS, GPUD, Topic};
use crate::domain::xid::Fault;

const NPD: &str = "node-problem-detector";
const MIXIN: &str = "node_exporter's alerts";
const NETDATA: &str = "netdata";

const NPD_SOURCE: &str =
    "https://github.com/kubernetes/node-problem-detector/blob/master/config/kernel-monitor.json";
const GPUD_DISK: &str =
    "https://github.com/leptonai/gpud/blob/4a8de33/components/disk/kmsg_matcher.go";
const GPUD_OS: &str =
    "https://github.com/leptonai/gpud/blob/4a8de33/components/os/kmsg_matcher_test.go";
const MIXIN_SOURCE: &str =
    "https://github.com/prometheus/node_exporter/tree/master/docs/node-mixin";
const NETDATA_SOURCE: &str = "https://github.com/netdata/netdata/tree/master/src/health/health.d";
const EKS_SOURCE: &str = "https://github.com/aws/eks-node-monitoring-agent/tree/51af549";

/// In the order of the configuration's list.
pub(super) static TOPICS: [Topic; 18] = [
    Topic {
        code: "host.disk_full",
        title: "a file system is running out of space",
        fault: &[Fault::Application],
        meaning: "A mounted file system is fuller than judge.disk_degraded_percent or \
                  judge.disk_failing_percent. Those in judge.disk_ignore do not count.",
        severity: "Degraded, failing from the second limit on.",
        opens: "With the reading.",
        clears: "When it is emptier.",
        todo: "Recordings, logs, container images: see what grows (`du -xh --max-depth=2 /`).",
        others: &[],
        sources: &["https://man7.org/linux/man-pages/man3/statvfs.3.html"],
    },
    Topic {
        code: "host.disk_io",
        title: "the kernel reports errors of a disk",
        fault: &[Fault::Hardware, Fault::Link],
        meaning: "Reads or writes of a disk fail, time out or are given up, or an array of disks \
                  has lost a member. Loop devices, optical drives and memory disks do not count, \
                  nor do discards that a disk does not understand.",
        severity: "Degraded; failing where a disk that is mounted is gone.",
        opens: "With the kernel's line.",
        clears: "After judge.forget_after without another one; a disk that is gone, with the next \
                 start of the machine.",
        todo: "Save what is on it; look at cable and SMART (`smartctl -a`); replace it.",
        others: &[
            (
                GPUD,
                "array failed, read-only, NVMe timeout or reset failure, buffer I/O; not \"critical medium error\" and newer wordings",
            ),
            (
                EKS,
                "end_request, blk_update_request and \"on device\" only",
            ),
            (NPD, "buffer I/O errors"),
            (MIXIN, "array degraded for 15 minutes is critical"),
        ],
        sources: &[GPUD_DISK, NPD_SOURCE, EKS_SOURCE],
    },
    Topic {
        code: "host.disk_wear",
        title: "a disk says that it will fail, or is worn out",
        fault: &[Fault::Hardware],
        meaning: "SMART or the NVMe health log: the drive's own verdict, spare blocks below their \
                  threshold, wear above 100 %, or sectors that it could not read or move. A verdict \
                  of PASSED alone hides much.",
        severity: "Degraded: it works until it does not.",
        opens: "With the reading. Without smartctl nothing is known, and nothing is a fault.",
        clears: "With a reading that is good, or another disk.",
        todo: "Copy what is on it and replace it.",
        others: &[
            (
                "scrutiny",
                "PASSED can hide attributes that fail (#195); 130 % wear without an alert (#203)",
            ),
            ("GCM", "check-blockdev"),
        ],
        sources: &[
            "https://www.smartmontools.org/wiki/TocDoc",
            "https://github.com/AnalogJ/scrutiny/issues/195",
        ],
    },
    Topic {
        code: "host.disk_missing",
        title: "a disk that this node had is gone",
        fault: &[Fault::Hardware, Fault::Link],
        meaning: "A built-in disk that the remembered inventory names is not there any more, also \
                  after a restart. Sticks and other removable media do not count.",
        severity: "Degraded.",
        opens: "With the first full reading without it.",
        clears: "When it is there again, or with `sideline inventory accept`.",
        todo: "Cable, slot, power; then the disk.",
        others: &[],
        sources: &["https://docs.kernel.org/admin-guide/abi-stable.html"],
    },
    Topic {
        code: "host.fs_readonly",
        title: "a file system that was writable is read-only",
        fault: &[Fault::Hardware],
        meaning: "The kernel gave up writing: ext4 with errors=remount-ro, an XFS shutdown, btrfs \
                  forced read-only. Nothing is recorded any more.",
        severity: "Failing.",
        opens: "With the kernel's line or the reading.",
        clears: "When it is seen writable again.",
        todo: "Look for the errors of its disk; check it (fsck, xfs_repair) from outside; do not \
               just remount it.",
        others: &[
            (GPUD, "read-only remount"),
            (NPD, "read-only remount, XFS shutdown, ext4 errors"),
        ],
        sources: &[
            "https://docs.kernel.org/admin-guide/ext4.html",
            GPUD_DISK,
            NPD_SOURCE,
        ],
    },
    Topic {
        code: "host.memory",
        title: "hardly any memory left",
        fault: &[Fault::Application],
        meaning: "More than judge.memory_percent is in use, page cache not counted.",
        severity: "Degraded.",
        opens: "After 60 seconds: builds and bursts are no trouble.",
        clears: "When more is free.",
        todo: "See what takes it; too many cameras or a leak.",
        others: &[],
        sources: &["https://docs.kernel.org/filesystems/proc.html"],
    },
    Topic {
        code: "host.memory_missing",
        title: "the machine has less memory than it had",
        fault: &[Fault::Hardware],
        meaning: "The kernel sees clearly less memory than the remembered inventory says: firmware \
                  leaves a module out that it finds broken.",
        severity: "Degraded.",
        opens: "With the reading after a start.",
        clears: "When it is there again, or with `sideline inventory accept`.",
        todo: "Seat the modules anew; test them; replace the one that is missing.",
        others: &[],
        sources: &["https://docs.kernel.org/filesystems/proc.html"],
    },
    Topic {
        code: "host.oom",
        title: "the kernel killed a process for want of memory",
        fault: &[Fault::Application],
        meaning: "Memory was out, of the machine or of a container, and the kernel chose a victim, \
                  which the line names. The hardware is not to blame.",
        severity: "Degraded.",
        opens: "With the kernel's line.",
        clears: "After judge.forget_after without another one.",
        todo: "Restart the victim if nobody else did; find out what grew.",
        others: &[(NPD, "an event"), (GPUD, "an event")],
        sources: &[
            "https://docs.kernel.org/admin-guide/mm/concepts.html",
            NPD_SOURCE,
        ],
    },
    Topic {
        code: "host.memory_ecc",
        title: "the server's memory has errors",
        fault: &[Fault::Hardware],
        meaning: "The kernel's EDAC counts errors that the memory controller corrected (CE) or \
                  could not correct (UE). One line may stand for many. A rare CE is weather; a \
                  stream of them is a module that is about to fail.",
        severity: "Single corrected ones: info. Many: degraded. An uncorrected one: failing.",
        opens: "With the kernel's line or the counter.",
        clears: "Corrected: when they stop. Uncorrected: with the next start of the machine.",
        todo: "Replace the module that the line names.",
        others: &[
            (NETDATA, "a CE in 10 minutes warns, a UE is critical"),
            (NPD, "\"CE memory read error\""),
            (GPUD, "\"CE memory read error\""),
        ],
        sources: &[
            "https://docs.kernel.org/driver-api/edac.html",
            NETDATA_SOURCE,
            NPD_SOURCE,
        ],
    },
    Topic {
        code: "host.machine_check",
        title: "the processor reports an error of the hardware",
        fault: &[Fault::Hardware, Fault::Power, Fault::Environment],
        meaning: "A machine check: caches, memory controller, buses. Corrected ones cost nothing; \
                  fatal ones stop the machine, and their line is seen after the restart.",
        severity: "Corrected ones: info, degraded when they repeat. Uncorrected ones: failing.",
        opens: "With the kernel's line.",
        clears: "Corrected: after judge.forget_after. Uncorrected: when the machine has run long \
                 enough without another.",
        todo: "Note the bank and the status; run a memory test; look at cooling, power and \
               firmware; then replace memory or processor.",
        others: &[(GPUD, "no check"), (EKS, "no check")],
        sources: &["https://docs.kernel.org/arch/x86/x86_64/machinecheck.html"],
    },
    Topic {
        code: "host.cpu_throttled",
        title: "the processor is too hot and slows down",
        fault: &[Fault::Environment],
        meaning: "The kernel says that a core or the package is above its limit and clocked down. \
                  For a second under a burst that is normal.",
        severity: "Degraded when it lasts.",
        opens: "When it goes on over minutes.",
        clears: "When the kernel says that it is normal again, or says nothing more.",
        todo: "Dust, fans, air, room.",
        others: &[("node_exporter", "exports the counter")],
        sources: &[
            "https://github.com/torvalds/linux/blob/master/drivers/thermal/intel/therm_throt.c",
        ],
    },
    Topic {
        code: "host.hung_task",
        title: "a process or a processor is stuck in the kernel",
        fault: &[Fault::Hardware, Fault::Driver, Fault::Link],
        meaning: "A task has been blocked for more than two minutes, or a processor has not run \
                  anything else for many seconds (lockup). Behind it stand disks, network file \
                  systems or drivers that do not answer; the line names the task.",
        severity: "Degraded.",
        opens: "With the kernel's line.",
        clears: "After judge.forget_after without another one.",
        todo: "See what the task waits for: a dead disk, an NFS server, the GPU's driver. For the \
               driver only a restart helps.",
        others: &[
            (
                GPUD,
                "soft lockup and hung task; processes stuck in nvidia calls: reboot",
            ),
            (EKS, "soft lockup and hung task"),
            (NPD, "TaskHung"),
        ],
        sources: &[
            "https://docs.kernel.org/admin-guide/lockup-watchdogs.html",
            GPUD_OS,
            NPD_SOURCE,
        ],
    },
    Topic {
        code: "host.pcie_errors",
        title: "a PCIe port reports errors",
        fault: &[Fault::Link, Fault::Hardware],
        meaning: "AER, the bus's own error reports. Corrected ones were repeated and cost time \
                  only; fatal ones take the device with them.",
        severity: "Corrected ones: info, many degraded. Fatal ones: failing.",
        opens: "With the kernel's line.",
        clears: "After judge.forget_after without another one; fatal ones, with the next start.",
        todo: "Seat card and riser anew; another slot; a lower generation in the firmware's \
               settings.",
        others: &[(GPUD, "no check"), (EKS, "no check")],
        sources: &["https://docs.kernel.org/PCI/pcieaer-howto.html"],
    },
    Topic {
        code: "host.clock",
        title: "the machine's clock is wrong",
        fault: &[Fault::Environment, Fault::Hardware],
        meaning: "The clock does not agree with AWS's, or nothing keeps it in time. From five \
                  minutes on AWS refuses what is signed with it.",
        severity: "Info from 5 seconds, degraded from 60 seconds on.",
        opens: "After 10 seconds: a clock that is being set may jump more than once.",
        clears: "When it agrees again.",
        todo: "NTP (`chronyc tracking`, `timedatectl`); the battery of the board.",
        others: &[
            (EKS, "a clock that is not synchronized"),
            (MIXIN, "0.05 s off for 10 minutes, or unsynchronized"),
        ],
        sources: &[
            "https://man7.org/linux/man-pages/man2/adjtimex.2.html",
            MIXIN_SOURCE,
        ],
    },
    Topic {
        code: "host.unclean_restart",
        title: "the machine went down without being told to",
        fault: &[Fault::Power, Fault::Hardware, Fault::Driver],
        meaning: "The last boot ended without a shutdown: no power, a reset, or a panic, whose \
                  words are then the evidence.",
        severity: "Degraded for a while after the restart.",
        opens: "With the first look after the restart.",
        clears: "After judge.forget_after.",
        todo: "Mains and UPS; the power supply, above all if GPUs failed shortly before; the panic \
               in /var/lib/systemd/pstore.",
        others: &[(
            GPUD,
            "reboot events and panics from kmsg and pstore; power is not looked at",
        )],
        sources: &["https://docs.kernel.org/admin-guide/ramoops.html", GPUD_OS],
    },
    Topic {
        code: "host.nic",
        title: "a network card loses its link, or hangs",
        fault: &[Fault::Link, Fault::Hardware],
        meaning: "The link of a physical card went down again and again, its queue timed out, or \
                  many packets are broken. Once is somebody at the cable.",
        severity: "Degraded when it repeats.",
        opens: "With many changes in a short time, or with a queue that timed out.",
        clears: "After judge.forget_after without another one.",
        todo: "Cable, switch port, firmware and driver of the card.",
        others: &[
            (MIXIN, "1 % errors over 2 minutes, for an hour"),
            ("Azure's node-problem-detector", "InfiniBand flaps only"),
        ],
        sources: &[
            "https://github.com/torvalds/linux/blob/master/net/sched/sch_generic.c",
            MIXIN_SOURCE,
        ],
    },
    Topic {
        code: "host.power",
        title: "the server runs on its battery",
        fault: &[Fault::Environment, Fault::Power],
        meaning: "The UPS says through NUT that mains is gone (OB), or that its battery is low \
                  (LB). A UPS that does not answer is not known, which is neither.",
        severity: "On battery: degraded. Battery low: failing, so that the work leaves before the \
                   lights go out.",
        opens: "With the reading.",
        clears: "When it is on line again.",
        todo: "Mains. A battery that is low soon is old.",
        others: &[],
        sources: &["https://networkupstools.org/docs/developer-guide.chunked/new-drivers.html"],
    },
    Topic {
        code: "host.check",
        title: "a check of the operator is not content",
        fault: &[Fault::NotStated],
        meaning: "A [[check]] of the configuration, by the convention of monitoring plugins: 0 is \
                  well, 1 a warning, 2 critical, 3 and all else unknown. Its first line is the \
                  evidence.",
        severity: "A warning is degraded, critical is failing; unknown opens nothing and closes \
                   nothing.",
        opens: "With the result.",
        clears: "With a result of 0.",
        todo: "What the check's author meant.",
        others: &[],
        sources: &["https://www.monitoring-plugins.org/doc/guidelines.html"],
    },
];
