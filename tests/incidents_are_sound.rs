//! The incidents of `tests/incidents` hold together, and `docs/detectors.md` says what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use sideline::config::codes;
use sideline::domain::finding::{Advice, Severity};
use sideline::domain::xid;

#[path = "incidents/mod.rs"]
mod incidents;

use incidents::{Incident, READ_AT, State};

const GROUPS: [&str; 10] = [
    "application",
    "cameras",
    "hardware",
    "host",
    "mixed",
    "power",
    "readings",
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
        "record",
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
    let all = incidents::all().unwrap();
    let tables = [("incidents", table(&all)), ("xids", xids())];
    incidents::keep_document(&tables, "incidents_are_sound");
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
    if let Some(lasts) = expect.lasts {
        check(
            expect.at.is_some_and(|at| lasts.is_after(at)),
            "lasts must be after at",
        );
        check(
            expect.recovers.is_none_or(|at| at.is_after(lasts)),
            "recovers must be after lasts",
        );
    }
    for code in expect.subjects.keys() {
        check(codes::known(code), &format!("unknown code {code}"));
    }
    match one.recording() {
        Err(why) => check(false, &why),
        Ok(recording) => {
            let written = recording.lines().filter(|line| incidents::is_record(line));
            let records = one.records().unwrap_or_default();
            check(
                records.len() == written.count(),
                "a recorded reading can't be read",
            );
            check(
                records.windows(2).all(|two| fit(&two[0], &two[1])),
                "up does not go with at",
            );
        }
    }
    match one.stamps(READ_AT.parse().expect("a time")) {
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

/// Whether two readings of one boot agree on when it began, or are of two.
fn fit(one: &incidents::Record, next: &incidents::Record) -> bool {
    let began = |record: &incidents::Record| {
        let up = SignedDuration::try_from_secs_f64(record.up).expect("a short time");
        record.at.checked_sub(up).expect("a time in reach")
    };
    let apart = |one: Timestamp, other: Timestamp| one.duration_since(other).abs();
    (one.boot == next.boot) == (apart(began(one), began(next)) < SignedDuration::from_secs(1))
}

/// The program that recorded it, by the first line that is not empty.
fn form(recording: &str) -> &'static str {
    let line = recording
        .lines()
        .find(|line| !line.is_empty())
        .unwrap_or_default();
    let digit = |at: usize| line.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    match line.as_bytes().first() {
        Some(b'{') if incidents::is_record(line) => "record",
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

fn table(all: &[Incident]) -> String {
    let mut text = String::new();
    for group in GROUPS {
        let _ = writeln!(
            text,
            "\n### {group}\n\n| incident | sideline | gpud | EKS agent | DCGM health | NVSentinel |\n|---|---|---|---|---|---|"
        );
        for one in all.iter().filter(|one| one.group() == group) {
            let [gpud, eks, dcgm, nvsentinel] = one.others.all();
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
        State::Unknown => "unknown",
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
