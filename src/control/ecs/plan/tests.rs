//! Timetables of what is asked of an ECS in a few lines: `5 count` is a count at the fifth second.

use super::*;
use crate::domain::ecs::Out;

fn second(second: u64) -> Moment {
    Moment::after_boot(Duration::from_secs(second))
}

/// The claim with this stamp.
fn claim(at: i64) -> Claim {
    Claim {
        at: jiff::Timestamp::from_second(at).unwrap(),
        cause: "gpu.lost".into(),
    }
}

fn place(tasks: Option<u32>) -> Option<Place> {
    Some(Place {
        cluster: "yard".into(),
        container_instance: "arn:own".into(),
        tasks,
    })
}

/// What happens in the world.
#[derive(Clone)]
enum Event {
    Want(Want),
    Place(Option<Place>),
    Status(Status),
    OnRecord(Option<Claim>),
    Tasks(u32),
    /// These calls fail from now on.
    Deny(&'static [&'static str]),
    /// These calls work, and nobody hears of it.
    Cut(&'static [&'static str]),
}

struct World {
    own: Own,
    denied: &'static [&'static str],
    cut: &'static [&'static str],
}

impl World {
    fn new() -> Self {
        World {
            own: Own {
                at: Moment::BOOT,
                status: Status::Active,
                claim: None,
                running: 2,
                pending: 0,
            },
            denied: &[],
            cut: &[],
        }
    }

    fn make(&mut self, call: &Call, now: Moment) -> Result<Answer, TroubleKind> {
        let name = name(call);
        if self.denied.contains(&name) {
            return Err(TroubleKind::Denied);
        }
        let mut own = self.own.clone();
        own.at = now;
        let answer = match call {
            Call::Look => Answer::Own(own),
            Call::Count => {
                let cluster = Cluster {
                    at: now,
                    external: 2,
                    out: Vec::<Out>::new(),
                };
                Answer::Counted(cluster, own)
            }
            Call::Claim(claim) => self.done(|own| own.claim = Some(claim.clone())),
            Call::Unclaim => self.done(|own| own.claim = None),
            Call::Drain => self.done(|own| own.status = Status::Draining),
            Call::Activate => self.done(|own| own.status = Status::Active),
        };
        if self.cut.contains(&name) {
            return Err(TroubleKind::Unreachable);
        }
        Ok(answer)
    }

    fn done(&mut self, change: impl FnOnce(&mut Own)) -> Answer {
        change(&mut self.own);
        Answer::Done
    }
}

fn name(call: &Call) -> &'static str {
    match call {
        Call::Look => "look",
        Call::Count => "count",
        Call::Claim(_) => "claim",
        Call::Unclaim => "unclaim",
        Call::Drain => "drain",
        Call::Activate => "activate",
    }
}

/// Lives through the events until the last second, and returns the calls with their seconds, and troubles as they come
/// and go.
fn live(events: &[(u64, Event)], last: u64) -> String {
    let mut world = World::new();
    let mut plan = Plan::new(1.0);
    let (mut want, mut at) = (Want::Nothing, place(None));
    let mut said = Vec::new();
    let mut now = 0;
    let mut trouble = None;
    loop {
        for (_, event) in events.iter().filter(|(when, _)| *when == now) {
            match event.clone() {
                Event::Want(new) => want = new,
                Event::Place(new) => at = new,
                Event::Status(status) => world.own.status = status,
                Event::OnRecord(claim) => world.own.claim = claim,
                Event::Tasks(tasks) => world.own.running = tasks,
                Event::Deny(names) => world.denied = names,
                Event::Cut(names) => world.cut = names,
            }
        }
        let moment = second(now);
        plan.take(&want, at.as_ref(), moment);
        while let Next::Call(call) = plan.next(moment) {
            said.push(format!("{now} {}", name(&call)));
            match world.make(&call, moment) {
                Ok(answer) => plan.answered(&call, answer, moment, moment),
                Err(kind) => {
                    let said = name(&call).to_owned();
                    let trouble = Trouble { kind, said };
                    plan.failed(call, trouble, moment + Duration::from_secs(10));
                }
            }
            assert!(said.len() < 100, "it never rests: {said:?}");
        }
        let new = plan.view().trouble.as_ref().map(|trouble| trouble.kind);
        if new != trouble {
            said.push(match new {
                Some(kind) => format!("{now} {kind:?}!"),
                None => format!("{now} well"),
            });
            trouble = new;
        }
        let woken = match plan.next(moment) {
            Next::Wait(until) => until.since_boot().as_secs_f64().ceil() as u64,
            Next::Call(_) | Next::Rest => last + 1,
        };
        let coming = events
            .iter()
            .map(|(when, _)| *when)
            .filter(|when| now < *when);
        now = coming.min().unwrap_or(last + 1).min(woken);
        if last < now {
            return said.join(", ");
        }
    }
}

fn check(what: &str, events: &[(u64, Event)], last: u64, expected: &str) {
    assert_eq!(live(events, last), expected, "{what}");
}

#[test]
fn in_service_it_looks_now_and_then() {
    use Event::*;
    check("nothing is wanted", &[], 9_999, "");
    let stay = (0, Want(super::Want::Stay));
    check(
        "a look changes nothing",
        &[
            (0, Status(super::Status::Draining)),
            (0, OnRecord(Some(claim(7)))),
            (0, Want(super::Want::Look)),
        ],
        1_800,
        "0 look, 1800 look",
    );
    check(
        "in service",
        std::slice::from_ref(&stay),
        3_600,
        "0 look, 1800 look, 3600 look",
    );
    check(
        "an operator's drain is left alone",
        &[stay.clone(), (0, Status(super::Status::Draining))],
        1_800,
        "0 look, 1800 look",
    );
    check(
        "what was left behind is taken back",
        &[
            (0, Status(super::Status::Draining)),
            (0, OnRecord(Some(claim(7)))),
            stay.clone(),
        ],
        1_000,
        "0 look, 0 activate, 0 unclaim",
    );
    check(
        "a claim that led to nothing",
        &[(0, OnRecord(Some(claim(7)))), (0, Want(super::Want::LetBe))],
        59,
        "0 look, 0 unclaim",
    );
    check(
        "what was just set to DRAINING may be seen as it was before",
        &[(0, OnRecord(Some(claim(7)))), stay.clone()],
        1_000,
        "0 look, 0 activate, 0 unclaim",
    );
    check(
        "tasks that leave are looked after",
        &[
            (0, Place(place(Some(2)))),
            stay.clone(),
            (50, Place(place(Some(3)))),
            (60, Place(place(Some(2)))),
        ],
        1_000,
        "0 look, 60 look",
    );
    check(
        "the machine is registered anew",
        &[
            stay,
            (
                60,
                Place(Some(super::Place {
                    cluster: "yard".into(),
                    container_instance: "arn:other".into(),
                    tasks: None,
                })),
            ),
        ],
        1_000,
        "0 look, 60 look",
    );
}

#[test]
fn a_claim_is_put_and_counted_after() {
    use Event::*;
    let wanted = |at, stamp| (at, Want(super::Want::Count(claim(stamp))));
    check(
        "before its hold is over nothing is counted",
        &[(0, Want(super::Want::Claim(claim(0)))), wanted(60, 0)],
        60,
        "0 claim, 0 look, 60 count",
    );
    check(
        "held back, ever more seldom",
        &[wanted(0, 0)],
        200,
        "0 claim, 0 count, 15 count, 45 count, 75 count, 135 count",
    );
    check(
        "stamped anew",
        &[wanted(0, 0), wanted(2, 2)],
        30,
        "0 claim, 0 count, 2 claim, 2 count, 17 count",
    );
    check(
        "withdrawn",
        &[wanted(0, 0), (3, Want(super::Want::LetBe))],
        59,
        "0 claim, 0 count, 3 unclaim",
    );
    check(
        "taken off by somebody",
        &[wanted(0, 0), (20, OnRecord(None))],
        60,
        "0 claim, 0 count, 15 count, 45 count, 45 claim, 60 count",
    );
}

#[test]
fn a_drain_goes_there_and_back() {
    use Event::*;
    let wanted = |at, stamp| (at, Want(super::Want::Drain(claim(stamp))));
    check(
        "after its claim",
        &[
            (0, Want(super::Want::Count(claim(0)))),
            wanted(1, 0),
            (12, Tasks(0)),
        ],
        140,
        "0 claim, 0 count, 1 drain, 1 look, 6 look, 11 look, 16 look, 136 look",
    );
    check(
        "and back",
        &[wanted(0, 0), (0, Tasks(0)), (150, Want(super::Want::Stay))],
        160,
        "0 look, 0 claim, 0 drain, 0 look, 120 look, 150 activate, 150 unclaim",
    );
    check(
        "found as it was left",
        &[
            (0, Status(super::Status::Draining)),
            (0, OnRecord(Some(claim(0)))),
            (0, Tasks(0)),
            wanted(0, 0),
        ],
        120,
        "0 look, 120 look",
    );
    check(
        "drained by somebody since it was looked at",
        &[
            (0, Want(super::Want::Look)),
            (5, Status(super::Status::Draining)),
            wanted(9, 9),
        ],
        160,
        "0 look, 9 look, 129 look",
    );
    check(
        "undone by somebody",
        &[
            wanted(0, 0),
            (0, Tasks(0)),
            (10, Status(super::Status::Active)),
        ],
        121,
        "0 look, 0 claim, 0 drain, 0 look, 120 look",
    );
    check(
        "undone by somebody, and wanted again for another reason",
        &[
            wanted(0, 0),
            (0, Tasks(0)),
            (10, Status(super::Status::Active)),
            wanted(121, 121),
        ],
        121,
        "0 look, 0 claim, 0 drain, 0 look, 120 look, 121 claim, 121 drain, 121 look",
    );
    check(
        "somebody else's",
        &[wanted(0, 0), (0, Tasks(0)), (9, Want(super::Want::LetBe))],
        140,
        "0 look, 0 claim, 0 drain, 0 look, 9 unclaim, 120 look",
    );
    check(
        "while it is deregistered",
        &[wanted(0, 0), (0, Status(super::Status::Other))],
        121,
        "0 look, 0 claim, 120 look",
    );
}

#[test]
fn what_fails_is_tried_again_and_told() {
    use Event::*;
    let claimed = (0, Want(super::Want::Count(claim(0))));
    let drained = (0, Want(super::Want::Drain(claim(0))));
    check(
        "the claim is denied",
        &[claimed.clone(), (0, Deny(&["claim"])), (15, Deny(&[]))],
        21,
        "0 claim, 0 Denied!, 10 claim, 20 claim, 20 count, 20 well",
    );
    check(
        "the count is denied",
        &[claimed.clone(), (0, Deny(&["count"])), (15, Deny(&[]))],
        21,
        "0 claim, 0 count, 0 Denied!, 10 count, 20 count, 20 well",
    );
    check(
        "no longer wanted",
        &[claimed, (0, Deny(&["claim"])), (3, Want(super::Want::Stay))],
        100,
        "0 claim, 0 Denied!, 3 look, 3 well",
    );
    check(
        "the drain is denied, which no look cures",
        &[drained.clone(), (0, Deny(&["drain"])), (15, Deny(&[]))],
        21,
        "0 look, 0 claim, 0 drain, 0 Denied!, 10 look, 10 drain, 20 look, 20 drain, 20 look, 20 well",
    );
    check(
        "the drain came through, but not its answer",
        &[drained.clone(), (0, Cut(&["drain"]))],
        14,
        "0 look, 0 claim, 0 drain, 0 Unreachable!, 10 look, 10 well",
    );
    check(
        "drained by somebody before the claim is allowed",
        &[
            drained,
            (0, Deny(&["claim"])),
            (5, Status(super::Status::Draining)),
            (6, Deny(&[])),
        ],
        60,
        "0 look, 0 claim, 0 Denied!, 10 look, 10 well",
    );
}

#[test]
fn without_an_ecs_agent_it_says_so_after_a_minute() {
    use Event::*;
    let stay = (100, Want(super::Want::Stay));
    check(
        "never",
        &[(0, Place(None)), stay.clone()],
        9_999,
        "160 NoAgent!",
    );
    check(
        "late",
        &[(0, Place(None)), stay.clone(), (200, Place(place(None)))],
        1_000,
        "160 NoAgent!, 200 look, 200 well",
    );
    check(
        "in time",
        &[(0, Place(None)), stay, (130, Place(place(None)))],
        1_000,
        "130 look",
    );
}
