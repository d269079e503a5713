//! The Xid catalog: what NVIDIA's numbers mean for a machine that must carry cameras.

use std::fmt;

use super::finding::{Advice, Severity};

/// The page that the table follows ("Resolution Bucket (Immediate Action)", Ampere and newer).
pub const SOURCE: &str = "https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html";

/// What NVIDIA tells an operator to do at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing.
    Ignore,
    /// Follow the Xid that came before.
    FollowOther,
    /// Restart the program that hit it: the card is not to blame.
    RestartApp,
    /// Reset the GPU.
    ResetGpu,
    /// Restart the machine.
    Reboot,
    /// Check cables and seating.
    CheckMechanicals,
    /// An NVLink error whose text says how bad it is.
    Decode,
    /// The text names the action itself (Xid 154).
    FollowText,
    /// Ask the vendor: numbers that current cards should not send are here too.
    ContactSupport,
    /// NVIDIA lists the number and gives no action, or does not list it.
    Unstated,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Ignore => "ignore",
            Class::FollowOther => "follow the Xid that came before",
            Class::RestartApp => "restart the program",
            Class::ResetGpu => "reset the GPU",
            Class::Reboot => "restart the machine",
            Class::CheckMechanicals => "check cables and seating",
            Class::Decode => "depends on the NVLink error in the text",
            Class::FollowText => "named in the text",
            Class::ContactSupport => "contact support",
            Class::Unstated => "not stated",
        })
    }
}

/// One number of the catalog.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// The Xid; 0 in the row that stands for all unlisted ones.
    pub number: u32,
    /// NVIDIA's words.
    pub name: &'static str,
    /// NVIDIA's immediate action.
    pub class: Class,
    /// What it means for the cameras, where the text does not say otherwise.
    pub severity: Severity,
    /// What a person should do, where the text does not say otherwise.
    pub advice: Advice,
}

/// The row of a number; unlisted numbers share one that is degraded, for what nobody knows is not healthy.
#[must_use]
pub fn look_up(number: u32) -> &'static Row {
    CATALOG
        .binary_search_by_key(&number, |row| row.number)
        .map_or(&UNLISTED, |at| &CATALOG[at])
}

/// How bad one Xid is, given the line that reported it (empty where there is none, as in NVML's events).
#[must_use]
pub fn judge(number: u32, text: &str) -> (Severity, Advice) {
    let row = look_up(number);
    match row.class {
        Class::FollowText => recovery_action(text).unwrap_or((row.severity, row.advice)),
        Class::Decode if says_fatal(text) => (Severity::Failing, Advice::ResetGpu),
        Class::Decode
        | Class::Ignore
        | Class::FollowOther
        | Class::RestartApp
        | Class::ResetGpu
        | Class::Reboot
        | Class::CheckMechanicals
        | Class::ContactSupport
        | Class::Unstated => (row.severity, row.advice),
    }
}

/// Whether the fault stays until the card is reset or the machine restarted, however quiet the log goes.
/// All others are forgotten with time.
#[must_use]
pub fn persists(number: u32) -> bool {
    match look_up(number).class {
        // What is only degraded for fear of a worse Xid must not stick when that one never came.
        Class::ResetGpu => number != CONTEXT_SWITCH_TIMEOUT,
        // The later NVLink Xids (144-150) come with a 154 when a reset is due; 74 is older than 154.
        Class::Decode => number == NVLINK,
        Class::Reboot | Class::CheckMechanicals | Class::FollowText => true,
        Class::Ignore
        | Class::FollowOther
        | Class::RestartApp
        | Class::ContactSupport
        | Class::Unstated => false,
    }
}

const NVLINK: u32 = 74;
const CONTEXT_SWITCH_TIMEOUT: u32 = 109;

/// `GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)`: the words after the last "to"
/// go before the number, which drivers have used for different words.
fn recovery_action(text: &str) -> Option<(Severity, Advice)> {
    let (_, new) = text.rsplit_once(" to ")?;
    let new = new.to_ascii_lowercase();
    let (code, words) = new.split_once('(').unwrap_or((&new, ""));
    let has = |word| words.contains(word);
    Some(if has("none") {
        NOTHING
    } else if has("reboot") {
        REBOOT
    } else if has("p2p") {
        DRAIN_P2P
    } else if has("reset") || has("flr") {
        RESET
    } else {
        match code.trim() {
            "0x0" => NOTHING,
            "0x1" | "0x4" => RESET,
            "0x2" => REBOOT,
            "0x3" => DRAIN_P2P,
            _ => return None,
        }
    })
}

const NOTHING: (Severity, Advice) = (Severity::Info, Advice::None);
const RESET: (Severity, Advice) = (Severity::Failing, Advice::ResetGpu);
const REBOOT: (Severity, Advice) = (Severity::Failing, Advice::Reboot);
const DRAIN_P2P: (Severity, Advice) = (Severity::Degraded, Advice::ResetGpu);

/// `Fatal`, not `Nonfatal` or `Non-fatal`. The last one counts: before it stands the name of a program,
/// which anyone may choose.
fn says_fatal(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.rfind("fatal").is_some_and(|at| {
        !text[..at]
            .trim_end_matches(['-', ' ', '_'])
            .ends_with("non")
    })
}

static UNLISTED: Row = unstated(0, "not in NVIDIA's catalog");

const fn row(
    number: u32,
    name: &'static str,
    class: Class,
    severity: Severity,
    advice: Advice,
) -> Row {
    Row {
        number,
        name,
        class,
        severity,
        advice,
    }
}

const fn ignore(number: u32, name: &'static str) -> Row {
    row(number, name, Class::Ignore, Severity::Info, Advice::None)
}

const fn app(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::RestartApp,
        Severity::Info,
        Advice::RestartApp,
    )
}

const fn reset(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::ResetGpu,
        Severity::Failing,
        Advice::ResetGpu,
    )
}

const fn nvlink(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::Decode,
        Severity::Degraded,
        Advice::Inspect,
    )
}

const fn support(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::ContactSupport,
        Severity::Degraded,
        Advice::ContactSupport,
    )
}

const fn unused(number: u32) -> Row {
    support(number, "unused")
}

const fn unstated(number: u32, name: &'static str) -> Row {
    row(
        number,
        name,
        Class::Unstated,
        Severity::Degraded,
        Advice::Inspect,
    )
}

/// Sorted by number.
static CATALOG: [Row; 172] = [
    unused(1),
    unused(2),
    unused(3),
    unused(4),
    unused(5),
    unused(6),
    unused(7),
    app(8, "GPU stopped processing"),
    unused(9),
    unused(10),
    app(11, "invalid or corrupted push buffer stream"),
    unused(12),
    app(13, "graphics engine exception"),
    ignore(14, "unused"),
    unused(15),
    unused(16),
    unused(17),
    unused(18),
    unused(19),
    unused(20),
    unused(21),
    unused(22),
    unused(23),
    unused(24),
    app(25, "invalid or illegal push buffer stream"),
    unused(26),
    unused(27),
    unused(28),
    unused(29),
    unused(30),
    app(31, "GPU memory page fault"),
    app(32, "invalid or corrupted push buffer stream"),
    unused(33),
    unused(34),
    unused(35),
    unused(36),
    ignore(37, "driver firmware error"),
    ignore(38, "driver firmware error"),
    app(39, "copy engine exception"),
    app(40, "copy engine exception"),
    app(41, "copy engine exception"),
    unused(42),
    ignore(43, "GPU stopped processing"),
    ignore(44, "graphics engine fault during context switch"),
    row(
        45,
        "preemptive cleanup, due to previous errors",
        Class::FollowOther,
        Severity::Info,
        Advice::None,
    ),
    reset(46, "GPU stopped processing"),
    // 47, 65 and 73 are the encoders of cards before Ampere, whose catalog treats them as the decoders
    // are treated now; on newer cards NVIDIA calls them unused.
    app(47, "NVENC0 error"),
    reset(48, "double-bit ECC error"),
    unused(49),
    unused(50),
    unused(51),
    unused(52),
    unused(53),
    // Not an early warning: a card without its power plug runs clamped, if it runs.
    row(
        54,
        "auxiliary power is not connected to the GPU board",
        Class::CheckMechanicals,
        Severity::Failing,
        Advice::Inspect,
    ),
    unused(55),
    unused(56),
    unused(57),
    unused(58),
    unused(59),
    app(60, "video processor exception"),
    unused(61),
    reset(62, "internal micro-controller halt"),
    ignore(63, "GPU memory remapping event"),
    reset(64, "GPU memory remapping failure"),
    app(65, "NVENC1 error"),
    ignore(66, "illegal access by driver"),
    ignore(67, "illegal access by driver"),
    app(68, "NVDEC0 exception"),
    app(69, "graphics engine class error"),
    app(70, "copy engine 3 error"),
    app(71, "copy engine 4 error"),
    app(72, "copy engine 5 error"),
    app(73, "NVENC2 error"),
    nvlink(74, "NVLink error"),
    app(75, "copy engine 6 error"),
    app(76, "copy engine 7 error"),
    app(77, "copy engine 8 error"),
    support(78, "vGPU start error"),
    row(
        79,
        "GPU has fallen off the bus",
        Class::Reboot,
        Severity::Failing,
        Advice::Reboot,
    ),
    app(80, "corrupted data sent to GPU"),
    unused(81),
    app(82, "NVJPG0 error"),
    app(83, "NVDEC1 error"),
    app(84, "NVDEC2 error"),
    app(85, "copy engine 9 error"),
    app(86, "OFA exception"),
    unused(87),
    app(88, "NVDEC3 error"),
    app(89, "NVDEC4 error"),
    unused(90),
    unused(91),
    ignore(92, "high single-bit ECC error rate"),
    ignore(93, "non-fatal violation of provisioned InfoROM wear limit"),
    app(94, "contained memory error"),
    reset(95, "uncontained memory error"),
    app(96, "NVDEC5 error"),
    app(97, "NVDEC6 error"),
    app(98, "NVDEC7 error"),
    app(99, "NVJPG1 error"),
    app(100, "NVJPG2 error"),
    app(101, "NVJPG3 error"),
    app(102, "NVJPG4 error"),
    app(103, "NVJPG5 error"),
    app(104, "NVJPG6 error"),
    app(105, "NVJPG7 error"),
    ignore(106, "SMBPBI test message"),
    ignore(107, "SMBPBI test message silent"),
    ignore(108, "unused"),
    // NVIDIA says reset, its Kubernetes device plugin says application. A program alone can cause it, and
    // where a dead GSP does, a 119, 120 or 154 says so too.
    Row {
        severity: Severity::Degraded,
        ..reset(CONTEXT_SWITCH_TIMEOUT, "context switch timeout")
    },
    reset(110, "security fault error"),
    unused(111),
    unused(112),
    unused(113),
    unused(114),
    unused(115),
    unused(116),
    unused(117),
    unused(118),
    reset(119, "GSP RPC timeout"),
    reset(120, "GSP error"),
    ignore(121, "C2C error"),
    unused(122),
    unused(123),
    unused(124),
    unused(125),
    app(126, "copy engine 10 error"),
    app(127, "copy engine 11 error"),
    app(128, "copy engine 12 error"),
    app(129, "copy engine 13 error"),
    app(130, "copy engine 14 error"),
    app(131, "copy engine 15 error"),
    app(132, "copy engine 16 error"),
    app(133, "copy engine 17 error"),
    app(134, "copy engine 18 error"),
    app(135, "copy engine 19 error"),
    reset(136, "NVLink training failed"),
    ignore(137, "NVLink privilege error"),
    unused(138),
    app(139, "OFA1 error"),
    reset(140, "ECC unrecovered error"),
    ignore(141, "CUDA fast path error"),
    support(142, "NVENC3 error"),
    reset(143, "GPU initialization error"),
    nvlink(144, "NVLink SAW error"),
    nvlink(145, "NVLink RLW error"),
    nvlink(146, "NVLink TLW error"),
    nvlink(147, "NVLink TREX error"),
    nvlink(148, "NVLink NVLPW_CTRL error"),
    nvlink(149, "NVLink NETIR error"),
    nvlink(150, "NVLink MSE error"),
    // NVIDIA: restart the virtual machine. There is none here.
    support(151, "key rotation error"),
    ignore(152, "DLA SMMU error"),
    ignore(153, "DLA timeout error"),
    row(
        154,
        "GPU recovery action changed",
        Class::FollowText,
        Severity::Degraded,
        Advice::Inspect,
    ),
    reset(155, "NVLink software-defined error"),
    reset(156, "resource retirement event"),
    ignore(157, "resource retirement failure"),
    reset(158, "GPU fatal timeout"),
    support(159, "CHI non-data error"),
    ignore(160, "channel retirement event"),
    ignore(161, "channel retirement failure"),
    unstated(162, "power smoothing capability reengaged"),
    unstated(163, "power smoothing capability disengaged"),
    unstated(164, "power smoothing low lifetime reached"),
    unstated(165, "power smoothing lifetime exhausted"),
    unstated(
        166,
        "traffic seen before the link was set up for encryption",
    ),
    unstated(167, "PCIe fatal timeout"),
    unstated(168, "reduced GPU memory capacity"),
    unstated(169, "internal micro-controller halt"),
    unstated(170, "interrupt seen in confidential-computing mode"),
    // Details of a 48, which is judged by itself.
    unstated(171, "uncorrectable DRAM error"),
    unstated(172, "uncorrectable SRAM error"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_unique() {
        assert!(CATALOG.is_sorted_by(|a, b| a.number < b.number));
    }

    #[test]
    fn each_number_is_judged_by_nvidias_action() {
        use Advice::{ContactSupport, Inspect, None, Reboot, ResetGpu, RestartApp};
        use Severity::{Degraded, Failing, Info};
        let app = [
            13, 31, 32, 47, 60, 65, 68, 69, 73, 82, 83, 84, 86, 88, 89, 94, 96, 97, 98, 99, 100,
            101, 102, 103, 104, 105, 126, 127, 128, 129, 130, 131, 132, 133, 134, 135, 139,
        ];
        let ignored = [
            14, 37, 38, 43, 44, 45, 63, 66, 67, 92, 93, 121, 137, 141, 157, 160, 161,
        ];
        let reset = [
            46, 48, 62, 64, 95, 110, 119, 120, 136, 140, 143, 155, 156, 158,
        ];
        let unused = [56, 57, 58, 61, 81, 122, 123, 124, 125, 142, 151];
        let silent = [
            162, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 999,
        ];
        for (numbers, expected, stays) in [
            (&app[..], (Info, RestartApp), false),
            (&ignored[..], (Info, None), false),
            (&reset[..], (Failing, ResetGpu), true),
            (&[79][..], (Failing, Reboot), true),
            (&[54][..], (Failing, Inspect), true),
            (&[109][..], (Degraded, ResetGpu), false),
            (&unused[..], (Degraded, ContactSupport), false),
            (&silent[..], (Degraded, Inspect), false),
        ] {
            for &number in numbers {
                assert_eq!(judge(number, ""), expected, "Xid {number}");
                assert_eq!(persists(number), stays, "Xid {number} persists");
            }
        }
    }

    #[test]
    fn the_text_decides_where_nvidia_says_so() {
        use Advice::{Inspect, None, Reboot, ResetGpu};
        use Severity::{Degraded, Failing, Info};
        let changed = "NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from";
        for (number, text, expected) in [
            (154, "0x1 (GPU Reset Required) to 0x0 (None)", (Info, None)),
            (
                154,
                "0x0 (None) to 0x1 (GPU Reset Required)",
                (Failing, ResetGpu),
            ),
            (154, "0x0 (None) to 0x1 (PF FLR)", (Failing, ResetGpu)),
            (
                154,
                "0x0 (None) to 0x2 (Node Reboot Required)",
                (Failing, Reboot),
            ),
            (154, "0x0 (None) to 0x3 (Drain P2P)", (Degraded, ResetGpu)),
            (
                154,
                "0x0 (None) to 0x4 (Drain and Reset)",
                (Failing, ResetGpu),
            ),
            (154, "0x0 to 0x2", (Failing, Reboot)),
            (
                154,
                "0x0 (None) to 0x9 (Something New)",
                (Degraded, Inspect),
            ),
            (
                74,
                "NVLink: fatal error detected on link 14(0x0)",
                (Failing, ResetGpu),
            ),
            (74, "NVLink: link 3 (0x0)", (Degraded, Inspect)),
            (
                149,
                "NETIR_LINK_EVT  Fatal   XC0 i0 Link 09",
                (Failing, ResetGpu),
            ),
            (
                145,
                "RLW_SRC_TRACK Nonfatal XC1 i0 Link 12",
                (Degraded, Inspect),
            ),
            (
                145,
                "RLW_SRC_TRACK Non-fatal XC1 i0 Link 12",
                (Degraded, Inspect),
            ),
            (
                145,
                "pid=7, name=Fatal, RLW Nonfatal XC1",
                (Degraded, Inspect),
            ),
            (13, "pid=7, name=Fatal, Fatal", (Info, Advice::RestartApp)),
        ] {
            let line = format!("{changed} {text}");
            assert_eq!(judge(number, &line), expected, "{number} {text}");
        }
        assert_eq!(judge(154, ""), (Degraded, Inspect));
    }
}
