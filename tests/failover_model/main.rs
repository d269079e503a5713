//! Several nodes, each deciding for itself, and one ECS between them that lags, refuses and loses: whatever happens, what
//! failover promises holds. A case that breaks a promise tells its story.

mod ecs;
mod world;

use proptest::prelude::*;

use ecs::Way;
use world::{Event, Looks, Point, World};

/// Lives through events of nodes, each so many seconds after the one before; what broke, and the story of it.
fn live(mut world: World, events: &[(u64, usize, Event)]) -> Result<(), String> {
    for (gap, node, event) in events {
        world.live(world.now + gap * 1_000);
        let node = node % world.nodes.len();
        world.happens(node, *event);
    }
    world.live(world.now + 60_000);
    world.end();
    world.verdict()
}

/// Any hardware, that of the `dead` too.
fn looks(dead: bool) -> impl Strategy<Value = Looks> {
    use Looks::*;
    prop::sample::select(match dead {
        true => vec![
            Healthy, Healthy, Partly, Failing, Dead, Dead, Waiting, Unknown,
        ],
        false => vec![
            Healthy, Healthy, Partly, Failing, Failing, Failing, Waiting, Unknown,
        ],
    })
}

fn way() -> impl Strategy<Value = Way> {
    use Way::*;
    prop::sample::select(vec![Free, Free, NoWrites, Denied, Lossy, Deaf, Closed])
}

fn event(dead: bool) -> impl Strategy<Value = Event> {
    let point = prop::sample::select(vec![Point::Deciding, Point::Keeping, Point::Wanting]);
    prop_oneof![
        6 => looks(dead).prop_map(Event::Looks),
        3 => looks(dead).prop_map(Event::AllLook),
        3 => way().prop_map(Event::Way),
        1 => way().prop_map(Event::AllWays),
        4 => (point, 0..40_u64).prop_map(|(point, seconds)| Event::Kill(point, seconds)),
        2 => (20..90_u64).prop_map(Event::Reboot),
        1 => (-1_800..1_800_i64).prop_map(Event::Clock),
        2 => (-2..=2_i64).prop_map(Event::Clock),
        1 => Just(Event::OperatorDrains),
        2 => Just(Event::OperatorActivates),
        1 => (1..600_u64).prop_map(Event::Maintain),
        1 => Just(Event::Resume),
        1 => (1..600_u64).prop_map(Event::Drill),
        1 => prop::sample::select(vec![Event::Configured, Event::DriverChanged]),
    ]
}

fn events(dead: bool) -> impl Strategy<Value = Vec<(u64, usize, Event)>> {
    let gap = prop_oneof![0..3_u64, 0..20_u64, 0..120_u64];
    prop::collection::vec((gap, 0..6_usize, event(dead)), 0..40)
}

/// Every node fails within seconds of the others, and has its own idea of the time.
fn all_at_once() -> impl Strategy<Value = Vec<(u64, usize, Event)>> {
    let node = |node| {
        (-2..=2_i64, 0..4_u64).prop_map(move |(ahead, gap)| {
            let clock = (0, node, Event::Clock(ahead));
            [clock, (gap, node, Event::Looks(Looks::Failing))]
        })
    };
    let nodes: Vec<_> = (0..6).map(node).collect();
    nodes.prop_map(|events| events.concat())
}

fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: 100,
        failure_persistence: None,
        max_shrink_iters: 3_000,
        ..ProptestConfig::default()
    }
}

/// Two to six nodes whose reads are so old at most.
fn world(stale: u64) -> impl Strategy<Value = World> {
    let share = prop::sample::select(vec![0.34, 0.5, 0.7]);
    let hold = prop::sample::select(vec![0, 10]);
    (2..=6_usize, share, hold, any::<u64>())
        .prop_map(move |(nodes, share, hold, luck)| World::new(nodes, share, hold, stale, luck))
}

proptest! {
    #![proptest_config(cases())]

    /// What waits for its hold, with reads that are five seconds old.
    #[test]
    fn faults_that_wait(world in world(5_000), events in events(false)) {
        live(world, &events).map_err(TestCaseError::fail)?;
    }

    /// A threshold that is wrong, and was pushed to every node.
    #[test]
    fn faults_of_all_at_once(world in world(5_000), events in all_at_once()) {
        live(world, &events).map_err(TestCaseError::fail)?;
    }

    /// What skips it, as long as a read shows all that was acknowledged before it was asked.
    #[test]
    fn faults_that_prove_dead_hardware(world in world(0), events in events(true)) {
        live(world, &events).map_err(TestCaseError::fail)?;
    }
}
