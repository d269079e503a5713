//! What other detectors make of an Xid, as far as their code or documents tell.

use serde::Serialize;

use super::{Class, look_up};

/// Where it was read, on [`READ`].
pub const SOURCES: [&str; 4] = [
    "https://github.com/leptonai/gpud/tree/4a8de33/components/accelerator/nvidia/xid",
    "https://github.com/aws/eks-node-monitoring-agent/tree/51af549/monitors/nvidia",
    "https://github.com/NVIDIA/DCGM/blob/72fa3fe/modules/health/DcgmHealthWatch.cpp",
    "https://github.com/rupalis-nv/NVSentinel/tree/0f60731/health-monitors/syslog-health-monitor",
];

/// The day on which their code was read.
pub const READ: &str = "2026-11-22";

/// What four detectors do about one number; [`NOT_STATED`] where it could not be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Others {
    /// leptonai/gpud.
    pub gpud: &'static str,
    /// The EKS node monitoring agent.
    pub eks: &'static str,
    /// The health watches of NVIDIA's DCGM.
    pub dcgm: &'static str,
    /// NVSentinel, which maps NVIDIA's own column.
    pub nvsentinel: &'static str,
}

/// Nobody could find out.
pub const NOT_STATED: &str = "not stated";

/// What the other detectors do about a number.
#[must_use]
pub fn others(number: u32) -> Others {
    Others {
        gpud: gpud(number),
        eks: if EKS_FATAL.contains(&number) {
            "fatal"
        } else {
            "warning"
        },
        dcgm: dcgm(number),
        nvsentinel: nvsentinel(number),
    }
}

fn gpud(number: u32) -> &'static str {
    match number {
        46 | 110 | 119 | 120 => "reboot",
        48 | 62 | 64 | 79 => "reboot, then inspect the hardware",
        32 | 60 | 63 | 65 | 68 => "fatal: reboot",
        38 | 61 | 69 | 74 | 95 | 121 | 140 => "fatal",
        94 => "fatal, but escalates only after 1000",
        143 => "inspect the hardware",
        144..=150 => "warning, fatal by sub-code",
        154 => "no action",
        13
        | 31
        | 43
        | 45
        | 54
        | 82..=84
        | 86
        | 88
        | 89
        | 96..=105
        | 109
        | 122..=125
        | 136
        | 137 => "warning",
        139 | 141 | 142 | 151 | 155..=158 | 160..=170 => "warning",
        92 => "none",
        133 | 174.. => "not seen",
        0..=173 => NOT_STATED,
    }
}

/// The agent's list of well-known Xids; it warns of all others.
const EKS_FATAL: [u32; 21] = [
    46, 48, 54, 62, 63, 64, 74, 79, 95, 109, 110, 119, 120, 136, 140, 142, 143, 151, 155, 156, 158,
];

/// Its warnings go on after these.
fn dcgm(number: u32) -> &'static str {
    match number {
        48 | 64 | 74 | 79 | 95 | 119 | 120 | 140 => "fail",
        31 | 32 | 38 | 43 | 54 | 56..=58 | 61..=63 | 94 => "warning",
        0.. => NOT_STATED,
    }
}

fn nvsentinel(number: u32) -> &'static str {
    match look_up(number).class {
        Class::Ignore | Class::RestartApp => "none",
        Class::ResetGpu => "reset the GPU",
        Class::Reboot => "restart the machine",
        Class::FollowText => "as the text says",
        // Whatever it does not map, NVIDIA's workflows among it, goes to support.
        Class::FollowOther
        | Class::CheckMechanicals
        | Class::Decode
        | Class::ContactSupport
        | Class::Unstated => "contact support",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_disagree_where_it_is_known_that_they_do() {
        for (number, gpud, eks, dcgm, nvsentinel) in [
            (13, "warning", "warning", NOT_STATED, "none"),
            (63, "fatal: reboot", "fatal", "warning", "none"),
            (68, "fatal: reboot", "warning", NOT_STATED, "none"),
            (
                79,
                "reboot, then inspect the hardware",
                "fatal",
                "fail",
                "restart the machine",
            ),
            (109, "warning", "fatal", NOT_STATED, "reset the GPU"),
            (133, "not seen", "warning", NOT_STATED, "none"),
            (154, "no action", "warning", NOT_STATED, "as the text says"),
            (200, "not seen", "warning", NOT_STATED, "contact support"),
        ] {
            let expected = Others {
                gpud,
                eks,
                dcgm,
                nvsentinel,
            };
            assert_eq!(others(number), expected, "Xid {number}");
        }
    }
}
