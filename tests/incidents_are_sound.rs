//! The incidents of `tests/incidents` hold together, and `docs/detectors.md` says what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use sideline::config::codes;
use sideline::domain::finding::{Advice, Severity};
use sideline::domain::xid;

mod incidents;

use incidents::{Incident, State};

const GROUPS: [&str; 9] = [
    "application",
    "cameras",
    "hardware",
    "host",
    "mixed",
    "power",
    "recovery",
    "storage",
    "storms",
];

const ADVICE: [&str; 8] = [
    "restart_app",
    "restart_task",
    "reset_gpu",
    "reboot",
    "power_cycle",
    "inspect",
    "replace",
    "contact_support",
];

#[test]
fn every_incident_is_sound() {
    let all = incidents::all().unwrap();
    assert!(all.len() >= 60, "{} incidents", all.len());
    let groups: BTreeSet<&str> = all.iter().map(Incident::group).collect();
    assert_eq!(groups, BTreeSet::from(GROUPS));
    let titles: BTreeSet<&str> = all.iter().map(|one| one.title.as_str()).collect();
    assert_eq!(titles.len(), all.len(), "two incidents have one title");
    let wrong: Vec<String> = all
        .iter()
        .flat_map(|one| {
            let name = &one.name;
            faults(one)
                .into_iter()
                .map(move |fault| format!("{name}: {fault}"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_recordings_have_every_form() {
    let mut forms: BTreeMap<&str, usize> = BTreeMap::new();
    for one in incidents::all().unwrap() {
        let recording = one.recording().unwrap();
        *forms.entry(form(&recording)).or_default() += 1;
    }
    for wanted in [
        "dmesg",
        "dmesg -T",
        "dmesg -x",
        "json",
        "kmsg",
        "short",
        "short-iso",
    ] {
        let times = forms.get(wanted).copied().unwrap_or_default();
        assert!(times >= 2, "{wanted} is used {times} times: {forms:?}");
    }
    assert!(!forms.contains_key("?"), "{forms:?}");
}

#[test]
fn the_documents_tables_are_those_of_the_incidents() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/detectors.md");
    let before = fs::read_to_string(&path).unwrap();
    let all = incidents::all().unwrap();
    let mut after = before.clone();
    for (name, table) in [
        ("summary", summary(&all)),
        ("incidents", table(&all)),
        ("xids", xids()),
    ] {
        after = with_table(&after, name, &table);
    }
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &after).unwrap();
        return;
    }
    assert!(
        before == after,
        "docs/detectors.md is out of date: UPDATE=1 cargo test --test incidents_are_sound"
    );
}

/// What is wrong with one incident.
fn faults(one: &Incident) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |right: bool, fault: &str| {
        if !right {
            wrong.push(fault.to_owned());
        }
    };
    let expect = &one.expect;
    let texts = [&one.title, &one.story, &one.source];
    check(
        texts.iter().all(|text| !text.trim().is_empty()),
        "an empty text",
    );
    check(
        !one.title.ends_with('.'),
        "title must not end in a full stop",
    );
    check(
        expect.worst >= expect.last,
        "final must not be worse than worst",
    );
    check(
        expect.drains == (expect.worst == State::Failing),
        "drains must be true if and only if worst is failing",
    );
    let is_trouble = expect.worst != State::Healthy;
    check(
        is_trouble != expect.reasons.is_empty(),
        "reasons must be named for trouble, and only then",
    );
    check(
        is_trouble == expect.at.is_some(),
        "at must be set for trouble, and only then",
    );
    check(
        expect.within.is_some() == expect.at.is_some(),
        "within belongs to at",
    );
    check(
        is_trouble || !expect.never.is_empty(),
        "never must say what nothing is made of",
    );
    check(
        is_trouble || expect.advice.is_empty(),
        "advice without trouble",
    );
    let codes = expect
        .reasons
        .iter()
        .chain(expect.advice.keys())
        .chain(&expect.never);
    for code in codes {
        check(codes::known(code), &format!("unknown code {code}"));
    }
    let reasons = expect.reasons.iter().chain(expect.advice.keys());
    check(
        reasons.clone().all(|code| !code.ends_with('*')),
        "reasons are whole codes",
    );
    check(
        reasons.clone().all(|code| !expect.never.contains(code)),
        "a reason can't be among never",
    );
    for advice in expect.advice.values() {
        check(
            ADVICE.contains(&advice.as_str()),
            &format!("unknown advice {advice}"),
        );
    }
    if let Some(within) = &expect.within {
        check(
            humantime::parse_duration(within).is_ok(),
            "within must be a duration",
        );
    }
    match one.stamps() {
        Err(why) => check(false, &why),
        Ok(stamps) => {
            check(!stamps.is_empty(), "no line tells its time");
            let in_order = stamps.windows(2).all(|two| !two[0].is_after(two[1]));
            check(in_order, "the lines are not in the order of their times");
            check(
                expect.at.is_none_or(|at| stamps.contains(&at)),
                "no line was printed at `at`",
            );
            if let (Some(at), Some(recovers), Some(last)) =
                (expect.at, expect.recovers, stamps.last())
            {
                check(recovers.is_after(at), "recovers must be after at");
                check(
                    !recovers.is_after(*last),
                    "the log must go on until it has recovered",
                );
            }
            let recovered = expect.worst > expect.last && expect.last == State::Healthy;
            check(
                recovered == expect.recovers.is_some(),
                "recovers must be set where it does",
            );
        }
    }
    wrong
}

/// The program that recorded it, by the first line that is not empty.
fn form(recording: &str) -> &'static str {
    let line = recording
        .lines()
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let digit = |at: usize| line.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    match line.as_bytes().first() {
        Some(b'{') => "json",
        Some(b'[')
            if line[1..]
                .trim_start()
                .starts_with(|c: char| c.is_ascii_digit()) =>
        {
            "dmesg"
        }
        Some(b'[') => "dmesg -T",
        Some(b'k') => "dmesg -x",
        Some(b'A'..=b'Z') => "short",
        Some(_) if digit(0) && line.contains(",-;") => "kmsg",
        Some(_) if digit(0) => "short-iso",
        Some(_) | None => "?",
    }
}

/// A document with what is between two marks replaced.
fn with_table(document: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = document
        .split_once(&begin)
        .expect("the mark where it begins");
    let (_, after) = rest.split_once(&end).expect("the mark where it ends");
    format!("{before}{begin}{table}{end}{after}")
}

/// How somebody's word for an incident counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Unhealthy, fatal, fail, or a repair that takes the work away.
    Fatal,
    /// A warning, an event, or nothing.
    Goes,
    NotSeen,
    /// Nothing is published, or not how bad it is held to be.
    NotStated,
}

fn word(said: &str) -> Word {
    const FATAL: [&str; 5] = ["fatal", "fail", "reboot", "reset", "restart the machine"];
    let starts = |words: &str| said.starts_with(words);
    if FATAL.into_iter().any(starts) || starts("inspect the hardware") {
        Word::Fatal
    } else if starts("not seen") {
        Word::NotSeen
    } else if ["not stated", "seen", "contact support", "as the text"]
        .into_iter()
        .any(starts)
    {
        Word::NotStated
    } else {
        Word::Goes
    }
}

/// Only where the GPU's driver speaks: of the server itself most don't say how bad they hold a thing to be.
fn summary(all: &[Incident]) -> String {
    let of_gpus = |one: &&Incident| one.recording().is_ok_and(|text| text.contains("NVRM: "));
    let (dead, alive): (Vec<_>, Vec<_>) = all
        .iter()
        .filter(of_gpus)
        .partition(|one| one.expect.drains);
    let mut text = String::from(
        "| | sideline | gpud | EKS agent | DCGM health | NVSentinel |\n|---|---|---|---|---|---|\n",
    );
    let mut row = |name: String, ours: usize, of: &[&Incident], wanted: Word| {
        let _ = write!(text, "| {name} | {ours}");
        for who in 0..4 {
            let times = of.iter().filter(|one| word(others(one)[who]) == wanted);
            let _ = write!(text, " | {}", times.count());
        }
        text.push_str(" |\n");
    };
    let (must, must_not) = (dead.len(), alive.len());
    row(
        format!("work must leave ({must}): fatal"),
        must,
        &dead,
        Word::Fatal,
    );
    row("… no more than a warning".to_owned(), 0, &dead, Word::Goes);
    row("… not seen".to_owned(), 0, &dead, Word::NotSeen);
    row("… not stated".to_owned(), 0, &dead, Word::NotStated);
    row(
        format!("work must stay ({must_not}): fatal"),
        0,
        &alive,
        Word::Fatal,
    );
    row(
        "… no more than a warning".to_owned(),
        must_not,
        &alive,
        Word::Goes,
    );
    row("… not seen".to_owned(), 0, &alive, Word::NotSeen);
    row("… not stated".to_owned(), 0, &alive, Word::NotStated);
    text
}

fn others(one: &Incident) -> [&str; 4] {
    let others = &one.others;
    [&others.gpud, &others.eks, &others.dcgm, &others.nvsentinel].map(String::as_str)
}

fn table(all: &[Incident]) -> String {
    let mut text = String::new();
    for group in GROUPS {
        let _ = writeln!(
            text,
            "\n### {group}\n\n| incident | sideline | gpud | EKS agent | DCGM health | NVSentinel |\n|---|---|---|---|---|---|"
        );
        for one in all.iter().filter(|one| one.group() == group) {
            let [gpud, eks, dcgm, nvsentinel] = others(one);
            let ours = ours(one);
            let _ = writeln!(
                text,
                "| [{}](../tests/incidents/{}.toml) | {ours} | {gpud} | {eks} | {dcgm} | {nvsentinel} |",
                one.title, one.name
            );
        }
    }
    text.push('\n');
    text
}

fn ours(one: &Incident) -> String {
    let expect = &one.expect;
    let state = match expect.worst {
        State::Healthy => return "healthy".to_owned(),
        State::Degraded => "degraded",
        State::Failing => "**failing**",
    };
    let mut advice: Vec<&str> = expect.advice.values().map(String::as_str).collect();
    advice.sort_unstable();
    advice.dedup();
    let reasons = expect.reasons.join(", ");
    match advice.is_empty() {
        true => format!("{state}: {reasons}"),
        false => format!("{state}: {reasons} ({})", advice.join(", ")),
    }
}

/// The numbers of which it is known what others make of them, beyond the rule.
fn xids() -> String {
    let mut text = String::from(
        "| Xid | NVIDIA: at once | sideline | gpud | EKS agent | DCGM health | NVSentinel |\n|---|---|---|---|---|---|---|\n",
    );
    for row in xid::documented() {
        let others = xid::others(row.number);
        if others.gpud == xid::NOT_STATED {
            continue;
        }
        let severity = match row.severity {
            Severity::Info => "info",
            Severity::Degraded => "degraded",
            Severity::Failing => "**failing**",
        };
        let advice = match row.advice {
            Advice::None => String::new(),
            Advice::RestartApp
            | Advice::RestartTask
            | Advice::ResetGpu
            | Advice::Reboot
            | Advice::PowerCycle
            | Advice::Inspect
            | Advice::Replace
            | Advice::ContactSupport => {
                let advice = serde_json::to_value(row.advice).expect("a word");
                format!(", {}", advice.as_str().unwrap_or_default())
            }
        };
        let _ = writeln!(
            text,
            "| {} {} | {} | {severity}{advice} | {} | {} | {} | {} |",
            row.number,
            row.name,
            row.class,
            others.gpud,
            others.eks,
            others.dcgm,
            others.nvsentinel
        );
    }
    text
}
