//! Timetables: a character a second, what is seen above, where the node stands below.

mod guards;
mod worse;

use std::fmt::Write as _;

use jiff::Timestamp;

use super::*;
use crate::domain::ecs::{Cluster, Out, Trouble, TroubleKind};
use crate::domain::finding::Subject;

const OWN: &str = "arn:aws:ecs:eu-west-1:1:container-instance/yard/m";

/// ECS as this node sees it: does at once what is wanted, and its tasks leave two seconds later.
#[derive(Default)]
struct World {
    ecs: EcsView,
    /// The others.
    out: Vec<Out>,
    external: u32,
    /// Refuses everything.
    denied: bool,
    drained_at: Option<Moment>,
    /// Calls that changed something.
    calls: String,
}

impl World {
    fn of(external: u32) -> Self {
        let mut world = World {
            external,
            ..World::default()
        };
        world.ecs.own = Some(Own {
            at: Moment::BOOT,
            status: Status::Active,
            claim: None,
            running: 3,
            pending: 0,
        });
        world
    }

    fn own(&mut self) -> &mut Own {
        self.ecs.own.as_mut().unwrap()
    }

    fn set(&mut self, status: Status, now: Moment) {
        self.own().status = status;
        self.drained_at = (status == Status::Draining).then_some(now);
    }

    /// What the control task would do until the next second.
    fn act(&mut self, want: &Want, now: Moment) {
        if *want == Want::Nothing {
            return;
        }
        if self.denied {
            self.ecs.trouble = Some(Trouble {
                kind: TroubleKind::Denied,
                said: "denied".to_owned(),
            });
            return;
        }
        self.ecs.trouble = None;
        let claim = want.claim().cloned();
        let releases = *want == Want::Stay && self.own().claim.is_some();
        let status = match want {
            Want::Drain(_) => Status::Draining,
            Want::Stay if releases => Status::Active,
            Want::Nothing
            | Want::Look
            | Want::Stay
            | Want::LetBe
            | Want::Claim(_)
            | Want::Count(_) => self.own().status,
        };
        if self.own().claim != claim && *want != Want::Look {
            self.calls.push(if claim.is_some() { '+' } else { '-' });
            self.ecs.claimed = claim.clone().map(|claim| (claim, now));
            self.own().claim = claim;
        }
        if self.own().status != status {
            let mark = if status == Status::Draining { 'D' } else { 'A' };
            self.calls.push(mark);
            self.set(status, now);
        }
        let left = self
            .drained_at
            .is_some_and(|at| now - at >= Duration::from_secs(2));
        let own = self.own();
        own.at = now;
        own.running = if left { 0 } else { 3 };
        self.ecs.cluster = Some(Cluster {
            at: now,
            external: self.external,
            out: self.out.clone(),
        });
    }
}

fn finding(code: Code) -> Finding {
    Finding::seen_once(code, Subject::Agent, Severity::Failing)
}

fn settings() -> Settings {
    Settings {
        mode: FailoverMode::Drain,
        hold: Duration::from_secs(6),
        probation: Duration::from_secs(4),
        max_unfit_share: 0.5,
        ..Settings::default()
    }
}

/// Goes through a timetable. Seen: `H` healthy, `d` degraded, `p` failing with a part left, `f` failing, `F` with a
/// fault that proves dead hardware, `w` failing while it waits for proof, `?` unknown; `o` and `a` are healthy and
/// somebody drains or activates the node in ECS, `O` and `A` the same while failing.
struct Run {
    failover: Failover,
    settings: Settings,
    world: World,
    configured: Option<Moment>,
    driver_changed: Option<Moment>,
    second: u64,
    /// Seconds that the wall's clock is ahead.
    ahead: i64,
    told: String,
}

impl Run {
    fn new(settings: Settings, world: World) -> Self {
        Run {
            failover: Failover::default(),
            settings,
            world,
            configured: None,
            driver_changed: None,
            second: 100,
            ahead: 0,
            told: String::new(),
        }
    }

    fn now(&self) -> Now {
        Now {
            moment: Moment::after_boot(Duration::from_secs(self.second)),
            wall: Timestamp::from_second(1_000_000 + self.second as i64 + self.ahead).unwrap(),
            sure: true,
        }
    }

    /// One look a character; the states that came of it.
    fn go(&mut self, seen: &str) -> String {
        let mut stood = String::new();
        for mark in seen.chars() {
            self.second += 1;
            let now = self.now();
            match mark {
                'o' | 'O' => self.world.set(Status::Draining, now.moment),
                'a' | 'A' => self.world.set(Status::Active, now.moment),
                _ => {}
            }
            let (verdict, available, cause) = match mark {
                'H' | 'o' | 'a' => (State::Healthy, 18, None),
                'd' => (State::Degraded, 18, None),
                'p' => (State::Failing, 9, Some(Code::GpuLost)),
                'f' | 'O' | 'A' => (State::Failing, 0, Some(Code::GpuHung)),
                'F' => (State::Failing, 0, Some(Code::GpuXid(79))),
                'w' => (State::Failing, 0, None),
                '?' => (State::Unknown, 18, None),
                mark => panic!("{mark}"),
            };
            let cause = cause.map(finding);
            let cause = cause.as_ref().map(|finding| Cause {
                finding,
                proven: mark == 'F',
            });
            let place = Place {
                cluster: "yard".to_owned(),
                container_instance: OWN.to_owned(),
                tasks: None,
            };
            let ecs = self.world.ecs.clone();
            let seen = Seen {
                verdict,
                carries: Capacity {
                    slots: 18,
                    available,
                    because: (available < 18).then_some(Because::Verdict),
                },
                cause,
                place: Some(&place),
                ecs: &ecs,
                configured: self.configured,
                driver_changed: self.driver_changed,
                settings: &self.settings,
            };
            for step in self.failover.decide(seen, now) {
                match step {
                    Step::State { state, why, .. } => {
                        writeln!(self.told, "{} {}: {why}", self.second, state.name()).unwrap();
                    }
                    Step::DrillStarted(drill) => {
                        writeln!(self.told, "{} drill of {}", self.second, drill.slots).unwrap();
                    }
                    Step::DrillEnded => writeln!(self.told, "{} drill over", self.second).unwrap(),
                }
            }
            stood.push(match self.failover.kept().state() {
                FailoverState::InService => 'I',
                FailoverState::Holding => 'h',
                FailoverState::Draining => 'g',
                FailoverState::Drained => 'D',
                FailoverState::Probation => 'p',
                FailoverState::Maintenance => 'm',
            });
            let due = self.failover.due();
            assert!(due.is_none_or(|due| due > now.moment), "{mark}: {due:?}");
            let want = self.failover.want().clone();
            self.world.act(&want, now.moment);
        }
        stood
    }

    /// A new agent with what the old one kept.
    fn restart(&mut self) {
        let kept = serde_json::to_string(self.failover.kept()).unwrap();
        self.failover = Failover::new(serde_json::from_str(&kept).unwrap());
    }

    fn reboot(&mut self) {
        let mut kept = self.failover.kept().clone();
        kept.begin_boot();
        self.failover = Failover::new(kept);
    }
}

fn check(seen: &str, expected: &str, calls: &str) {
    let mut run = Run::new(settings(), World::of(4));
    let stood = run.go(seen);
    assert_eq!(stood, expected, "{seen}\n{}", run.told);
    assert_eq!(run.world.calls, calls, "{seen}\n{}", run.told);
}

#[test]
fn from_service_to_drained_and_back() {
    // What waits for its hold is claimed, then drained; its tasks leave; sound for four seconds, and it is back.
    let (seen, stood) = (
        "HfffffffffffffffffffffHHHHHHH",
        "IhhhhhhhhhhhhhhhhgggDDppppIII",
    );
    check(seen, stood, "+D-A");
    // A fault that proves dead hardware waits only for the count.
    check("HFFFFFF", "IhgggDD", "+D");
}

#[test]
fn dead_is_only_what_is_dead() {
    let of = |code, card: &str| Finding {
        subject: Subject::Gpu(card.into()),
        ..finding(code)
    };
    let (lost, hot, xid) = (Code::GpuLost, Code::GpuHot, Code::GpuXid(79));
    // What is open, of so many cards; the finding to be drained for, and whether it proves anything.
    for (open, cards, expected) in [
        (vec![], 2, None),
        (vec![of(hot, "a")], 1, Some((hot, false))),
        (vec![of(lost, "a")], 1, Some((lost, true))),
        (vec![of(lost, "a"), of(xid, "b")], 2, Some((xid, true))),
        // One card is dead; that the other is hot proves nothing.
        (vec![of(lost, "a"), of(hot, "b")], 2, Some((hot, false))),
        (vec![of(lost, "a"), of(hot, "a")], 1, Some((lost, true))),
        (
            vec![finding(Code::HostFsReadonly), of(lost, "a")],
            2,
            Some((Code::HostFsReadonly, false)),
        ),
    ] {
        let cause = Cause::of(open.iter(), 18, Some(cards));
        let cause = cause.map(|cause| (cause.finding.code, cause.proven));
        assert_eq!(cause, expected, "{open:?} of {cards}");
    }
}

#[test]
fn what_does_not_drain() {
    // A fault that goes within the hold.
    check("HfffHHH", "IhhhIII", "+-");
    // Not knowing, alone or within the hold; nor a verdict that only waits for proof.
    check("H?????????", "IIIIIIIIII", "");
    check("Hff????????", "Ihhhhhhhhhh", "+");
    check("Hffwwwwwwww", "Ihhhhhhhhhh", "+");
    // A card whose work the others carry.
    check("Hppppppppp", "IIIIIIIIII", "");
}

#[test]
fn probation_starts_anew_when_it_fails_and_waits_while_nobody_knows() {
    check("FFFFFHHfHHHHHH", "hgggDppDppppII", "+D-A");
    check("FFFFFHH?HHHHH", "hgggDppppIIII", "+D-A");
    check("FFFFFHH???HHH", "hgggDpppppIII", "+D-A");
    // What is only waiting for proof is not sound yet.
    check("FFFFFwwwHHHHHH", "hgggDDDDppppII", "+D-A");
    let mut run = Run::new(settings(), World::of(4));
    assert_eq!(run.go("FFFFFHH"), "hgggDpp");
    // Nothing known for more than a minute: the four seconds count from there.
    run.go(&"?".repeat(63));
    assert_eq!(run.go("HHHHHH"), "ppppII", "{}", run.told);
}

#[test]
fn somebody_else_drains_or_activates() {
    // An operator's drain is respected, whatever the verdict, until the operator ends it.
    check("HoHHHaHH", "ImmmmIII", "");
    check("HOffffffffff", "Immmmmmmmmmm", "");
    check("HffOfffffaHH", "IhhmmmmmmIII", "+-");
    // Who activates a node that sideline has drained means it: not again for the same fault.
    let (seen, stood) = ("F".repeat(40), "hggg".to_owned() + &"D".repeat(36));
    check(
        &(seen.clone() + "Afffff"),
        &(stood.clone() + "IIIIII"),
        "+D-",
    );
    let (seen, stood) = (seen + "AffHHFFF", stood + "IIIIIhgg");
    check(&seen, &stood, "+D-+D");
    // Right after the drain, that may be an answer from before it.
    check("FFFFFAf", "hgggDDD", "+DD");
}

#[test]
fn observe_goes_the_same_way_and_asks_nothing() {
    let settings = Settings {
        mode: FailoverMode::Observe,
        ..settings()
    };
    let mut run = Run::new(settings, World::of(1));
    assert_eq!(
        run.go("HfffffffffHHHHHH"),
        "IhhhhhhDDDppppII",
        "{}",
        run.told
    );
    assert_eq!(run.world.calls, "");
}

#[test]
fn maintenance_by_hand() {
    let minute = Duration::from_secs(60);
    // What is seen while it lasts, how it ends, what follows.
    for (during, by_hand, after, stood) in [
        ("HHHH", true, "HHH", "III"),
        ("HHHH", false, "HHH", "III"),
        ("ffff", true, "ffH", "DDp"),
        ("?ff?", true, "??f", "III"),
    ] {
        let mut run = Run::new(settings(), World::of(1));
        run.go("H");
        let now = run.now();
        let order = Order::Maintain {
            length: minute,
            reason: "new lens".to_owned(),
        };
        run.failover.obey(order, now);
        assert_eq!(run.go(during), "mmmm");
        assert_eq!(run.world.calls, "+D", "guards do not count");
        let offer = |run: &Run| {
            let whole = Capacity {
                slots: 18,
                available: 18,
                because: None,
            };
            run.failover.offer(whole, FailoverMode::Drain)
        };
        assert_eq!(offer(&run).because, Some(Because::Maintenance));
        if by_hand {
            run.failover.obey(Order::Resume, run.now());
        } else {
            run.go(&"H".repeat(54));
            assert_eq!(run.go("H"), "m");
        }
        assert_eq!(
            run.go(after).chars().next(),
            stood.chars().next(),
            "{during} {after}\n{}",
            run.told
        );
    }
}

#[test]
fn a_drill_ends_by_itself() {
    let whole = Capacity {
        slots: 18,
        available: 18,
        because: None,
    };
    let mut run = Run::new(settings(), World::of(4));
    run.go("H");
    let now = run.now();
    let drill = |seconds| Order::Drill {
        length: Duration::from_secs(seconds),
        slots: 4,
    };
    run.failover.obey(drill(5), now);
    assert_eq!(run.go("HH"), "II");
    let offered = run.failover.offer(whole, FailoverMode::Drain);
    assert_eq!(
        (offered.available, offered.because),
        (4, Some(Because::Drill))
    );
    run.restart();
    assert_eq!(run.go("HHH"), "III");
    assert_eq!(run.failover.offer(whole, FailoverMode::Drain), whole);
    assert_eq!(run.told, "102 drill of 4\n106 drill over\n");
    // A real fault goes on under it, and what is real is what is told.
    run.failover.obey(drill(50), run.now());
    assert_eq!(run.go("FFFFF"), "hgggD");
    let offered = run.failover.offer(whole, FailoverMode::Drain);
    assert_eq!(
        (offered.available, offered.because),
        (0, Some(Because::Verdict))
    );
    run.failover.obey(Order::EndDrill, run.now());
    run.go("F");
    assert!(run.told.ends_with("drill over\n"), "{}", run.told);
    assert_eq!(run.world.calls, "+D");
}
