//! The end of an outage of two weeks: `tests/bench/outage`.
//!
//! A store is filled with what a node with 18 cameras and two GPUs keeps in 14 days. The real agent starts on it with
//! its usual intervals, and can reach neither CloudWatch nor the broker upstream. Then both open at once: how soon is
//! the present told, how soon everything that waited, and what does it cost in memory? Both ends are on this machine
//! and without TLS, so what is measured is the agent, not an uplink. Exit status 1: a bound is broken.
#![expect(clippy::print_stdout, reason = "it tells what it measured")]

#[path = "../tests/servers/aws.rs"]
mod aws;
#[path = "../tests/agent/backlog.rs"]
mod backlog;
#[path = "../tests/servers/fake_nvml.rs"]
mod fake_nvml;
#[path = "../tests/agent/field.rs"]
mod field;
#[allow(dead_code, reason = "here nothing restarts the broker")]
#[path = "../tests/servers/mosquitto.rs"]
mod mosquitto;
#[allow(dead_code, reason = "a benchmark listens to little")]
#[path = "../tests/agent/mqtt.rs"]
mod mqtt;
#[allow(dead_code, reason = "a benchmark needs one plan")]
#[path = "../tests/agent/plan.rs"]
mod plan;
#[path = "../tests/servers/proxy.rs"]
mod proxy;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval, sleep};

use backlog::Backlog;
use field::Field;
use mosquitto::Mosquitto;
use mqtt::Client;
use plan::{Plan, all_is_well};
use proxy::{Fault, Proxy};

/// In seconds. CloudWatch takes nothing older.
const TWO_WEEKS: i64 = 14 * 86_400;

/// As many minutes but for ten, because this benchmark takes its time as well.
const PERIODS: u64 = 14 * 1440 - 10;
const EVENTS: u64 = 1_000;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(150);

/// What an agent has found out after its start by then, so that its memory is its usual one.
const SETTLED: Duration = Duration::from_secs(45);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut scene = Scene::set().await;

    scene.field.start_agent().await;
    let nothing_waits = scene.settled().await;
    scene.field.stop().await;

    let minute = Timestamp::now().as_second().div_euclid(60);
    let first = minute * 60 - TWO_WEEKS + 9 * 60;
    let waiting = Backlog {
        first: Timestamp::from_second(first).expect("a time"),
        periods: PERIODS,
        events: EVENTS,
        padding: 0,
    };
    let state = scene.field.path("state");
    std::fs::remove_dir_all(&state).expect("the agent made it");
    let begun = Instant::now();
    waiting.fill(&state).await;
    let (kept, filled) = (backlog::size(&state), begun.elapsed());
    println!(
        "a store of {PERIODS} periods and {EVENTS} events, made in {:.1} s",
        filled.as_secs_f64()
    );

    scene.field.start_agent().await;
    let all_waits = scene.settled().await;
    let drain = scene.end_outage(&waiting).await;
    let report = scene.field.report().await;
    let dropped = |outlet: usize| report["outlets"][outlet]["dropped"].as_u64();
    let dropped = dropped(0)
        .zip(dropped(1))
        .map_or(u64::MAX, |both| both.0 + both.1);
    if !drain.complete {
        println!("the log of the agent:\n{}\n{report:#}", scene.field.log());
    }

    let rows = [
        Row::bytes("the store on disk", kept).most(64.0),
        Row::time("until CloudWatch has the latest period", drain.period).most(1.0),
        Row::time("until the broker has the present health", drain.health).most(1.0),
        Row::time("until CloudWatch has every Capacity", drain.capacities).most(60.0),
        Row::time("until the broker has every event", drain.events).most(60.0),
        Row::count("requests that CloudWatch took", drain.requests),
        Row::count("requests that it refused", drain.refused).most(0.0),
        Row::count("periods that it counted twice", drain.twice).most(0.0),
        Row::count("records dropped", dropped).most(0.0),
        Row::bytes("RSS, an empty store", nothing_waits.rss),
        Row::bytes("RSS, everything waits", all_waits.rss),
        Row::bytes("RSS, the most ever while it is sent", drain.peak.most),
        Row::bytes(
            "  more than with an empty store",
            more(drain.peak.most, nothing_waits.rss),
        )
        .most(4.0),
        Row::bytes("PSS, an empty store", nothing_waits.pss),
        Row::bytes("PSS, everything waits", all_waits.pss),
        Row::bytes("PSS, the most seen while it is sent", drain.peak.pss),
        Row::bytes(
            "  more than with an empty store",
            more(drain.peak.pss, nothing_waits.pss),
        )
        .most(4.0),
        Row::bytes("the store on disk after it", backlog::size(&state)),
    ];
    for row in &rows {
        println!("{}", row.text());
    }
    if rows.iter().any(Row::is_broken) {
        return ExitCode::FAILURE;
    }
    println!("all bounds hold");
    ExitCode::SUCCESS
}

fn more(one: u64, other: u64) -> u64 {
    one.saturating_sub(other)
}

/// A line of the table.
struct Row {
    what: &'static str,
    value: f64,
    unit: &'static str,
    most: Option<f64>,
}

impl Row {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn bytes(what: &'static str, bytes: u64) -> Row {
        Row::new(what, bytes as f64 / f64::from(1 << 20), "MiB")
    }

    fn time(what: &'static str, time: Duration) -> Row {
        Row::new(what, time.as_secs_f64(), "s")
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn count(what: &'static str, count: u64) -> Row {
        Row::new(what, count as f64, "")
    }

    fn new(what: &'static str, value: f64, unit: &'static str) -> Row {
        Row {
            what,
            value,
            unit,
            most: None,
        }
    }

    fn most(self, most: f64) -> Row {
        Row {
            most: Some(most),
            ..self
        }
    }

    fn is_broken(&self) -> bool {
        self.most.is_some_and(|most| self.value > most)
    }

    fn text(&self) -> String {
        let Row {
            what,
            value,
            unit,
            most,
        } = self;
        let places = if unit.is_empty() { 0 } else { 2 };
        let most = most.map_or_else(String::new, |most| {
            let word = if self.is_broken() { "BROKEN" } else { "holds" };
            format!("  at most {most}: {word}")
        });
        format!("{what:<42} {value:>8.places$} {unit:<3}{most}")
    }
}

/// The field server, and a broker upstream with a door before it that is opened once.
struct Scene {
    field: Field,
    door: Proxy,
    cloud: Client,
    _upstream: Mosquitto,
}

/// How the outage ended.
struct Drain {
    period: Duration,
    health: Duration,
    capacities: Duration,
    events: Duration,
    requests: u64,
    refused: u64,
    twice: u64,
    complete: bool,
    peak: Rollup,
}

impl Scene {
    /// Everything but the agent, with the uplink down.
    async fn set() -> Scene {
        let upstream = Mosquitto::start();
        let port = upstream
            .url()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        let door = Proxy::start(port.expect("a port"));
        door.fault(Fault::Refuse);
        let plan = Plan::new()
            .set("host.every", "10s")
            .set("gpu.every", "10s")
            .set("cloudwatch.period", "60s")
            .set("relay.url", format!("mqtt://127.0.0.1:{}", door.port()));
        let mut field = Field::without_agent(plan).await;
        field.aws.go_offline().await;
        field.stats(all_is_well());
        let port = upstream
            .url()
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        let cloud = Client::subscribed(port.expect("a port"), "cloud", "sideline/#").await;
        Scene {
            field,
            door,
            cloud,
            _upstream: upstream,
        }
    }

    /// Waits until the agent has settled and has closed a period, and weighs it.
    async fn settled(&self) -> Rollup {
        sleep(SETTLED).await;
        let started = Instant::now();
        let before = self.pending().await;
        while self.pending().await == before {
            assert!(started.elapsed() < PATIENCE, "no period ends");
            sleep(Duration::from_millis(500)).await;
        }
        Rollup::of(self.field.pid())
    }

    async fn pending(&self) -> Option<u64> {
        self.field.report().await["outlets"][0]["pending"].as_u64()
    }

    /// Opens both doors, and looks on until everything has come.
    async fn end_outage(&mut self, waiting: &Backlog) -> Drain {
        let opened = Timestamp::now();
        self.door.clear();
        self.field.aws.go_online().await;
        let minute = Timestamp::from_second(opened.as_second().div_euclid(60) * 60);
        let latest = minute.expect("it was one") - backlog::PERIOD;
        let since =
            |at: Timestamp| Duration::try_from(at.duration_since(opened)).unwrap_or_default();

        let mut missing: BTreeSet<i64> = (0..PERIODS)
            .map(|period| waiting.start(period).as_second())
            .collect();
        let mut told = BTreeSet::new();
        let (mut period, mut capacities, mut twice) = (None, PATIENCE, 0);
        let mut requests = 0;
        let mut peak = Rollup::default();
        let mut beat = interval(Duration::from_millis(100));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let events = loop {
            beat.tick().await;
            peak = peak.max(Rollup::of(self.field.pid()));
            let taken = self.field.aws.requests();
            for request in taken.iter().skip(requests) {
                for datum in request.data.iter().filter(|datum| datum.name == "Capacity") {
                    let second = datum.timestamp.as_second();
                    twice += u64::from(!told.insert(second));
                    if datum.timestamp == latest {
                        period.get_or_insert(since(request.at));
                    }
                    if missing.remove(&second) && missing.is_empty() {
                        capacities = since(request.at);
                    }
                }
            }
            requests = taken.len();
            let (numbers, last) = self.events();
            let all = numbers == EVENTS;
            if (missing.is_empty() && all) || since(Timestamp::now()) > PATIENCE {
                if !missing.is_empty() || !all {
                    println!(
                        "missing: {} periods; {numbers} of {EVENTS} events came",
                        missing.len()
                    );
                }
                break last.filter(|_| all).map_or(PATIENCE, since);
            }
        };
        let messages = self.cloud.messages();
        let health = messages.iter().find(|one| one.topic.ends_with("/health"));
        Drain {
            period: period.unwrap_or(PATIENCE),
            health: health.map_or(PATIENCE, |one| since(one.at)),
            capacities,
            events,
            requests: requests as u64,
            refused: self.field.aws.log().refused.len() as u64,
            twice,
            complete: missing.is_empty() && events < PATIENCE,
            peak,
        }
    }

    /// How many of the events that waited have come, and when the last of them came.
    fn events(&self) -> (u64, Option<Timestamp>) {
        let messages = self.cloud.messages();
        let events = messages.iter().filter(|one| one.topic.ends_with("/event"));
        let numbered = events.filter_map(|one| Some((one.json()["seq"].as_u64()?, one.at)));
        let mut numbers = BTreeSet::new();
        let mut last = None;
        for (number, at) in numbered.filter(|(number, _)| *number <= EVENTS) {
            if numbers.insert(number) {
                last = Some(at);
            }
        }
        (numbers.len() as u64, last)
    }
}

/// What a process takes, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Rollup {
    rss: u64,
    pss: u64,
    /// The most that `rss` has ever been.
    most: u64,
}

impl Rollup {
    fn of(pid: u32) -> Rollup {
        let field = |file: &str, name: &str| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let bytes = |kib: Option<u64>| kib.expect("/proc is there") * 1024;
        Rollup {
            rss: bytes(field("smaps_rollup", "Rss:")),
            pss: bytes(field("smaps_rollup", "Pss:")),
            most: bytes(field("status", "VmHWM:")),
        }
    }

    fn max(self, other: Rollup) -> Rollup {
        Rollup {
            rss: self.rss.max(other.rss),
            pss: self.pss.max(other.pss),
            most: self.most.max(other.most),
        }
    }
}
