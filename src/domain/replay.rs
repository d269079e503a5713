//! Replay: recorded kernel lines and readings, judged by the code that judges live, as if time went by again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::finding::{Advice, Code, Finding, Severity, Subject};
use super::judge::{Judge, Judgement, Surroundings};
use super::kernel_event::KernelEvent;
use super::kernel_line::{KernelLine, Stamp};
use super::memory::{Memory, Restart};
use super::moment::{Moment, Now};
use super::reading::Reading;
use super::record::{Record, Said, Word};
use super::report::{Node, Report, State};
use super::snapshot::{CameraSource, Check, Drives, Gpus, Host, KernelLog, Snapshot, Ups};
use crate::config::Config;

/// What is said so close together is judged together, as live.
const COALESCE: Duration = Duration::from_millis(20);

/// Cameras age by themselves: they are looked at so often, as live.
const TICK: Duration = Duration::from_secs(2);

/// Cameras that nothing was heard of for so long, and `cameras.down_after`, change no more by themselves.
const CAMERAS_SETTLE: Duration = Duration::from_secs(15 * 60);

/// A log whose time goes back by more than this was written by another boot.
const ANOTHER_BOOT: Duration = Duration::from_secs(60);

/// A change of the verdict or of the findings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// When.
    pub at: Timestamp,
    /// The verdict from then on.
    pub state: State,
    /// The codes that decide it.
    pub reasons: Vec<Code>,
    /// The codes of the findings that opened, or got worse or better.
    pub opened: Vec<Code>,
    /// The codes of those that closed.
    pub closed: Vec<Code>,
    /// Slots of all that the node could carry then.
    #[serde(skip)]
    pub carries: (u32, u32),
    /// What opened, in full, for people.
    #[serde(skip)]
    pub findings: Vec<Finding>,
}

/// What the whole recording came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The verdict at its end.
    #[serde(rename = "final")]
    pub state: State,
    /// Lines read.
    pub lines: u64,
    /// Lines that told something of the hardware.
    pub matched: u64,
    /// Every finding that was ever open, in the order of their codes.
    pub findings: Vec<Total>,
}

/// One finding over the whole recording.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Total {
    /// What kind of trouble.
    pub code: Code,
    /// With what.
    pub subject: Subject,
    /// The highest that it reached.
    pub severity: Severity,
    /// What to do, when it was at its worst.
    pub advice: Advice,
    /// The most events that it counted.
    pub count: u64,
    /// When it was first seen.
    pub first: Timestamp,
    /// When it was last seen.
    pub last: Timestamp,
}

/// A node that lives through a recording.
#[derive(Debug)]
pub struct Replay {
    config: Config,
    judge: Judge,
    memory: Memory,
    /// The boot id of the readings; empty where none has told.
    boot: String,
    /// When this boot began: the wall time of `Moment::BOOT`.
    began: Timestamp,
    moment: Moment,
    /// When the first of what is not judged yet was said.
    unjudged: Option<Moment>,
    seen: Seen,
    latest: Option<Arc<Report>>,
    steps: Vec<Step>,
    totals: Vec<Total>,
    matched: u64,
}

/// The latest readings; what no recording speaks of is switched off.
#[derive(Debug)]
struct Seen {
    host: Reading<Host>,
    gpus: Reading<Gpus>,
    kernel: Reading<KernelLog>,
    drives: Reading<Drives>,
    ups: Reading<Vec<Ups>>,
    checks: Reading<Vec<Check>>,
    cameras: BTreeMap<String, Reading<CameraSource>>,
}

impl Replay {
    /// A node that has run healthily until `from`.
    #[must_use]
    pub fn new(config: Config, from: Timestamp) -> Self {
        let memory = Memory {
            boot: from.to_string(),
            ..Memory::default()
        };
        let mut replay = Replay {
            judge: Judge::new(config.clone(), Node::default(), &memory, Moment::BOOT),
            config,
            memory,
            boot: String::new(),
            began: from,
            moment: Moment::BOOT,
            unjudged: None,
            seen: Seen::new(),
            latest: None,
            steps: Vec::new(),
            totals: Vec::new(),
            matched: 0,
        };
        replay.judge();
        replay
    }

    /// Time goes on to `wall`; it never goes back.
    pub fn advance(&mut self, wall: Timestamp) {
        let target = self.moment_of(wall).max(self.moment);
        if let Some(said) = self.unjudged
            && COALESCE < target - said
        {
            self.judge();
        }
        while self.unjudged.is_none()
            && let Some(due) = self.due().filter(|due| *due < target)
        {
            self.moment = due;
            self.judge();
        }
        self.moment = target;
    }

    /// The kernel says a line now. Returns whether it tells anything of the hardware.
    pub fn hear(&mut self, line: KernelLine<'_>) -> bool {
        let line = KernelLine {
            stamp: Stamp::None,
            ..line
        };
        let now = self.now();
        let Reading::Ok { value, at } = &mut self.seen.kernel else {
            return false;
        };
        *at = now.moment;
        let news = value.note(&line, now);
        if news {
            self.unjudged.get_or_insert(now.moment);
            self.matched += 1;
        }
        news
    }

    /// A reading was recorded now.
    pub fn take_in(&mut self, record: Record) {
        let began = record.began();
        let is_other = match (self.boot.as_str(), record.boot.as_str()) {
            ("", _) | (_, "") => self.began < began && ANOTHER_BOOT < apart(self.began, began),
            (before, now) => before != now,
        };
        if is_other {
            self.restart(began);
        } else if self.boot.is_empty() {
            // The recording knows better when this boot began; what was said before it keeps its order.
            self.rebase(began);
        }
        self.boot = record.boot;
        self.moment = self.moment_of(record.at).max(self.moment);
        self.matched += 1;
        self.unjudged.get_or_insert(self.moment);
        self.seen.take_in(record.said, self.moment);
    }

    /// The machine starts anew, at `began`: only what a node remembers outlives that.
    pub fn restart(&mut self, began: Timestamp) {
        self.advance(began);
        self.judge();
        self.judge.remember(&mut self.memory);
        let boot = began.to_string();
        if let Some(panic) = self.seen.panic() {
            self.memory.restarted(Restart {
                boot: boot.clone(),
                began,
                last: Some(self.now().wall),
                panic: Some(panic),
                on_battery: false,
            });
        }
        self.memory.begin_boot(&boot);
        self.seen = Seen::new();
        // Recordings of two boots may overlap, if the clock was set in between.
        let reached = self.now().wall;
        self.began = began;
        self.moment = self.moment_of(reached);
        self.judge = Judge::new(
            self.config.clone(),
            Node::default(),
            &self.memory,
            self.moment,
        );
        self.judge();
    }

    /// What has changed since this was last asked.
    pub fn steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    /// The recording ends, after so many lines.
    #[must_use]
    pub fn end(mut self, lines: u64) -> (Vec<Step>, Summary) {
        self.judge();
        let state = self.state();
        self.totals.sort_unstable_by(|one, other| {
            (one.code, &one.subject).cmp(&(other.code, &other.subject))
        });
        let summary = Summary {
            state,
            lines,
            matched: self.matched,
            findings: self.totals,
        };
        (self.steps, summary)
    }

    fn now(&self) -> Now {
        let since_boot = SignedDuration::try_from(self.moment.since_boot());
        let wall = self
            .began
            .checked_add(since_boot.unwrap_or(SignedDuration::MAX));
        Now {
            moment: self.moment,
            wall: wall.unwrap_or(Timestamp::MAX),
            sure: true,
        }
    }

    fn moment_of(&self, wall: Timestamp) -> Moment {
        let since = wall.duration_since(self.began);
        Moment::after_boot(Duration::try_from(since).unwrap_or_default())
    }

    /// The same boot, which turns out to have begun at another time.
    fn rebase(&mut self, began: Timestamp) {
        if began < self.began {
            let earlier = Duration::try_from(self.began.duration_since(began)).unwrap_or_default();
            self.moment = self.moment + earlier;
            self.began = began;
        }
    }

    fn due(&self) -> Option<Moment> {
        let settle = CAMERAS_SETTLE + self.config.cameras.down_after;
        let ages = |reading: &Reading<CameraSource>| match reading {
            Reading::Ok { at, .. } | Reading::Failed { at, .. } => self.moment < *at + settle,
            Reading::Pending | Reading::Off => false,
        };
        let any = self.seen.cameras.values().any(ages);
        let tick = any.then(|| self.moment + TICK);
        [self.judge.due(), tick].into_iter().flatten().min()
    }

    fn judge(&mut self) {
        self.unjudged = None;
        let now = self.now();
        let cameras: Vec<&Reading<CameraSource>> = self.seen.cameras.values().collect();
        let snapshot = Snapshot {
            host: &self.seen.host,
            gpus: &self.seen.gpus,
            kernel: &self.seen.kernel,
            drives: &self.seen.drives,
            ups: &self.seen.ups,
            checks: &self.seen.checks,
            cameras: &cameras,
        };
        let Judgement { report, .. } = self.judge.judge(snapshot, Surroundings::default(), now);
        self.note(report);
    }

    /// Writes down what differs from the report before.
    fn note(&mut self, report: Arc<Report>) {
        let is_as =
            |one: &Finding, other: &Finding| one.code == other.code && one.subject == other.subject;
        let before = self.latest.as_ref();
        let before = before.map_or(&[][..], |report| &report.findings);
        let opened = report.findings.iter().filter(|now| {
            let same = before.iter().find(|old| is_as(old, now));
            same.is_none_or(|old| old.severity != now.severity)
        });
        let opened: Vec<Finding> = opened.cloned().collect();
        let closed: Vec<Code> = before
            .iter()
            .filter(|old| !report.findings.iter().any(|now| is_as(now, old)))
            .map(|old| old.code)
            .collect();
        let state = report.verdict.state;
        if state != self.state() || !opened.is_empty() || !closed.is_empty() {
            self.steps.push(Step {
                at: report.at,
                state,
                reasons: report.verdict.reasons.clone(),
                opened: opened.iter().map(|finding| finding.code).collect(),
                closed,
                carries: (report.capacity.available, report.capacity.slots),
                findings: opened,
            });
        }
        for finding in &report.findings {
            let mut totals = self.totals.iter_mut();
            let known =
                totals.find(|total| total.code == finding.code && total.subject == finding.subject);
            match known {
                Some(total) => total.add(finding),
                None => self.totals.push(Total::of(finding)),
            }
        }
        self.latest = Some(report);
    }

    /// The verdict of now. A node that was not looked at yet has run healthily.
    fn state(&self) -> State {
        let latest = self.latest.as_ref();
        latest.map_or(State::Healthy, |report| report.verdict.state)
    }
}

impl Total {
    fn of(finding: &Finding) -> Self {
        Total {
            code: finding.code,
            subject: finding.subject.clone(),
            severity: finding.severity,
            advice: finding.advice,
            count: finding.count,
            first: finding.since,
            last: finding.last_seen,
        }
    }

    fn add(&mut self, finding: &Finding) {
        if self.severity <= finding.severity {
            (self.severity, self.advice) = (finding.severity, finding.advice);
        }
        self.count = self.count.max(finding.count);
        self.first = self.first.min(finding.since);
        self.last = self.last.max(finding.last_seen);
    }
}

impl Seen {
    fn new() -> Self {
        Seen {
            host: Reading::Off,
            gpus: Reading::Off,
            kernel: Reading::ok(KernelLog::default(), Moment::BOOT),
            drives: Reading::Off,
            ups: Reading::Off,
            checks: Reading::Off,
            cameras: BTreeMap::new(),
        }
    }

    fn take_in(&mut self, said: Said, now: Moment) {
        match said {
            Said::Host(word) => self.host = word.reading(now),
            Said::Gpus(word) => {
                self.gpus = word.reading(now);
                if let Reading::Ok { value, .. } = &mut self.gpus {
                    value.cards_at = value.cards_at.or(Some(now));
                }
            }
            Said::Kernel(word) => self.kernel = word.reading(now),
            Said::Drives(word) => self.drives = word.reading(now),
            Said::Ups(word) => self.ups = word.reading(now),
            Said::Checks(word) => self.checks = word.reading(now),
            Said::Cameras(word) => {
                // A source that fails does not say who it is; there is nothing of it to age then.
                if let Word::Value(source) = &word {
                    self.cameras.insert(source.name.clone(), word.reading(now));
                }
            }
        }
    }

    /// The last words of a kernel that panicked.
    fn panic(&self) -> Option<String> {
        let facts = &self.kernel.value()?.facts;
        let panic = facts.iter().find(|fact| fact.event == KernelEvent::Panic)?;
        Some(panic.evidence.clone())
    }
}

/// When each line of one log was written, told from its stamp and the lines before it.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// The wall time at which the boot began that its boot stamps count from.
    began: Timestamp,
    latest: Timestamp,
    since_boot: u64,
}

/// When a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Never before the line before it.
    pub at: Timestamp,
    /// Whether the machine has started anew before it.
    pub restarted: bool,
}

impl Timeline {
    /// Boot stamps count from `began`, which for a log that says no more may be any time.
    #[must_use]
    pub fn new(began: Timestamp) -> Self {
        Timeline {
            began,
            latest: Timestamp::MIN,
            since_boot: 0,
        }
    }

    /// Places a line. Without a stamp it was written when the one before it was.
    pub fn place(&mut self, line: &KernelLine<'_>) -> Place {
        const BANNER: &str = "Linux version ";
        // At the beginning of a log as well: it may go on where another one ended.
        let mut restarted = line.text.starts_with(BANNER);
        let at = match line.stamp {
            Stamp::None => self.latest.max(self.began),
            Stamp::Wall(wall) => wall,
            Stamp::SinceBoot(micros) => {
                let back = Duration::from_micros(self.since_boot.saturating_sub(micros));
                restarted |= ANOTHER_BOOT < back;
                if restarted {
                    // Nobody knows how long it was off: time goes on from the last line.
                    self.began = self.latest.max(self.began);
                }
                self.since_boot = micros;
                let since =
                    i64::try_from(micros).map_or(SignedDuration::MAX, SignedDuration::from_micros);
                self.began.checked_add(since).unwrap_or(Timestamp::MAX)
            }
        };
        self.latest = self.latest.max(at);
        Place {
            at: self.latest,
            restarted,
        }
    }
}

fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.duration_since(other).unsigned_abs()
}
