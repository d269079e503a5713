//! From what the rules observe now to findings that open and close: holds, counts and the operator's levels.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::finding::{Advice, Code, Finding, Severity, Subject};
use super::moment::{Moment, Now};
use super::timing::{FLAP_MEMORY, Timing};
use crate::config::{Config, RuleLevel};

/// What a rule holds to be true at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// What kind of trouble.
    pub code: Code,
    /// With what.
    pub subject: Subject,
    /// How bad.
    pub severity: Severity,
    /// What to do.
    pub advice: Advice,
    /// What was seen.
    pub evidence: String,
    /// How it lies in time.
    pub lasts: Lasts,
    /// How long it has to last before it counts, where the table says that it varies.
    pub opens_after: Option<Duration>,
}

/// How trouble lies in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lasts {
    /// It is so now: counts after a hold, closes after good looks.
    State,
    /// It has happened: closes when nothing more has happened for a while.
    Events {
        /// How often so far.
        count: u64,
        /// The first time.
        first: Moment,
        /// The last time.
        last: Moment,
    },
    /// It has happened and is not over before the rule says so, however quiet it grows.
    Held {
        /// How often so far.
        count: u64,
        /// The first time.
        first: Moment,
        /// The last time.
        last: Moment,
    },
}

impl Observed {
    /// A state that holds now.
    pub fn state(
        code: Code,
        subject: Subject,
        severity: Severity,
        advice: Advice,
        evidence: String,
    ) -> Self {
        Observed {
            code,
            subject,
            severity,
            advice,
            evidence,
            lasts: Lasts::State,
            opens_after: None,
        }
    }

    /// The same, counting only after it has lasted `hold`.
    #[must_use]
    pub fn after(mut self, hold: Duration) -> Self {
        self.opens_after = Some(hold);
        self
    }

    /// The same, as `count` events between two moments.
    #[must_use]
    pub fn events(mut self, count: u64, first: Moment, last: Moment) -> Self {
        self.lasts = Lasts::Events { count, first, last };
        self
    }

    /// The same, as `count` events whose trouble lasts until the rule has proof that it is over.
    #[must_use]
    pub fn held(mut self, count: u64, first: Moment, last: Moment) -> Self {
        self.lasts = Lasts::Held { count, first, last };
        self
    }
}

/// What came of one round of the rules.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// What is wrong.
    pub observed: Vec<Observed>,
    /// What can't be told now: it neither opens nor closes.
    unsure: Vec<(Code, Subject)>,
    /// Whole kinds of it.
    unsure_of: Vec<fn(Code) -> bool>,
    /// When a rule will say something else though it sees the same.
    due: Option<Moment>,
}

impl Found {
    /// Something is wrong.
    pub fn push(&mut self, observed: Observed) {
        self.observed.push(observed);
    }

    /// Nobody can tell whether this is wrong with `subject`.
    pub fn unsure(&mut self, code: Code, subject: Subject) {
        self.unsure.push((code, subject));
    }

    /// Nobody can tell whether any of these is wrong with anything.
    pub fn unsure_of(&mut self, codes: fn(Code) -> bool) {
        self.unsure_of.push(codes);
    }

    /// A rule's window ends at `at`.
    pub fn wake(&mut self, at: Moment) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn is_unsure(&self, code: Code, subject: &Subject) -> bool {
        self.unsure_of.iter().any(|are| are(code))
            || self
                .unsure
                .iter()
                .any(|(of, with)| *of == code && with == subject)
    }
}

/// What changed with one look.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Opened, or got worse or better while open.
    Opened(Finding),
    /// Closed.
    Closed(Finding),
}

/// The findings that are open, those that wait for their hold, and those that closed not long ago.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    tracks: BTreeMap<(Code, Subject), Track>,
    /// Counts the looks, to tell what was observed in this one.
    looks: u64,
    due: Option<Moment>,
}

#[derive(Debug, Clone)]
struct Track {
    finding: Finding,
    lasts: Lasts,
    /// Since when it has been observed without a good look between.
    since: Moment,
    opens_after: Duration,
    /// The look that observed it last.
    look: u64,
    phase: Phase,
    /// How often it has opened without a rest of `FLAP_MEMORY`.
    openings: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Observed, and waits for its hold.
    Waiting,
    Open,
    /// Open, with nothing but good looks since.
    Closing(Moment),
    /// Remembered for the next time.
    Closed(Moment),
}

impl Findings {
    /// Takes in everything that the rules found now and says what changed.
    pub fn update(&mut self, mut found: Found, config: &Config, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        self.looks += 1;
        self.due = found.due.filter(|due| now.moment < *due);
        let look = self.looks;
        found.observed.retain_mut(|seen| {
            let level = level(&config.judge.rules, seen.code);
            match level {
                Some(RuleLevel::Degraded) => seen.severity = Severity::Degraded,
                Some(RuleLevel::Failing) => seen.severity = Severity::Failing,
                Some(RuleLevel::Off) | None => {}
            }
            level != Some(RuleLevel::Off)
        });
        // The worst first: of one trouble that two sources tell of, it is the one that counts.
        for worst in [Severity::Failing, Severity::Degraded, Severity::Info] {
            for seen in found.observed.extract_if(.., |seen| seen.severity == worst) {
                changes.extend(self.observe(seen, config, now));
            }
        }
        let mut due = self.due;
        self.tracks.retain(|(code, subject), track| {
            let is_unseen = track.look != look && found.is_unsure(*code, subject);
            if is_unseen && matches!(track.phase, Phase::Closing(_)) {
                // The proof has to last while it can be seen.
                track.phase = Phase::Open;
            } else if track.look != look && !is_unseen {
                changes.extend(track.look_good(*code, config, now));
            }
            // What can't be seen changes when it can be, not by itself.
            if !is_unseen && let Some(at) = track.due(*code, config) {
                due = Some(due.map_or(at, |due| due.min(at)));
            }
            match track.phase {
                Phase::Waiting => track.look == look,
                Phase::Open | Phase::Closing(_) => true,
                Phase::Closed(at) => now.moment - at < FLAP_MEMORY,
            }
        });
        self.due = due;
        changes
    }

    /// The open findings, by code and subject.
    pub fn open(&self) -> impl Iterator<Item = &Finding> + Clone {
        self.tracks
            .values()
            .filter(|track| matches!(track.phase, Phase::Open | Phase::Closing(_)))
            .map(|track| &track.finding)
    }

    /// When something may open or close though nothing new is seen.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    fn observe(&mut self, seen: Observed, config: &Config, now: Now) -> Option<Change> {
        let timing = Timing::of(seen.code);
        let is_over = |openings| match seen.lasts {
            Lasts::Events { last, .. } => now.moment - last > timing.closes_after(config, openings),
            Lasts::State | Lasts::Held { .. } => false,
        };
        let track = match self.tracks.entry((seen.code, seen.subject)) {
            Entry::Occupied(track) if is_over(track.get().openings) => return None,
            Entry::Vacant(_) if is_over(0) => return None,
            Entry::Occupied(track) if track.get().look == self.looks => return None,
            Entry::Occupied(track) => track.into_mut(),
            Entry::Vacant(place) => {
                let (code, subject) = place.key().clone();
                place.insert(Track::new(code, subject, seen.lasts, now))
            }
        };
        let (was, news) = (track.finding.severity, track.finding.count);
        track.look = self.looks;
        track.lasts = seen.lasts;
        track.opens_after = seen
            .opens_after
            .unwrap_or_else(|| timing.opens.length(config));
        let finding = &mut track.finding;
        finding.severity = seen.severity;
        finding.advice = seen.advice;
        finding.evidence = seen.evidence;
        match seen.lasts {
            Lasts::State => finding.last_seen = now.wall,
            Lasts::Events { count, last, .. } | Lasts::Held { count, last, .. } => {
                // The wall time of an event must not wander with every look.
                if count != news {
                    finding.last_seen = now.wall_at(last);
                }
                finding.count = count;
            }
        }
        match track.phase {
            Phase::Open | Phase::Closing(_) => {
                track.phase = Phase::Open;
                (was != seen.severity).then(|| Change::Opened(track.finding.clone()))
            }
            Phase::Closed(_) => {
                track.begin(now);
                track.ripen(now)
            }
            Phase::Waiting => track.ripen(now),
        }
    }
}

impl Track {
    fn new(code: Code, subject: Subject, lasts: Lasts, now: Now) -> Self {
        let mut track = Track {
            finding: Finding {
                code,
                subject,
                severity: Severity::Info,
                since: now.wall,
                last_seen: now.wall,
                count: 1,
                evidence: String::new(),
                advice: Advice::None,
            },
            lasts,
            since: now.moment,
            opens_after: Duration::ZERO,
            look: 0,
            phase: Phase::Waiting,
            openings: 0,
        };
        track.begin(now);
        track
    }

    /// Trouble begins, for the first time or again.
    fn begin(&mut self, now: Now) {
        self.since = now.moment;
        (self.finding.since, self.finding.last_seen) = match self.lasts {
            Lasts::State => (now.wall, now.wall),
            // Of events, this may be the latest of many that are long over.
            Lasts::Events { last, .. } if matches!(self.phase, Phase::Closed(_)) => {
                (now.wall_at(last), now.wall_at(last))
            }
            Lasts::Events { first, last, .. } | Lasts::Held { first, last, .. } => {
                (now.wall_at(first), now.wall_at(last))
            }
        };
        if let Phase::Closed(at) = self.phase
            && now.moment - at >= FLAP_MEMORY
        {
            self.openings = 0;
        }
        self.phase = Phase::Waiting;
    }

    fn ripen(&mut self, now: Now) -> Option<Change> {
        (now.moment - self.since >= self.opens_after).then(|| {
            self.phase = Phase::Open;
            self.openings = self.openings.saturating_add(1);
            Change::Opened(self.finding.clone())
        })
    }

    /// A look that was able to see it and did not.
    fn look_good(&mut self, code: Code, config: &Config, now: Now) -> Option<Change> {
        let since = match self.phase {
            Phase::Open => now.moment,
            Phase::Closing(since) => since,
            Phase::Waiting | Phase::Closed(_) => return None,
        };
        let waited = match self.lasts {
            Lasts::State | Lasts::Held { .. } => {
                now.moment - since >= Timing::of(code).closes_after(config, self.openings)
            }
            // It has waited since the last one already.
            Lasts::Events { .. } => true,
        };
        self.phase = if waited {
            Phase::Closed(now.moment)
        } else {
            Phase::Closing(since)
        };
        waited.then(|| Change::Closed(self.finding.clone()))
    }

    /// When its phase will change though nothing new is seen.
    fn due(&self, code: Code, config: &Config) -> Option<Moment> {
        let closes = Timing::of(code).closes_after(config, self.openings);
        match (self.phase, self.lasts) {
            (Phase::Waiting, _) => Some(self.since + self.opens_after),
            // A moment later than the wait: it closes when more than that has passed.
            (Phase::Open, Lasts::Events { last, .. }) => {
                Some(last + closes + Duration::from_millis(1))
            }
            (Phase::Closing(since), _) => Some(since + closes),
            (Phase::Open | Phase::Closed(_), _) => None,
        }
    }
}

/// The operator's level of a code: its own name first, then the longest family (`gpu.xid.*`, `gpu.*`).
fn level(rules: &BTreeMap<String, RuleLevel>, code: Code) -> Option<RuleLevel> {
    if rules.is_empty() {
        return None;
    }
    let name = code.to_string();
    rules.get(&name).copied().or_else(|| {
        rules
            .iter()
            .filter(|(key, _)| {
                key.strip_suffix('*')
                    .is_some_and(|family| name.starts_with(family))
            })
            .max_by_key(|(key, _)| key.len())
            .map(|(_, level)| *level)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn at(seconds: u64) -> Now {
        Now {
            moment: Moment::after_boot(Duration::from_secs(seconds)),
            wall: Timestamp::from_second(1_000_000 + i64::try_from(seconds).unwrap()).unwrap(),
            sure: true,
        }
    }

    fn bad(code: Code) -> Observed {
        let (severity, advice) = (Severity::Degraded, Advice::Inspect);
        Observed::state(code, Subject::Host, severity, advice, "so".into())
    }

    /// A character a second: `#` observed, `.` not, `?` can't be told; below, whether the finding is open.
    fn check(code: Code, hold: u64, seen: &str, open: &str) {
        let (config, mut findings) = (Config::default(), Findings::default());
        let shown: String = seen
            .chars()
            .zip(0..)
            .map(|(mark, second)| {
                let mut found = Found::default();
                match mark {
                    '#' => found.push(bad(code).after(Duration::from_secs(hold))),
                    '?' => found.unsure(code, Subject::Host),
                    _ => {}
                }
                findings.update(found, &config, at(second));
                let is_open = findings.open().count() == 1;
                if is_open { '!' } else { ' ' }
            })
            .collect();
        assert_eq!(shown, open, "{code}, hold {hold}, seen {seen}");
    }

    #[test]
    fn a_state_counts_after_its_hold_and_closes_when_it_ends() {
        let code = Code::HostDiskFull;
        check(code, 0, ".##..#.", " !!  ! ");
        check(code, 3, ".####..", "    !  ");
        check(code, 3, "##.####", "      !");
    }

    #[test]
    fn what_cant_be_told_neither_opens_nor_closes() {
        let code = Code::HostDiskFull;
        check(code, 0, ".#???.??#", " !!!!   !");
        check(code, 2, "##??####", "      !!");
    }

    #[test]
    fn proof_of_recovery_has_to_last_and_flapping_makes_it_last_longer() {
        let (hot, full) = (Code::GpuHot, Code::HostDiskFull);
        let good = |seconds| ".".repeat(seconds);
        let open = |seconds| "!".repeat(seconds);
        let shut = |seconds| " ".repeat(seconds);
        check(
            hot,
            0,
            &format!("#{}", good(32)),
            &format!("{}{}", open(31), shut(2)),
        );
        check(
            hot,
            0,
            &format!("#{}#{}", good(20), good(32)),
            &format!("{}{}", open(52), shut(2)),
        );
        check(
            full,
            0,
            &format!("#.#.#{}", good(63)),
            &format!("! ! {}{}", open(61), shut(3)),
        );
    }

    #[test]
    fn it_says_when_something_will_change() {
        let (config, mut findings) = (Config::default(), Findings::default());
        let mut look = |found: &[Observed], second| {
            let found = Found {
                observed: found.to_vec(),
                ..Found::default()
            };
            findings.update(found, &config, at(second));
            findings.due().map(|due| due - at(0).moment)
        };
        let state = bad(Code::GpuHot);
        let event = |last| bad(Code::HostOom).events(1, at(last).moment, at(last).moment);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let later = |at: Option<Duration>| at.map(|at| at + Duration::from_millis(1));
        assert_eq!(look(&[], 0), None);
        assert_eq!(look(std::slice::from_ref(&state), 10), seconds(70), "opens");
        assert_eq!(look(std::slice::from_ref(&state), 70), None, "open");
        assert_eq!(look(&[], 80), seconds(110), "closes");
        assert_eq!(look(&[], 110), None, "closed");
        assert_eq!(
            look(&[event(120)], 130),
            later(seconds(720)),
            "is forgotten"
        );
        assert_eq!(look(&[event(120)], 721), None, "forgotten");
    }

    #[test]
    fn nothing_changes_by_itself_while_it_cant_be_seen() {
        let (config, mut findings) = (Config::default(), Findings::default());
        // Second, what is seen, and how many seconds later it will change by itself.
        for (second, seen, due) in [
            (0, '#', None),
            (10, '.', Some(30)),
            (20, '?', None),
            (60, '?', None),
            (70, '.', Some(30)),
            (100, '.', None),
        ] {
            let mut found = Found::default();
            match seen {
                '#' => found.push(bad(Code::HostPower)),
                '?' => found.unsure(Code::HostPower, Subject::Host),
                _ => {}
            }
            findings.update(found, &config, at(second));
            let later = findings
                .due()
                .map(|due| (due - at(second).moment).as_secs());
            assert_eq!(later, due, "{second} {seen}");
        }
        assert_eq!(findings.open().count(), 0, "it lasted");
    }

    #[test]
    fn the_operators_level_wins_and_the_longest_family_too() {
        let rules = |pairs: &[(&str, RuleLevel)]| {
            pairs
                .iter()
                .map(|(key, level)| ((*key).to_owned(), *level))
                .collect::<BTreeMap<_, _>>()
        };
        let both = rules(&[
            ("gpu.*", RuleLevel::Off),
            ("gpu.xid.*", RuleLevel::Degraded),
        ]);
        let exact = rules(&[
            ("gpu.xid.*", RuleLevel::Off),
            ("gpu.xid.79", RuleLevel::Failing),
        ]);
        for (rules, code, expected) in [
            (&both, Code::GpuXid(79), Some(RuleLevel::Degraded)),
            (&both, Code::GpuHot, Some(RuleLevel::Off)),
            (&both, Code::HostOom, None),
            (&exact, Code::GpuXid(79), Some(RuleLevel::Failing)),
            (&exact, Code::GpuXid(48), Some(RuleLevel::Off)),
        ] {
            assert_eq!(level(rules, code), expected, "{code}");
        }
    }

    #[test]
    fn an_event_keeps_its_own_times() {
        let (config, mut findings) = (Config::default(), Findings::default());
        let mut look = |count, first, last, second| {
            let event = bad(Code::HostOom).events(count, at(first).moment, at(last).moment);
            let mut found = Found::default();
            found.push(event);
            findings.update(found, &config, at(second));
            let open = findings.open().next();
            open.map(|open| (open.since, open.last_seen, open.count))
        };
        let times = |since, last, count| Some((at(since).wall, at(last).wall, count));
        assert_eq!(look(1, 1, 1, 5), times(1, 1, 1));
        assert_eq!(look(2, 1, 7, 9), times(1, 7, 2));
        assert_eq!(look(2, 1, 7, 608), None, "forgotten");
        assert_eq!(
            look(3, 1, 700, 700),
            times(700, 700, 3),
            "of that one alone"
        );
    }
}
