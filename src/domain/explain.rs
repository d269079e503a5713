//! What a finding code means, who is to blame, what sideline does about it, what a person should do, by which source.

use serde::{Serialize, Serializer};

use super::finding::{Advice, Code, Severity};
use super::xid::{self, Class, Fault, NOT_STATED, Repeats};
use crate::config::codes::{self, CODES};
use crate::config::problem::nearest;

mod camera;
mod gpu;
mod host;

/// All there is to say of one code.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The code; `gpu.xid` for the family.
    pub code: String,
    /// What it is, in half a line.
    pub title: String,
    /// Whether this version raises it; a fleet's configuration may name it before.
    pub raised: bool,
    /// Who may be to blame, the likeliest first.
    pub fault: Vec<Fault>,
    /// What it means.
    pub meaning: String,
    /// How bad it is here, and why.
    pub severity: String,
    /// When it opens.
    pub opens: String,
    /// What closes it: the proof that is asked for.
    pub clears: String,
    /// What a person should do.
    pub todo: String,
    /// What others do in the same case: who, and what.
    #[serde(serialize_with = "as_map")]
    pub others: Vec<(&'static str, String)>,
    /// Where it is written.
    pub sources: Vec<String>,
}

fn as_map<S: Serializer>(
    others: &[(&'static str, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(others.iter().map(|(who, what)| (who, what)))
}

/// A code that nobody knows, and the known one that is written most like it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown finding code \"{code}\"; {}", self.hint())]
pub struct Unknown {
    code: String,
    nearest: Option<&'static str>,
}

impl Unknown {
    fn hint(&self) -> String {
        match self.nearest {
            Some(code) => format!("did you mean \"{code}\"?"),
            None => "`sideline explain` lists all".to_owned(),
        }
    }
}

/// The name of the family of driver errors.
pub const FAMILY: &str = "gpu.xid";

/// The longest code worth quoting.
const QUOTED: usize = 60;

/// The explanation of a code, of one Xid (`gpu.xid.79`) or of the family (`gpu.xid`).
///
/// # Errors
/// A code that does not exist.
pub fn explain(code: &str) -> Result<Explanation, Unknown> {
    if [FAMILY, "gpu.xid.", "gpu.xid.*"].contains(&code) {
        return Ok(family());
    }
    let number = code
        .strip_prefix(codes::XID)
        .filter(|_| codes::known(code))
        .and_then(|number| number.parse().ok());
    if let Some(number) = number {
        return Ok(one_xid(number));
    }
    topics()
        .find(|topic| topic.code == code)
        .map(Topic::explanation)
        .ok_or_else(|| Unknown {
            code: code.chars().take(QUOTED).collect::<String>(),
            nearest: if code.starts_with(codes::XID) {
                Some(FAMILY)
            } else {
                nearest(code, CODES.into_iter().chain([FAMILY]))
            },
        })
}

/// Every code and what it is, in the order of the configuration, the family first.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    let title = |code| {
        topics()
            .find(|topic| topic.code == code)
            .map_or("", |topic| topic.title)
    };
    let rest = CODES.into_iter().map(move |code| (code, title(code)));
    [("gpu.xid.<N>", "the driver reported Xid N")]
        .into_iter()
        .chain(rest)
}

/// A code that stands for itself, with what is written about it.
struct Topic {
    code: &'static str,
    title: &'static str,
    fault: &'static [Fault],
    meaning: &'static str,
    severity: &'static str,
    opens: &'static str,
    clears: &'static str,
    todo: &'static str,
    others: &'static [(&'static str, &'static str)],
    sources: &'static [&'static str],
}

fn topics() -> impl Iterator<Item = &'static Topic> {
    gpu::TOPICS
        .iter()
        .chain(&host::TOPICS)
        .chain(&camera::TOPICS)
}

impl Topic {
    fn explanation(&self) -> Explanation {
        let others = self.others.iter();
        Explanation {
            code: self.code.to_owned(),
            title: self.title.to_owned(),
            raised: Code::PLAIN.iter().any(|code| code.to_string() == self.code),
            fault: self.fault.to_vec(),
            meaning: self.meaning.to_owned(),
            severity: self.severity.to_owned(),
            opens: self.opens.to_owned(),
            clears: self.clears.to_owned(),
            todo: self.todo.to_owned(),
            others: others
                .map(|(who, what)| (*who, (*what).to_owned()))
                .collect(),
            sources: self.sources.iter().map(|at| (*at).to_owned()).collect(),
        }
    }
}

const GPUD: &str = "gpud";
const EKS: &str = "EKS node monitoring agent";
const DCGM: &str = "DCGM health";
const NVSENTINEL: &str = "NVSentinel";

fn family() -> Explanation {
    Explanation {
        code: FAMILY.to_owned(),
        title: "the driver reported an error by number".to_owned(),
        raised: true,
        fault: Vec::new(),
        meaning: "An Xid is a line of NVIDIA's driver in the kernel's log: a number, the card, \
                  often the process, and a text. The number says what kind of error it was. Most \
                  of them are faults of programs, some are repairs that worked, a few are dead \
                  cards. `sideline explain gpu.xid.79` explains one."
            .to_owned(),
        severity:
            "By NVIDIA's catalog: where it says reset or restart the machine, failing; where \
                   it says restart the application or ignore, info; where it says nothing or the \
                   number is unknown, degraded. Xid 154 and NVLink errors are judged by their text."
                .to_owned(),
        opens: "With the kernel's line or NVML's event, whichever comes first; both count as one."
            .to_owned(),
        clears: format!(
            "What needs a reset stays until the driver is loaded again, the machine has restarted \
             or the card has come back; all else is forgotten after judge.forget_after without \
             another one. A fault of programs becomes degraded, inspect, when {} different \
             processes hit it on one card within {} hours.",
            xid::PROGRAMS,
            xid::PROGRAMS_WITHIN.as_secs() / 3600
        ),
        todo: "See the explanation of the number.".to_owned(),
        others: vec![
            (
                GPUD,
                "every number that its own table knows; 133 and all above 173 are dropped"
                    .to_owned(),
            ),
            (EKS, "21 numbers are fatal, all others warn".to_owned()),
            (
                DCGM,
                "48 64 74 79 95 119 120 140 fail, others warn or are not watched".to_owned(),
            ),
            (
                NVSENTINEL,
                "NVIDIA's column; what it does not map goes to support".to_owned(),
            ),
        ],
        sources: sources(),
    }
}

fn sources() -> Vec<String> {
    [xid::SOURCE]
        .into_iter()
        .chain(xid::OTHERS_SOURCES)
        .map(str::to_owned)
        .collect()
}

fn one_xid(number: u32) -> Explanation {
    let row = xid::look_up(number);
    let others = xid::others(number);
    let stays = xid::persists(number);
    let mut severity = format!("{}.", severity_word(row.severity));
    severity.push_str(match row.class {
        Class::FollowText => {
            " The action that the text names decides: none is info, drain P2P degraded, reset or \
             reboot failing."
        }
        Class::Decode => " Failing where the text says fatal.",
        Class::Ignore
        | Class::FollowOther
        | Class::RestartApp
        | Class::ResetGpu
        | Class::Reboot
        | Class::CheckMechanicals
        | Class::ContactSupport
        | Class::Unstated => "",
    });
    severity.push_str(match row.repeats {
        Repeats::DifferentProcesses => {
            " From 3 different processes on one card within 24 hours: degraded, inspect. One \
             process as often as it likes changes nothing, but each start of a program is another \
             process."
        }
        Repeats::Nothing => "",
    });
    severity.push_str(note(number));
    Explanation {
        code: format!("{}{number}", codes::XID),
        title: row.name.to_owned(),
        raised: true,
        fault: vec![row.fault],
        meaning: format!(
            "The driver reported Xid {number}: {}. NVIDIA's immediate action: {}.",
            row.name, row.class
        ),
        severity,
        opens: "With the kernel's line or NVML's event, at once.".to_owned(),
        clears: if stays {
            "When the driver is loaded again, the machine has restarted, or the card was gone and \
             answers again. Silence is no proof."
        } else {
            "After judge.forget_after (10 minutes) without another one."
        }
        .to_owned(),
        todo: match row.class {
            Class::FollowText => {
                "What the text says: nothing, a reset of the card, or a restart of the machine."
            }
            Class::Decode
            | Class::Ignore
            | Class::FollowOther
            | Class::RestartApp
            | Class::ResetGpu
            | Class::Reboot
            | Class::CheckMechanicals
            | Class::ContactSupport
            | Class::Unstated => advice(row.advice),
        }
        .to_owned(),
        others: [
            (GPUD, others.gpud),
            (EKS, others.eks),
            (DCGM, others.dcgm),
            (NVSENTINEL, others.nvsentinel),
        ]
        .map(|(who, what)| (who, what.to_owned()))
        .to_vec(),
        sources: sources(),
    }
}

/// What is to say of a number beyond its class.
fn note(number: u32) -> &'static str {
    match number {
        31 => " A bad driver can cause storms of it on many machines at once.",
        45 => " The program was stopped for an error that came before: look for that one.",
        48 => {
            " With a 63 within 10 minutes the repair is recorded and a reset makes it; with a 64 \
             the repair failed: replace the card. 171 and 172 only say where the error was."
        }
        54 => " A card without its power plug runs clamped, if it runs.",
        63 => " A repair that worked. With a 48, reset the card soon, so that it takes effect.",
        64 => " With a 48 within 10 minutes: replace the card.",
        79 => {
            " On consumer cards it comes idle and without warning. Near an unclean restart, or at \
             each heavy load, suspect the power supply and its cables."
        }
        94 => " The error hit one program, which the driver ended; the card goes on.",
        95 => " The error may have hit any program on the card.",
        109 => {
            " Not failing, although NVIDIA says reset: a program alone can cause it, and where the \
             card's firmware is dead, a 119, 120 or 154 says so too."
        }
        119 | 120 => {
            " The process in the line is whoever was asking, often nvidia-smi. The driver prints \
             one line of thirty, so counts are too low. If it comes back after a reset, cut the \
             power."
        }
        171 | 172 => " With a 48 within a minute it is a detail of that: info.",
        0.. => "",
    }
}

fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "Info",
        Severity::Degraded => "Degraded",
        Severity::Failing => "Failing",
    }
}

fn advice(advice: Advice) -> &'static str {
    match advice {
        Advice::None => "Nothing.",
        Advice::RestartApp => "Restart the program, if it has not restarted by itself.",
        Advice::RestartTask => "Recreate the container task.",
        Advice::ResetGpu => {
            "Stop what uses the card and reset it: `nvidia-smi --gpu-reset -i N`. If that fails or \
             it comes back, restart the machine."
        }
        Advice::Reboot => {
            "Restart the machine. If the card is still gone, cut the power for a minute; then \
             check slot, riser and power cables; then replace the card."
        }
        Advice::PowerCycle => "Cut the power for a minute and give it back.",
        Advice::Inspect => "Look at the machine: cables, slots, power, fans.",
        Advice::Replace => "Replace the part.",
        Advice::ContactSupport => {
            "Ask NVIDIA or the vendor, with the output of nvidia-bug-report.sh."
        }
    }
}

impl Explanation {
    /// What others do, without those of whom nobody could find it out.
    pub fn known_others(&self) -> impl Iterator<Item = &(&'static str, String)> {
        self.others.iter().filter(|(_, what)| what != NOT_STATED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_once() {
        let explained: Vec<_> = topics().map(|topic| topic.code).collect();
        for code in CODES {
            let times = explained.iter().filter(|known| **known == code).count();
            assert_eq!(times, 1, "{code}");
        }
        assert_eq!(explained.len(), CODES.len());
        for topic in topics() {
            assert!(!topic.sources.is_empty(), "{} has no source", topic.code);
            assert!(!topic.fault.is_empty(), "{} blames nobody", topic.code);
        }
    }

    #[test]
    fn unknown_codes_name_the_nearest() {
        for (code, expected) in [
            (
                "gpu.los",
                r#"unknown finding code "gpu.los"; did you mean "gpu.lost"?"#,
            ),
            (
                "gpu.xid.x",
                r#"unknown finding code "gpu.xid.x"; did you mean "gpu.xid"?"#,
            ),
            (
                "host.oom_",
                r#"unknown finding code "host.oom_"; did you mean "host.oom"?"#,
            ),
            (
                "79",
                r#"unknown finding code "79"; `sideline explain` lists all"#,
            ),
        ] {
            let said = explain(code).map_err(|unknown| unknown.to_string());
            assert_eq!(said, Err(expected.to_owned()));
        }
    }

    #[test]
    fn an_xid_is_explained_as_it_is_judged() {
        for (number, severity, fault) in [
            (13, "Info", Fault::Application),
            (54, "Failing", Fault::Power),
            (63, "Info", Fault::Hardware),
            (74, "Degraded", Fault::Link),
            (79, "Failing", Fault::Hardware),
            (4711, "Degraded", Fault::NotStated),
        ] {
            let told = explain(&format!("gpu.xid.{number}")).unwrap();
            assert!(
                told.severity.starts_with(severity),
                "{number}: {}",
                told.severity
            );
            assert_eq!(told.fault, [fault], "{number}");
        }
    }

    #[test]
    fn the_notes_state_the_rules_figures() {
        assert_eq!(
            (xid::PROGRAMS, xid::PROGRAMS_WITHIN.as_secs()),
            (3, 24 * 3600)
        );
    }
}
