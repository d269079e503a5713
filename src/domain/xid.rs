//! The Xid catalog: what NVIDIA's numbers mean for a machine that must carry cameras.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::finding::{Advice, Severity};

mod catalog;
mod combine;
mod others;

pub use combine::{Seen, combine};
pub use others::{NOT_STATED, Others, READ as OTHERS_READ, SOURCES as OTHERS_SOURCES, others};

use catalog::{CATALOG, UNLISTED};

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

/// Who is to blame, as far as a number alone can tell: the likeliest of the causes that NVIDIA's action points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nobody: nothing is broken, or another Xid tells.
    None,
    /// The program that used the card.
    Application,
    /// NVIDIA's driver, or the firmware that it loads.
    Driver,
    /// The card.
    Hardware,
    /// What feeds the card.
    Power,
    /// What connects the card: slot, riser, NVLink, chip to chip.
    Link,
    /// What surrounds the server: heat, dust, mains.
    Environment,
    /// NVIDIA's catalog does not tell.
    NotStated,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::None => "nobody",
            Fault::Application => "the program",
            Fault::Driver => "the driver",
            Fault::Hardware => "the hardware",
            Fault::Power => "the power supply",
            Fault::Link => "the link",
            Fault::Environment => "the surroundings",
            Fault::NotStated => "not stated",
        })
    }
}

/// What it changes that a number comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Repeats {
    /// Nothing.
    Nothing,
    /// [`PROGRAMS`] different processes on one card within [`PROGRAMS_WITHIN`] put the blame on the card:
    /// [`REPEATED`]. One process as often as it likes puts it on the program.
    DifferentProcesses,
}

/// From so many different processes on the same fault is no longer theirs.
pub const PROGRAMS: usize = 3;

/// The time within which they have to hit it, on one card.
pub const PROGRAMS_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);

/// What a fault of programs is judged as once the card is to blame.
pub const REPEATED: (Severity, Advice) = (Severity::Degraded, Advice::Inspect);

/// One number of the catalog.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// The Xid; 0 in the row that stands for all unlisted ones.
    pub number: u32,
    /// NVIDIA's words.
    pub name: &'static str,
    /// NVIDIA's immediate action.
    pub class: Class,
    /// Who is to blame.
    pub fault: Fault,
    /// What it means for the cameras, where the text does not say otherwise.
    pub severity: Severity,
    /// What a person should do, where the text does not say otherwise.
    pub advice: Advice,
    /// What repetition changes.
    pub repeats: Repeats,
}

/// The row of a number; unlisted numbers share one that is degraded, for what nobody knows is not healthy.
#[must_use]
pub fn look_up(number: u32) -> &'static Row {
    CATALOG
        .binary_search_by_key(&number, |row| row.number)
        .map_or(&UNLISTED, |at| &CATALOG[at])
}

/// Every number that NVIDIA documents, in order.
pub fn documented() -> impl Iterator<Item = &'static Row> {
    CATALOG.iter()
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
        let code = u32::from_str_radix(code.trim().strip_prefix("0x")?, 16).ok()?;
        return ACTIONS.get(code as usize).map(|(_, action)| *action);
    })
}

/// `nvmlDeviceGpuRecoveryAction_t` (nvml.h), the value of field 230, in order.
static ACTIONS: [(&str, (Severity, Advice)); 5] = [
    ("nothing", NOTHING),
    ("a reset of the GPU", RESET),
    ("a reboot", REBOOT),
    ("that peers let go of it", DRAIN_P2P),
    ("a reset of the GPU after its work has left", RESET),
];

/// What the driver wants by NVML's field 230, in words, and what that means; an action that a newer driver may know
/// counts as trouble.
#[must_use]
pub fn recovery(action: u32) -> (&'static str, Severity, Advice) {
    let known = ACTIONS.get(action as usize);
    let (words, (severity, advice)) = known.copied().unwrap_or((
        "an action that is new to this version",
        (Severity::Degraded, Advice::Inspect),
    ));
    (words, severity, advice)
}

const NOTHING: (Severity, Advice) = (Severity::Info, Advice::None);
const RESET: (Severity, Advice) = (Severity::Failing, Advice::ResetGpu);
const REBOOT: (Severity, Advice) = (Severity::Failing, Advice::Reboot);
const DRAIN_P2P: (Severity, Advice) = (Severity::Degraded, Advice::ResetGpu);

/// `Fatal`, not `Nonfatal` or `Non-fatal`. The last one counts: before it stands the name of a program,
/// which anyone may choose.
pub(super) fn says_fatal(text: &str) -> bool {
    // Most lines say neither.
    if !text.contains("atal") && !text.contains("ATAL") {
        return false;
    }
    let text = text.to_ascii_lowercase();
    text.rfind("fatal").is_some_and(|at| {
        !text[..at]
            .trim_end_matches(['-', ' ', '_'])
            .ends_with("non")
    })
}

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
