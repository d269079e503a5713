//! A recording of any sort, lived through as `sideline replay` does: time never goes back, and what comes of it is bounded.

use jiff::Timestamp;
use sideline::config::Config;
use sideline::domain::finding::{Finding, Severity};
use sideline::domain::kernel_line::{KernelLine, Stamp, parse_line};
use sideline::domain::record::Record;
use sideline::domain::replay::{Replay, Step, Timeline};
use sideline::domain::report::State;

/// More lines than a mutation needs.
const LINES: usize = 64;

/// A recording.
pub(super) fn run(input: &[u8]) {
    let now = Timestamp::from_second(1_800_000_000).expect("it is small");
    let text = String::from_utf8_lossy(input);
    let mut timeline = Timeline::new(Timestamp::UNIX_EPOCH);
    let mut replay: Option<Replay> = None;
    let mut lived = Lived::default();
    let mut lines = 0;
    for raw in text.lines().take(LINES) {
        let record: Option<Record> = Record::parse(raw).ok();
        if let Some(record) = record {
            again(&record);
            let from = record.began();
            let replay = replay.get_or_insert_with(|| Replay::new(Config::default(), from));
            replay.advance(record.at);
            replay.take_in(record);
            lived.steps(&replay.steps());
        } else if let Some(line) = parse_line(raw, now) {
            let place = timeline.place(&line);
            let replay = replay.get_or_insert_with(|| Replay::new(Config::default(), place.at));
            if place.restarted {
                replay.restart(place.at);
            } else {
                replay.advance(place.at);
            }
            replay.hear(KernelLine {
                stamp: Stamp::None,
                text: line.text,
            });
            lived.steps(&replay.steps());
        }
        lines += 1;
    }
    let Some(replay) = replay else { return };
    let (steps, summary) = replay.end(lines);
    lived.steps(&steps);
    assert!(summary.matched <= lines);
    assert_eq!(summary.state, lived.state, "the last step tells the end");
    for total in &summary.findings {
        assert!(total.count >= 1 && total.first <= total.last, "{total:?}");
    }
    serde_json::to_string(&summary).expect("it can be written");
}

/// What is recorded again can be read again.
fn again(record: &Record) {
    let written = serde_json::to_string(record).expect("it can be written");
    let read: Record = Record::parse(&written).expect("what was written can be read");
    assert_eq!((read.at, &read.boot), (record.at, &record.boot));
}

/// What the steps have said so far.
struct Lived {
    at: Timestamp,
    state: State,
}

impl Default for Lived {
    fn default() -> Self {
        Lived {
            at: Timestamp::MIN,
            state: State::Healthy,
        }
    }
}

impl Lived {
    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            assert!(self.at <= step.at, "time goes back: {} {step:?}", self.at);
            (self.at, self.state) = (step.at, step.state);
            let (available, slots) = step.carries;
            assert!(available <= slots);
            assert!(
                step.findings.len() <= 10_000,
                "{} findings",
                step.findings.len()
            );
            step.findings.iter().for_each(|finding| told(finding, step));
        }
    }
}

/// A failing finding is felt.
fn told(finding: &Finding, step: &Step) {
    if finding.severity == Severity::Failing {
        assert_ne!(step.state, State::Healthy, "{step:?}");
    }
}
