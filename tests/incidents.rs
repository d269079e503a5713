//! Every incident of `tests/incidents`, replayed by the real program and held to what is expected of it.

#![expect(
    clippy::print_stdout,
    reason = "the line for each incident is what a reader wants to see"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::process::Command;

#[path = "incidents/mod.rs"]
mod incidents;

use incidents::{At, Incident, READ_AT, State};

/// No replay takes longer, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Boot stamps count in microseconds, and the program tells times to the millisecond.
const ROUNDING: SignedDuration = SignedDuration::from_millis(1);

/// What the program made of each incident; both tests look at the same runs.
static RUNS: LazyLock<Vec<(Incident, Run)>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let all = incidents::all().expect("the incidents can be read");
    all.into_iter()
        .map(|one| {
            let run = runtime.block_on(Run::of(&one, folder.path()));
            (one, run)
        })
        .collect()
});

#[test]
fn every_incident_is_judged_as_expected() {
    let mut wrong = Vec::new();
    for (one, run) in RUNS.iter() {
        println!("{}", line(one, run));
        let faults = faults(one, run);
        wrong.extend(faults.iter().map(|fault| format!("{}: {fault}", one.name)));
    }
    println!("\n{}", measured(&RUNS));
    assert!(
        wrong.is_empty(),
        "{} of {} incidents are judged otherwise:\n{}",
        wrong
            .iter()
            .filter_map(|fault| fault.split_once(": "))
            .map(|(name, _)| name)
            .collect::<BTreeSet<_>>()
            .len(),
        RUNS.len(),
        wrong.join("\n")
    );
}

#[test]
fn dead_hardware_sends_work_away_and_programs_do_not() {
    let (mut hardware, mut programs) = ((0, 0), (0, 0));
    for (one, run) in RUNS.iter() {
        let count = match one.group() {
            "hardware" | "power" if one.expect.drains => &mut hardware,
            "application" => &mut programs,
            _ => continue,
        };
        count.0 += 1;
        count.1 += usize::from(run.drained());
    }
    let (dead, left) = hardware;
    assert!(
        dead >= 20 && left == dead,
        "work left {left} of {dead} dead nodes"
    );
    let (faults, left) = programs;
    assert!(
        faults >= 10 && left == 0,
        "work left {left} of {faults} nodes with a program's fault"
    );
}

#[test]
fn the_document_tells_what_was_measured() {
    let tables = [("summary", summary(&RUNS)), ("measured", measured(&RUNS))];
    incidents::keep_document(&tables, "incidents");
}

/// What `sideline replay --json` printed for one incident, and how it ended.
struct Run {
    steps: Vec<Step>,
    summary: Summary,
    status: Option<i32>,
    took: Duration,
}

/// A change of the verdict or of the findings.
#[derive(Deserialize)]
struct Step {
    at: Timestamp,
    state: State,
    reasons: Vec<String>,
}

#[derive(Deserialize)]
struct Summary {
    #[serde(rename = "final")]
    last: State,
    findings: Vec<Finding>,
}

/// A finding that was ever open.
#[derive(Deserialize)]
struct Finding {
    code: String,
    subject: String,
    severity: Severity,
    advice: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Info,
    Degraded,
    Failing,
}

/// A line of what is printed.
#[derive(Deserialize)]
#[serde(untagged)]
enum Printed {
    Summary { summary: Summary },
    Step(Step),
}

impl Run {
    /// Replays one incident with the defaults, whatever this machine's own configuration says.
    async fn of(one: &Incident, folder: &Path) -> Run {
        let (config, log) = (folder.join("empty.toml"), folder.join("log"));
        fs::write(&config, "").expect("a file");
        fs::write(&log, one.recording().expect("a recording")).expect("a file");
        let begun = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_sideline"))
            .args(["replay", "-", "--json", "--config"])
            .arg(&config)
            .env("TZ", "UTC")
            .stdin(File::open(&log).expect("the log"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = ended
            .unwrap_or_else(|_| panic!("{} takes longer than {PATIENCE:?}", one.name))
            .expect("the program ends");
        let took = begun.elapsed();
        let printed = String::from_utf8_lossy(&output.stdout);
        let (mut steps, mut summary) = (Vec::new(), None);
        for line in printed.lines() {
            match serde_json::from_str(line) {
                Ok(Printed::Step(step)) => steps.push(step),
                Ok(Printed::Summary { summary: found }) => summary = Some(found),
                Err(why) => panic!("{}: {why}: {line}", one.name),
            }
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Run {
            steps,
            summary: summary.unwrap_or_else(|| panic!("{}: no summary: {said}", one.name)),
            status: output.status.code(),
            took,
        }
    }

    /// The worst verdict on the way; it starts healthy.
    fn worst(&self) -> State {
        let states = self.steps.iter().map(|step| step.state);
        states.max().unwrap_or(State::Healthy)
    }

    /// The codes that were ever among the reasons while the verdict was worst.
    fn reasons(&self) -> BTreeSet<&str> {
        let worst = self.worst();
        let steps = self.steps.iter().filter(|step| step.state == worst);
        steps
            .flat_map(|step| step.reasons.iter().map(String::as_str))
            .collect()
    }

    /// When the verdict was worst for the first time.
    fn fell(&self) -> Option<Timestamp> {
        let worst = self.worst();
        let first = self.steps.iter().find(|step| step.state == worst)?;
        Some(first.at)
    }

    fn state_at(&self, at: Timestamp) -> State {
        let before = self.steps.iter().rfind(|step| step.at <= at);
        before.map_or(State::Healthy, |step| step.state)
    }

    /// Whether work left the node.
    fn drained(&self) -> bool {
        self.steps.iter().any(|step| step.state == State::Failing)
    }

    /// The findings of a code, each at the highest that any of them reached.
    fn worst_of(&self, code: &str) -> Vec<&Finding> {
        let of = || self.summary.findings.iter().filter(|one| one.code == code);
        let worst = of().map(|one| one.severity).max();
        of().filter(|one| Some(one.severity) == worst).collect()
    }
}

/// What the program made of an incident that it should not have.
fn faults(one: &Incident, run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |right: bool, fault: String| {
        if !right {
            wrong.push(fault);
        }
    };
    let (expect, summary) = (&one.expect, &run.summary);
    let (worst, status) = (run.worst(), run.status);
    check(
        summary.last == expect.last,
        format!("final is {:?}, not {:?}", summary.last, expect.last),
    );
    check(
        status == Some(exit_status(expect.last)),
        format!("exit status is {status:?}"),
    );
    check(
        worst == expect.worst,
        format!(
            "worst is {worst:?}, not {:?}: {:?}",
            expect.worst,
            run.reasons()
        ),
    );
    let unknown = run.steps.iter().find(|step| step.state == State::Unknown);
    check(
        unknown.is_none(),
        format!("is unknown at {:?}", unknown.map(|step| step.at)),
    );
    check(
        run.drained() == expect.drains,
        format!("drains is {}", run.drained()),
    );
    for code in &expect.reasons {
        check(
            run.reasons().contains(code.as_str()),
            format!("{code} is no reason, only {:?}", run.reasons()),
        );
    }
    for (code, advice) in &expect.advice {
        let found = run.worst_of(code);
        let given: Vec<&str> = found.iter().map(|found| found.advice.as_str()).collect();
        let right = !given.is_empty() && given.iter().all(|given| given == advice);
        check(
            right,
            format!("advice for {code} is {given:?}, not {advice}"),
        );
    }
    for (code, subjects) in &expect.subjects {
        let found = summary.findings.iter().filter(|found| found.code == *code);
        let found: BTreeSet<&str> = found.map(|found| found.subject.as_str()).collect();
        let right = found == subjects.iter().map(String::as_str).collect();
        check(right, format!("{code} is with {found:?}, not {subjects:?}"));
    }
    let trouble = summary
        .findings
        .iter()
        .filter(|found| found.severity > Severity::Info);
    for found in trouble {
        let is_one = |never: &String| match never.strip_suffix('*') {
            Some(family) => found.code.starts_with(family),
            None => found.code == *never,
        };
        check(
            !expect.never.iter().any(is_one),
            format!("{} of {} must never be trouble", found.code, found.subject),
        );
    }
    if worst == expect.worst {
        wrong.extend(late(one, run));
    }
    wrong
}

/// What came too early, too late, or did not last.
fn late(one: &Incident, run: &Run) -> Vec<String> {
    let mut wrong = Vec::new();
    let expect = &one.expect;
    let told = |at: Option<At>| at.map(|at| as_told(one, at));
    let within = expect.within.as_deref().unwrap_or("0s");
    let within = humantime::parse_duration(within).expect("a duration");
    let within = SignedDuration::try_from(within).expect("a short time");
    if let (Some(at), Some(fell)) = (told(expect.at), run.fell()) {
        let after = fell.duration_since(at);
        if after < -ROUNDING {
            wrong.push(format!("{:?} {after:#} before its proof", expect.worst));
        }
        if within + ROUNDING < after {
            wrong.push(format!(
                "{:?} after {after:#}, not {within:#}",
                expect.worst
            ));
        }
    }
    if let Some(lasts) = told(expect.lasts)
        && run.state_at(lasts) != expect.worst
    {
        wrong.push(format!("{:?} at {lasts} already", run.state_at(lasts)));
    }
    if let Some(recovers) = told(expect.recovers) {
        let later = run.steps.iter().filter(|step| recovers < step.at);
        let relapse = later
            .map(|step| step.state)
            .find(|state| *state != State::Healthy);
        let state = relapse.unwrap_or_else(|| run.state_at(recovers));
        if state != State::Healthy {
            wrong.push(format!("{state:?} at {recovers} or after"));
        }
    }
    wrong
}

/// A time of an incident as the program tells it: stamps that count from the boot do so from 1970, and what has no year
/// is of the last twelve months.
fn as_told(one: &Incident, at: At) -> Timestamp {
    let wall = match at {
        At::SinceBoot(micros) => {
            let micros = i64::try_from(micros).expect("less than 292,000 years");
            return Timestamp::from_microsecond(micros).expect("a time in reach");
        }
        At::Wall(wall) => wall,
    };
    let read_at = READ_AT.parse().expect("a time");
    let first = |now| one.stamps(now).expect("stamps").into_iter().next();
    match (first(read_at), first(Timestamp::now())) {
        (Some(At::Wall(then)), Some(At::Wall(now))) => wall
            .checked_add(now.duration_since(then))
            .expect("a time in reach"),
        _ => wall,
    }
}

fn exit_status(state: State) -> i32 {
    match state {
        State::Healthy => 0,
        State::Degraded => 1,
        State::Failing => 2,
        State::Unknown => 3,
    }
}

/// One incident in a line: the worst verdict, its reasons, how long it took from the line that proves it, and how long the
/// program ran.
fn line(one: &Incident, run: &Run) -> String {
    let reasons: Vec<&str> = run.reasons().into_iter().collect();
    let after = match (one.expect.at, run.fell()) {
        (Some(at), Some(fell)) => {
            let after = fell.duration_since(as_told(one, at));
            format!("after {:.1} s", after.as_secs_f64())
        }
        (Some(_) | None, _) => "-".to_owned(),
    };
    let worst = format!("{:?}", run.worst()).to_lowercase();
    format!(
        "{:<44} {worst:<8} {after:<14} {:>4} ms  {}",
        one.name,
        run.took.as_millis(),
        reasons.join(", ")
    )
}

/// Of each group, how many incidents have to send work away, and how many did.
fn measured(runs: &[(Incident, Run)]) -> String {
    let mut groups: BTreeMap<&str, [usize; 5]> = BTreeMap::new();
    for (one, run) in runs {
        let (wanted, drained) = (one.expect.drains, run.drained());
        let right = faults(one, run).is_empty();
        let counts = [true, wanted, wanted && drained, !wanted && drained, right];
        for group in [one.group(), "together"] {
            let row = groups.entry(group).or_default();
            for (sum, counts) in row.iter_mut().zip(counts) {
                *sum += usize::from(counts);
            }
        }
    }
    let total = groups.remove_entry("together");
    let mut text = String::from(
        "| | incidents | work must leave | it left | it left and must not | all as expected |\n|---|---|---|---|---|---|\n",
    );
    for (group, [all, wanted, drained, wrongly, right]) in groups.into_iter().chain(total) {
        let _ = writeln!(
            text,
            "| {group} | {all} | {wanted} | {drained} | {wrongly} | {right} |"
        );
    }
    text
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

/// What all make of the incidents in which the GPU's driver speaks: of the server itself most don't say how bad they hold
/// a thing to be.
fn summary(runs: &[(Incident, Run)]) -> String {
    let of_gpus = |(one, _): &&(Incident, Run)| {
        let recording = one.recording();
        recording.is_ok_and(|text| text.contains("NVRM: "))
    };
    let (dead, alive): (Vec<_>, Vec<_>) = runs
        .iter()
        .filter(of_gpus)
        .partition(|(one, _)| one.expect.drains);
    let mut text = String::from(
        "| | sideline | gpud | EKS agent | DCGM health | NVSentinel |\n|---|---|---|---|---|---|\n",
    );
    for (what, incidents) in [("leave", dead), ("stay", alive)] {
        for (name, wanted) in [
            (
                format!("work must {what} ({}): fatal", incidents.len()),
                Word::Fatal,
            ),
            ("… no more than a warning".to_owned(), Word::Goes),
            ("… not seen".to_owned(), Word::NotSeen),
            ("… not stated".to_owned(), Word::NotStated),
        ] {
            let mut counts = [0; 5];
            for (one, run) in &incidents {
                let ours = match run.drained() {
                    true => Word::Fatal,
                    false => Word::Goes,
                };
                let others = one.others.all().map(word);
                let words = [ours].into_iter().chain(others);
                for (count, word) in counts.iter_mut().zip(words) {
                    *count += usize::from(word == wanted);
                }
            }
            let counts = counts.map(|count| count.to_string()).join(" | ");
            let _ = writeln!(text, "| {name} | {counts} |");
        }
    }
    text
}
