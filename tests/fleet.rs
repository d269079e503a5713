//! The fleet simulation, small: what must hold whatever happens to forty nodes in a day.

#[path = "../examples/fleet/calls.rs"]
mod calls;
#[path = "../examples/fleet/cloud.rs"]
mod cloud;
#[path = "../examples/fleet/control.rs"]
mod control;
#[path = "../examples/fleet/ecs.rs"]
mod ecs;
#[path = "../examples/fleet/losses.rs"]
mod losses;
#[path = "../examples/fleet/node.rs"]
mod node;
#[path = "../examples/fleet/plan.rs"]
mod plan;
#[path = "../examples/fleet/run.rs"]
mod run;
#[path = "../examples/fleet/table.rs"]
mod table;

use std::time::Duration;

use sideline::config::Failover;

use cloud::Stack;
use plan::Plan;
use run::Outcome;

/// Two sites in one cluster, and time enough for all that breaks to be mended.
const PLAN: Plan = Plan {
    nodes: 40,
    lasts: Duration::from_secs(86_400),
    settles: Duration::from_secs(60 * 3_600),
    seed: 7,
    site: 20,
    cluster: 40,
    slots: 18,
};

fn fleet(failover: Option<Failover>) -> Outcome {
    let stack = Stack {
        required: 0,
        slots_per_task: 18,
        most_tasks: 20,
    };
    run::run(PLAN, stack, &plan::draw(PLAN), failover)
}

fn wrong(outcome: &Outcome, cause: &str) -> u32 {
    outcome.wrong.get(cause).copied().unwrap_or(0)
}

#[test]
fn what_must_hold_with_and_without_guards() {
    for (name, failover) in [
        ("guarded", node::guarded()),
        ("unguarded", node::unguarded()),
    ] {
        let outcome = fleet(Some(failover));
        assert_eq!(outcome.left_out, 0, "{name}: all are back in service");
        assert_eq!(
            outcome.counted_twice, 0,
            "{name}: who is drained offers nothing"
        );
        assert_eq!(outcome.overdue, 0, "{name}: no judge is due in the past");
    }
}

#[test]
fn a_wrong_threshold_for_all_drains_nobody() {
    let unguarded = fleet(Some(node::unguarded()));
    assert_eq!(
        wrong(&unguarded, "gpu.hot"),
        PLAN.nodes,
        "the threshold is wrong enough"
    );
    let guarded = fleet(Some(node::guarded()));
    assert_eq!(wrong(&guarded, "gpu.hot"), 0);
}

#[test]
fn without_the_guard_against_changes_the_share_still_holds() {
    for share in [0.5, 0.25, 0.1] {
        let failover = Failover {
            changes: Duration::ZERO,
            max_unfit_share: share,
            ..node::guarded()
        };
        let outcome = fleet(Some(failover));
        assert!(
            0 < wrong(&outcome, "gpu.hot"),
            "{share}: some drain themselves"
        );
        assert!(
            outcome.worst_share <= share,
            "{} of {share}",
            outcome.worst_share
        );
    }
}

#[test]
fn the_same_seed_tells_the_same_story() {
    let tell = || {
        let runs = [None, Some(node::unguarded()), Some(node::guarded())].map(fleet);
        table::Table::of(PLAN, &runs, Duration::ZERO).to_string()
    };
    let story = tell();
    assert_eq!(story, tell());
    for line in story.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}
