//! What holds a drain back, and what does not.

use super::*;

fn out(name: &str, gone: bool, claim: Option<(&str, i64)>) -> Out {
    Out {
        arn: OWN.replace("/m", name),
        gone,
        claim: claim.map(|(cause, second)| Claim {
            at: Timestamp::from_second(1_000_000 + second).unwrap(),
            cause: cause.to_owned(),
        }),
    }
}

#[test]
fn never_more_than_the_share_of_the_cluster() {
    // The node claims at 101 s. Of `external` nodes: are these out, may it drain?
    for (external, others, slow, fast) in [
        (4, vec![], true, true),
        (2, vec![], true, true),
        (1, vec![], false, false),
        (4, vec![out("/a", true, None)], true, true),
        (
            4,
            vec![out("/a", true, None), out("/b", true, None)],
            false,
            false,
        ),
        // A claim counts as out: the earlier one always, a later one only for those who do not wait.
        (2, vec![out("/a", false, Some(("x", 100)))], false, false),
        (2, vec![out("/z", false, Some(("x", 102)))], true, false),
        // Of two in one second the lesser name goes first.
        (2, vec![out("/a", false, Some(("x", 101)))], false, false),
        (2, vec![out("/z", false, Some(("x", 101)))], true, false),
    ] {
        for (seen, may) in [("f".repeat(20), slow), ("F".repeat(4), fast)] {
            let mut world = World::of(external);
            world.out.clone_from(&others);
            let mut run = Run::new(settings(), world);
            let stood = run.go(&seen);
            assert_eq!(
                stood.contains('g'),
                may,
                "{external} {others:?} {seen}: {stood}"
            );
            let held = run.failover.held_back();
            assert_eq!(
                held.is_none(),
                may,
                "{external} {others:?} {seen}: {held:?}"
            );
        }
    }
}

#[test]
fn who_is_held_back_drains_when_the_others_are_back() {
    let mut world = World::of(2);
    world.out = vec![out("/a", true, None)];
    let mut run = Run::new(settings(), world);
    assert_eq!(run.go("FFFFFF"), "hhhhhh");
    let why = run.failover.held_back().unwrap();
    assert!(why.starts_with("2 of 2 external nodes"), "{why}");
    run.world.out.clear();
    assert_eq!(run.go("FFF"), "hgg");
}

#[test]
fn what_cannot_be_counted_is_not_drained() {
    let mut world = World::of(4);
    world.denied = true;
    let mut run = Run::new(settings(), world);
    assert_eq!(run.go("FFFFFFFFFF"), "hhhhhhhhhh");
    let why = run.failover.held_back().unwrap();
    assert_eq!(why, "the cluster can't be counted: denied");
    // And drained when it can; the claim, stamped long before, is stamped anew.
    run.world.denied = false;
    assert_eq!(run.go("FFFFF"), "hhggg", "{}", run.told);
}

#[test]
fn a_driver_that_may_be_the_culprit_drains_nobody() {
    // Changed so long before the fault; the other's trouble, and how many seconds after ours; whether the node drains.
    for (ago, other, may) in [
        (60, Some(("gpu.hung", -1_800)), false),
        (60, Some(("gpu.hung", 0)), false),
        (60, Some(("gpu.hung", 1_800)), false),
        (60, Some(("gpu.hung", 1_801)), true),
        (60, Some(("gpu.lost", 0)), true),
        (60, None, true),
        (1_800, Some(("gpu.hung", 1)), true),
    ] {
        let mut run = Run::new(settings(), World::of(10));
        run.second = 3_000;
        run.driver_changed = Some(Moment::after_boot(Duration::from_secs(3_000 - ago)));
        // After a change a node waits for its turn to claim.
        let waits = (0..700).take_while(|_| run.go("f") == "h" && run.world.calls.is_empty());
        assert_eq!(waits.count() > 10, ago == 60, "{ago}");
        let ours = run.world.ecs.claimed.clone().unwrap().0.at.as_second();
        let other = other.map(|(cause, after)| (cause, ours - 1_000_000 + after));
        run.world.out = vec![out("/z", false, other)];
        // However long it lasts.
        let stood = run.go(&"f".repeat(2_000));
        assert_eq!(stood.contains('g'), may, "{ago} {other:?}: {stood}");
    }
}

#[test]
fn a_configuration_that_may_be_the_culprit_drains_nobody() {
    // Changed so long before the fault, and whether it proves dead hardware; whether the node drains.
    for (ago, seen, may) in [
        (0, "f", false),
        (1_799, "f", false),
        (1_801, "f", true),
        (60, "F", true),
    ] {
        let mut run = Run::new(settings(), World::of(10));
        run.second = 3_000;
        run.configured = Some(Moment::after_boot(Duration::from_secs(3_001 - ago)));
        let stood = run.go(&seen.repeat(2_000));
        assert_eq!(stood.contains('g'), may, "{ago} {seen}");
        assert_eq!(run.failover.held_back().is_none(), may, "{ago} {seen}");
        assert_eq!(run.world.calls.is_empty(), !may, "ECS is not even asked");
        // Rolled back, which is one more change, it is no more drained than before, and well again it is.
        run.configured = Some(run.now().moment);
        let stood = run.go(&(seen.repeat(9) + "HHHHHH"));
        assert!(!stood.contains('g'), "{ago} {seen}");
        assert!(stood.ends_with('I'), "{ago} {seen}: {stood}");
    }
}

#[test]
fn not_more_often_than_so_many_times_a_day() {
    let settings = Settings {
        max_drains_a_day: 2,
        ..settings()
    };
    let mut run = Run::new(settings, World::of(4));
    let once = "FFFFFHHHHHH";
    assert_eq!(run.go(once), "hgggDppppII");
    run.restart();
    assert_eq!(run.go(once), "hgggDppppII");
    assert_eq!(run.go("FFF"), "hhh");
    let why = run.failover.held_back().unwrap();
    assert!(why.contains("max_drains_a_day"), "{why}");
    run.second = run.failover.due().unwrap().since_boot().as_secs() - 2;
    assert_eq!(run.go("FF"), "hg", "{}", run.told);
}
