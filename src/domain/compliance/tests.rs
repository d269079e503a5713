//! Compliance by its timetable, and items by their words.

use super::super::finding::{Code, Subject};
use super::super::report::test_report;
use super::*;

const NODE: &str = "mi-0123456789abcdef0";

fn second(count: u64) -> Moment {
    Moment::after_boot(Duration::from_secs(count))
}

fn finding(code: Code, subject: Subject, severity: Severity) -> Finding {
    Finding::seen_once(code, subject, severity)
}

/// A node with these GPUs in trouble.
fn report(state: State, hot: &[&str]) -> Report {
    let card = |id: &&str| {
        finding(
            Code::GpuHot,
            Subject::Gpu((*id).to_owned()),
            Severity::Degraded,
        )
    };
    test_report(state, hot.iter().map(card).collect())
}

/// The seconds at which it is told, where the node is so from these seconds on, for `until` seconds, and SSM takes it.
fn told(changes: &[(u64, Report)], until: u64) -> Vec<u64> {
    let mut compliance = Compliance::new(NODE, second(0));
    // Only what this node's name adds to the first is left out.
    compliance.not_before = second(0);
    let mut told = Vec::new();
    for at in 0..until {
        let (_, report) = changes.iter().rev().find(|(from, _)| *from <= at).unwrap();
        compliance.take_in(report, second(at));
        if compliance.due().unwrap() <= second(at) {
            let items = compliance.items().to_vec();
            compliance.told(&items, second(at));
            told.push(at);
        }
    }
    told
}

#[test]
fn it_is_told_when_it_has_settled_and_once_a_day() {
    let well = || report(State::Healthy, &[]);
    let sick = || report(State::Degraded, &["GPU-1"]);
    let unknown = || report(State::Unknown, &[]);
    let flapping: Vec<_> = (0..40)
        .map(|turn| (20 * turn, if turn % 2 == 0 { well() } else { sick() }))
        .collect();
    let day = phase::of(NODE, DAY).as_secs() + 1;
    for (changes, until, expected) in [
        (vec![(0, well())], 1_000, vec![30]),
        (vec![(0, well()), (100, sick())], 1_000, vec![30, 130]),
        // Nobody knows at the start, which is not worth telling.
        (vec![(0, unknown()), (20, well())], 1_000, vec![50]),
        (vec![(0, unknown())], 1_000, vec![180]),
        // It comes and goes.
        (
            vec![(0, well()), (100, sick()), (110, well())],
            1_000,
            vec![30],
        ),
        // One call a minute.
        (vec![(0, well()), (31, sick())], 1_000, vec![30, 90]),
        // What never settles is told once, and again when it stays otherwise.
        (flapping, 1_000, vec![300]),
        (
            vec![(0, well())],
            day + 100_000,
            vec![30, day, day + DAY.as_secs()],
        ),
    ] {
        assert_eq!(told(&changes, until), expected);
    }
}

#[test]
fn what_ssm_has_not_taken_is_told_as_it_is_then() {
    let mut compliance = Compliance::new(NODE, second(0));
    compliance.take_in(&report(State::Degraded, &["GPU-1"]), second(0));
    assert!(compliance.due() >= Some(second(30)));
    compliance.failed(second(100));
    assert_eq!(compliance.due(), Some(second(100)));
    compliance.take_in(&report(State::Healthy, &[]), second(90));
    assert_eq!(compliance.due(), Some(second(120)));
    assert_eq!(compliance.items()[0].status, "COMPLIANT");
}

#[test]
fn a_finding_becomes_an_item() {
    let long = "x".repeat(500);
    let found = vec![
        finding(Code::AgentEcs, Subject::Agent, Severity::Info),
        finding(Code::CameraDown, Subject::Camera(long), Severity::Degraded),
        finding(
            Code::GpuXid(79),
            Subject::Gpu("GPU-1".into()),
            Severity::Failing,
        ),
    ];
    let items = items(&test_report(State::Failing, found));
    let told: Vec<_> = items
        .iter()
        .map(|item| {
            (
                &item.id[..item.id.len().min(20)],
                item.severity,
                item.status,
            )
        })
        .collect();
    let expected = [
        ("gpu.xid.79 gpu:GPU-1", "CRITICAL", "NON_COMPLIANT"),
        ("camera.down camera:x", "HIGH", "NON_COMPLIANT"),
        ("agent.ecs agent", "INFORMATIONAL", "COMPLIANT"),
    ];
    assert_eq!(told, expected);
    assert_eq!(items[1].id.len(), LONGEST_ID);
    assert_eq!(items[1].title, "no picture");
    assert_eq!(items[0].details["Advice"], "none");
}

#[test]
fn many_findings_are_cut_and_counted() {
    let down = |number: u32| {
        let subject = Subject::Camera(format!("hole{number:04}"));
        finding(Code::CameraDown, subject, Severity::Degraded)
    };
    let items = items(&test_report(
        State::Degraded,
        (0..1_000).map(down).collect(),
    ));
    assert_eq!(items.len(), MOST_ITEMS + 1);
    assert_eq!(
        items[MOST_ITEMS].title,
        "800 more; `sideline status` lists them"
    );
}
