//! What is said of the findings of GPUs, but for the Xids, which have their catalog.

use super::{DCGM, EKS, GPUD, NVSENTINEL, Topic};
use crate::domain::xid::Fault;

const NVML: &str = "https://docs.nvidia.com/deploy/nvml-api/index.html";
const EVENT_REASONS: &str =
    "https://docs.nvidia.com/deploy/nvml-api/api/group__nvmlClocksEventReasons.html";
const MEMORY: &str = "https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/index.html";
const RECOVERY: &str =
    "https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/error-recovery-and-response-flags.html";
const RETIREMENT: &str = "https://docs.nvidia.com/deploy/dynamic-page-retirement/index.html";
const XIDS: &str = "https://docs.nvidia.com/deploy/xid-errors/index.html";
const GPUD_SOURCE: &str = "https://github.com/leptonai/gpud/tree/4a8de33";
const DCGM_SOURCE: &str =
    "https://github.com/NVIDIA/DCGM/blob/72fa3fe/modules/health/DcgmHealthWatch.cpp";
const EKS_SOURCE: &str = "https://github.com/aws/eks-node-monitoring-agent/tree/51af549";
const NVSENTINEL_SOURCE: &str = "https://github.com/rupalis-nv/NVSentinel/tree/0f60731";

/// In the order of the configuration's list.
pub(super) static TOPICS: [Topic; 20] = [
    Topic {
        code: "gpu.lost",
        title: "the driver says the card is gone from the bus",
        fault: &[Fault::Hardware, Fault::Power, Fault::Link],
        meaning: "NVML answers GPU_IS_LOST, or the kernel says that the card has fallen off the \
                  bus. The driver prints that in one line or in three, with or without Xid 79.",
        severity: "Failing: the card does nothing more until it has been powered anew.",
        opens: "At once.",
        clears: "When the card answers again, the driver is loaded anew or the machine has \
                 restarted.",
        todo: "Restart the machine. If the card is still gone, cut the power for a minute; check \
               slot, riser and power cables; then replace the card.",
        others: &[
            (GPUD, "reboot"),
            (NVSENTINEL, "not seen without an Xid (#155)"),
        ],
        sources: &[XIDS, GPUD_SOURCE],
    },
    Topic {
        code: "gpu.missing",
        title: "a card that should be here is not",
        fault: &[Fault::Hardware, Fault::Link, Fault::Driver],
        meaning: "A card that this node remembers, by UUID, is no longer listed, or fewer are \
                  listed than gpu.expected says. A restart does not make it forget: a card that \
                  died over night is missing in the morning.",
        severity: "Failing, for that card's share of the node.",
        opens: "With the first full answer of the driver that does not list it.",
        clears: "When it is listed again, or `sideline inventory accept` says that it was taken out \
                 on purpose.",
        todo: "Look whether the card is on the PCI bus (`lspci -d 10de:`). If it is not: power, \
               slot, card. If it is: the driver.",
        others: &[
            (GPUD, "needs the count to be configured"),
            (EKS, "a count that does not match is a condition"),
            (NVSENTINEL, "needs the count to be configured"),
        ],
        sources: &[NVML, GPUD_SOURCE, EKS_SOURCE],
    },
    Topic {
        code: "gpu.hung",
        title: "the driver does not answer",
        fault: &[Fault::Driver, Fault::Hardware],
        meaning: "A question to NVML had no answer within gpu.deadline. It is asked in a process of \
                  its own, so the agent goes on; a process that can't be killed is left alone, and \
                  no second one is started beside it.",
        severity: "Failing: who can't ask the driver can't decode either. Where one card is known \
                   to hang, only that card counts.",
        opens: "After gpu.deadline (5 s).",
        clears: "When the driver answers in full.",
        todo: "Restart the machine. A process in uninterruptible sleep can't be ended otherwise.",
        others: &[
            (
                GPUD,
                "NVML without deadline; processes stuck in nvidia calls: reboot",
            ),
            (
                DCGM,
                "not seen: calls may take over 45 s and count as healthy (#313)",
            ),
            (NVSENTINEL, "a watchdog since August 2026 (#1574)"),
        ],
        sources: &[
            "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/1134",
            GPUD_SOURCE,
        ],
    },
    Topic {
        code: "gpu.probe_crashed",
        title: "the vendor's library took its process down",
        fault: &[Fault::Driver],
        meaning: "NVML runs in a process of its own, and that process died. No proof of a broken \
                  card: a library that does not fit the driver does it too.",
        severity: "Degraded; failing when it goes on crashing and no answer comes between. Where it \
                   always crashes at one card and the others answer, only that card counts.",
        opens: "With the crash.",
        clears: "When the driver answers in full.",
        todo: "Look whether driver and library have the same version (`nvidia-smi`, \
               /proc/driver/nvidia/version); restart after a driver update.",
        others: &[],
        sources: &[NVML],
    },
    Topic {
        code: "gpu.driver",
        title: "the driver can't be used",
        fault: &[Fault::Driver, Fault::Hardware],
        meaning: "NVML can't be loaded or does not start although the machine has or had GPUs, or \
                  the kernel says `RmInitAdapter failed`: the driver could not wake the card.",
        severity: "Failing.",
        opens: "At once. On a machine that never had a GPU it does not open, unless gpu.enabled is \
                always.",
        clears: "When the driver answers, or is loaded anew.",
        todo: "Restart the machine. After an update: is the kernel module built for this kernel? If \
               only one card fails to start, suspect that card.",
        others: &[
            (GPUD, "a driver that is not loaded is healthy"),
            (
                EKS,
                "needs DCGM's host engine; one that sees no GPU leaves the node ready (#241)",
            ),
        ],
        sources: &[NVML, GPUD_SOURCE, EKS_SOURCE],
    },
    Topic {
        code: "gpu.hot",
        title: "at the temperature at which the card protects itself",
        fault: &[Fault::Environment, Fault::Hardware],
        meaning: "The core is within 5 °C of the card's own slowdown limit (90 °C where it tells \
                  none), or above judge.gpu_celsius.",
        severity: "Degraded: it still works, slower.",
        opens: "After judge.gpu_hot_after.",
        clears: "When it is cooler.",
        todo: "Dust, fans, air, room. Then the thermal paste.",
        others: &[
            (GPUD, "above the maximum of core or memory: degraded"),
            (NVSENTINEL, "margin to the slowdown limit"),
        ],
        sources: &[NVML, GPUD_SOURCE, NVSENTINEL_SOURCE],
    },
    Topic {
        code: "gpu.power_brake",
        title: "the power supply makes the card slow down",
        fault: &[Fault::Power],
        meaning: "NVML's HwPowerBrakeSlowdown: a signal from outside the card, usually of the power \
                  supply, halves its clocks or worse. The card's own power cap is something else, \
                  and normal at full load.",
        severity: "Degraded.",
        opens: "When three readings in a row have it: one alone is a spike.",
        clears: "With readings without it.",
        todo: "Power supply: its rating, its cables, its other loads.",
        others: &[
            (
                GPUD,
                "hardware slowdown in 6 of 10 samples over 10 minutes: inspect",
            ),
            (EKS, "never reported"),
            (DCGM, "any rise within a minute warns"),
            (NVSENTINEL, "three readings, off by default (#1668)"),
        ],
        sources: &[EVENT_REASONS, GPUD_SOURCE, DCGM_SOURCE, NVSENTINEL_SOURCE],
    },
    Topic {
        code: "gpu.hw_slowdown",
        title: "the hardware makes the card slow down",
        fault: &[Fault::Environment, Fault::Power, Fault::Hardware],
        meaning: "NVML's HwSlowdown or HwThermalSlowdown: the card halves its clocks or worse, for \
                  heat, or for a signal from outside. Slowing down by software, for heat or for the \
                  power cap, is normal at full load and not meant.",
        severity: "Degraded.",
        opens: "When three readings in a row have it.",
        clears: "With readings without it.",
        todo: "Cooling first, then power.",
        others: &[
            (GPUD, "in 6 of 10 samples over 10 minutes: inspect"),
            (EKS, "never reported"),
            (DCGM, "any rise within a minute warns"),
        ],
        sources: &[EVENT_REASONS, GPUD_SOURCE, DCGM_SOURCE],
    },
    Topic {
        code: "gpu.fan_stopped",
        title: "a fan stands still while the card is hot",
        fault: &[Fault::Hardware],
        meaning: "A fan turns at 0 while the card is hot. Cool cards stop their fans on purpose, so \
                  0 alone says nothing.",
        severity: "Degraded.",
        opens: "When readings in a row agree.",
        clears: "When it turns, or the card is cool without it.",
        todo: "Replace the fan, or the card.",
        others: &[(GPUD, "none"), (NVSENTINEL, "none")],
        sources: &[NVML],
    },
    Topic {
        code: "gpu.ecc_uncorrectable",
        title: "memory errors that the card could not correct",
        fault: &[Fault::Hardware],
        meaning: "The count of uncorrectable errors since the driver was loaded has risen. Only \
                  cards with ECC count; consumer cards have none.",
        severity: "Failing: what was decoded with it may be wrong.",
        opens: "With the count.",
        clears: "When the driver is loaded anew and the count is 0.",
        todo: "Reset the card. If it comes back, replace it.",
        others: &[
            (GPUD, "a metric, never unhealthy (#108)"),
            (EKS, "a condition"),
            (DCGM, "any since the driver was loaded: fail"),
            (NVSENTINEL, "reset the GPU"),
        ],
        sources: &[MEMORY, GPUD_SOURCE, DCGM_SOURCE],
    },
    Topic {
        code: "gpu.ecc_rate",
        title: "corrected memory errors come fast",
        fault: &[Fault::Hardware],
        meaning: "Each was corrected, and nothing was lost. Many in a short time are how bad memory \
                  begins.",
        severity: "Degraded.",
        opens: "When the count rises by more than the limit within the window.",
        clears: "When it no longer rises so fast.",
        todo: "Plan a reset, so that rows can be remapped; watch it.",
        others: &[
            (GPUD, "a metric"),
            (
                DCGM,
                "a limit of 10 is defined and not used; 17,700 a second counted as healthy (#313)",
            ),
        ],
        sources: &[MEMORY, DCGM_SOURCE],
    },
    Topic {
        code: "gpu.row_remap_failed",
        title: "bad memory could not be replaced by spare rows",
        fault: &[Fault::Hardware],
        meaning: "The card has run out of spare rows where it needs one. By NVIDIA's policy that is \
                  a reason to replace it. Only where the card has ECC: on others the call succeeds \
                  and says nothing.",
        severity: "Failing.",
        opens: "With the reading.",
        clears: "With another card.",
        todo: "Replace the card.",
        others: &[
            (GPUD, "replace, on cards whose product name it knows"),
            (EKS, "not watched (#245)"),
            (DCGM, "fail"),
            (NVSENTINEL, "contact support"),
        ],
        sources: &[MEMORY, GPUD_SOURCE, EKS_SOURCE, DCGM_SOURCE],
    },
    Topic {
        code: "gpu.row_remap_pending",
        title: "a memory row waits to be replaced by a spare one",
        fault: &[Fault::Hardware],
        meaning: "The card has marked a bad row and will remap it at the next reset. By NVIDIA's \
                  words work can go on until then.",
        severity: "Degraded: nothing is urgent.",
        opens: "With the reading.",
        clears: "When the reading says that nothing is pending.",
        todo: "Reset the card when it suits.",
        others: &[
            (GPUD, "reboot, on cards whose product name it knows"),
            (EKS, "not watched (#245)"),
            (DCGM, "512 uncorrectable ones warn"),
            (NVSENTINEL, "reset the GPU"),
        ],
        sources: &[RECOVERY, GPUD_SOURCE, EKS_SOURCE, DCGM_SOURCE],
    },
    Topic {
        code: "gpu.retired_pages",
        title: "memory pages were taken out of use",
        fault: &[Fault::Hardware],
        meaning: "Cards before Ampere retire whole pages of bad memory. A few are normal with age; \
                  a page that waits is taken out when the driver is loaded anew.",
        severity: "Degraded.",
        opens: "With pages that wait, or with many.",
        clears: "When none waits and the number is below the limit.",
        todo: "Reload the driver or restart. With 60 or more pages, replace the card.",
        others: &[
            (GPUD, "none"),
            (EKS, "an event"),
            (
                DCGM,
                "63 fail; over 15 by double-bit errors and more than one a week fail; pending warns",
            ),
            (NVSENTINEL, "as DCGM"),
        ],
        sources: &[RETIREMENT, DCGM_SOURCE],
    },
    Topic {
        code: "gpu.recovery_action",
        title: "the driver asks for a reset or a restart",
        fault: &[Fault::NotStated],
        meaning: "NVML's field 230, the same that Xid 154 announces, as a level: it tells also what \
                  happened before the agent was started.",
        severity: "As the action: reset, drain and reset, and reboot are failing; drain P2P is \
                   degraded.",
        opens: "With the reading.",
        clears: "When the reading says none.",
        todo: "What it says.",
        others: &[
            (GPUD, "Xid 154 without action"),
            (EKS, "Xid 154 warns"),
            (NVSENTINEL, "acts on Xid 154; does not know `PF FLR`"),
        ],
        sources: &[
            RECOVERY,
            "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/1151",
        ],
    },
    Topic {
        code: "gpu.pcie_degraded",
        title: "the card's link is narrower or slower than it was",
        fault: &[Fault::Link, Fault::Hardware],
        meaning: "Under load the link has fewer lanes or a lower generation than the best that this \
                  slot has shown with this card. Idle links drop on purpose, and are not judged.",
        severity: "Degraded.",
        opens: "When readings under load agree.",
        clears: "With a reading under load at the best, or with an accepted inventory.",
        todo: "Seat the card and its riser anew; clean the contacts; look for errors of the port.",
        others: &[
            (GPUD, "none"),
            (EKS, "none"),
            (DCGM, "only in the active diagnostics"),
            (NVSENTINEL, "asked for (#890)"),
        ],
        sources: &[NVML, NVSENTINEL_SOURCE],
    },
    Topic {
        code: "gpu.pcie_replays",
        title: "the card's link repeats many packets",
        fault: &[Fault::Link],
        meaning: "A packet that arrives broken is sent again; nothing is lost. Many a minute are a \
                  bad contact, riser or cable.",
        severity: "Degraded.",
        opens: "When the counter rises faster than the limit for the link's width and generation.",
        clears: "When it no longer does.",
        todo: "Seat the card and its riser anew.",
        others: &[
            (GPUD, "none"),
            (EKS, "an event"),
            (
                DCGM,
                "a minute's replays over lanes times 0.15 (Gen1) to 3.84 (Gen6)",
            ),
            (NVSENTINEL, "as DCGM, a warning"),
        ],
        sources: &[NVML, DCGM_SOURCE],
    },
    Topic {
        code: "gpu.clocks_stuck",
        title: "the card's clocks stay low under load",
        fault: &[Fault::Driver, Fault::Power, Fault::Hardware],
        meaning: "The card is busy, and its clocks stay far below what it can do, without a reason \
                  that NVML gives.",
        severity: "Degraded.",
        opens: "When readings under load agree.",
        clears: "When the clocks rise under load.",
        todo: "Reset the card; if that does not help, cut the power. Then look at its power cables.",
        others: &[
            (GPUD, "a metric"),
            (NVSENTINEL, "none"),
            ("GCM", "30 MHz off warns, 75 MHz is critical"),
        ],
        sources: &[
            EVENT_REASONS,
            "https://facebookresearch.github.io/gcm/docs/GCM_Health_Checks/",
        ],
    },
    Topic {
        code: "gpu.memory_stuck",
        title: "memory of the card is in use by no program",
        fault: &[Fault::Driver, Fault::Application],
        meaning: "No program uses the card, and more than a tenth of its memory is in use: what a \
                  program that died has left behind, or one in a container that NVML does not \
                  count.",
        severity: "Info.",
        opens: "After five minutes.",
        clears: "When the memory is free, or a program uses the card.",
        todo: "If new programs find too little memory, reset the card.",
        others: &[],
        sources: &[NVML],
    },
    Topic {
        code: "gpu.slow_answers",
        title: "the driver answers much slower than it used to",
        fault: &[Fault::Driver, Fault::Hardware],
        meaning: "A full answer of NVML takes a multiple of what it takes on this node otherwise. \
                  Each call to dead firmware waits for its deadline, so this comes before a hang.",
        severity: "Degraded.",
        opens: "When answers in a row are slow.",
        clears: "When they are as fast as before.",
        todo: "Look for Xids 119 and 120 and for processes in uninterruptible sleep; plan a restart.",
        others: &[
            (GPUD, "asks without a deadline"),
            (
                DCGM,
                "answers that take over 45 s counted as healthy (#313)",
            ),
        ],
        sources: &["https://github.com/NVIDIA/open-gpu-kernel-modules/issues/446"],
    },
];
