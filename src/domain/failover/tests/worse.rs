//! What happens at the worst moment: restarts between two steps, old answers, a second will.

use super::*;

#[test]
fn what_was_decided_before_a_restart_is_not_done_while_nothing_is_known() {
    let mut run = Run::new(settings(), World::of(4));
    run.go("HF");
    // Decided and kept, and the agent dies before it has asked.
    run.world.denied = true;
    assert_eq!(run.go("F"), "g");
    run.restart();
    run.world.denied = false;
    assert_eq!(run.go("????"), "gggg");
    assert_eq!(run.world.calls, "+");
    assert_eq!(run.go("F"), "g");
    assert_eq!(run.world.calls, "+D");
}

#[test]
fn an_operators_drain_beside_a_claim_of_ours_is_an_operators() {
    // Its claim could not be taken off after the hold; then somebody drains the node.
    let mut run = Run::new(settings(), World::of(4));
    run.go("Hff");
    let left = run.world.own().claim.clone();
    run.go("H");
    run.world.own().claim = left;
    assert_eq!(run.go("oHHaH"), "mmmII", "{}", run.told);
    assert_eq!(run.world.calls, "+--");
}

#[test]
fn maintenance_of_what_an_operator_has_drained_leaves_it_drained() {
    for (hold, calls) in [("", ""), ("ff", "+-")] {
        let mut run = Run::new(settings(), World::of(4));
        run.go("H");
        run.go(hold);
        // Nobody has looked since.
        run.world.set(Status::Draining, run.now().moment);
        let order = Order::Maintain {
            length: Duration::from_secs(5),
            reason: "new lens".to_owned(),
        };
        run.failover.obey(order, run.now());
        assert_eq!(run.go("HHHHHHHH"), "mmmmmmmm", "{}", run.told);
        assert_eq!(run.world.own().status, Status::Draining);
        assert_eq!(run.world.calls, calls);
    }
}

#[test]
fn who_only_observes_brings_back_what_was_drained_before() {
    let mut run = Run::new(settings(), World::of(4));
    assert_eq!(run.go("FFFFF"), "hgggD");
    run.settings.mode = FailoverMode::Observe;
    run.restart();
    assert_eq!(run.go("FFF"), "DDD");
    assert_eq!(run.world.calls, "+D");
    let whole = Capacity {
        slots: 18,
        available: 18,
        because: None,
    };
    assert_eq!(run.go("HHHHHHH"), "ppppIII", "{}", run.told);
    assert_eq!(run.world.calls, "+D-A");
    assert_eq!(*run.failover.want(), Want::Nothing);
    assert_eq!(run.failover.offer(whole, FailoverMode::Observe), whole);
}

#[test]
fn the_memory_does_not_change_while_nothing_happens() {
    for seen in ["H", "f", "F", "?", "FFFFFFH?", "FFFFFFHH"] {
        let mut run = Run::new(settings(), World::of(1 + seen.len() as u32));
        run.go(seen);
        let last = &seen[seen.len() - 1..];
        run.go(&last.repeat(100));
        let kept = run.failover.kept().clone();
        run.go(&last.repeat(100));
        assert_eq!(*run.failover.kept(), kept, "{seen}");
    }
}

#[test]
fn a_claim_with_the_stamp_of_a_wrong_clock_is_stamped_anew() {
    for (ahead, anew) in [(0, false), (3, false), (-3_600, true), (3_600, true)] {
        let mut run = Run::new(settings(), World::of(1));
        run.ahead = ahead;
        run.go("ff");
        let stamped = |run: &Run| run.failover.kept().claim.clone().unwrap().at.as_second();
        let before = stamped(&run);
        // AWS has told the time.
        run.ahead = 0;
        run.go("ff");
        assert_eq!(stamped(&run) != before, anew, "{ahead}");
        let off = stamped(&run) - run.now().wall.as_second();
        assert!(off.abs() < 8, "{ahead}: {off}");
    }
}

#[test]
fn a_restart_goes_on_where_it_stood() {
    // Killed before every second of a whole round, by turns with and without a look at an empty report after it.
    let seen = "HfffffffffffffffffffffHHHHHHH";
    let whole = "IhhhhhhhhhhhhhhhhgggDDppppIII";
    for at in 0..seen.len() {
        let mut run = Run::new(settings(), World::of(4));
        let mut stood = run.go(&seen[..at]);
        run.restart();
        stood += &run.go(&seen[at..]);
        assert_eq!(stood, whole, "restarted after {at} s\n{}", run.told);
        assert_eq!(run.world.calls, "+D-A", "restarted after {at} s");
    }
    // Nothing is known at first.
    let stood = |at: usize| char::from(whole.as_bytes()[at]);
    for at in 0..seen.len() - 1 {
        let mut run = Run::new(settings(), World::of(4));
        run.go(&seen[..at]);
        run.restart();
        let before = at.checked_sub(1).map_or('I', stood);
        // That the tasks have left does not hang on the verdict.
        let expected = if (before, stood(at)) == ('g', 'D') {
            'D'
        } else {
            before
        };
        assert_eq!(run.go("?"), expected.to_string(), "{at}");
    }
}

#[test]
fn a_reboot_goes_on_and_waits_again() {
    let mut run = Run::new(settings(), World::of(4));
    assert_eq!(run.go("FFFFFHH"), "hgggDpp");
    run.reboot();
    run.second = 5;
    assert_eq!(run.go("??HHHHH"), "ppppIII", "{}", run.told);
    assert_eq!(run.world.calls, "+D-A");
}

#[test]
fn what_an_earlier_life_drained_is_known_by_its_claim() {
    let mut run = Run::new(settings(), World::of(4));
    run.go("FFFFF");
    run.failover = Failover::default();
    assert_eq!(run.go("?HHHHHHH"), "DppppIII", "{}", run.told);
    assert_eq!(run.world.calls, "+D-A");
}
