//! What a camera server keeps while its uplink is down: periods of simulated days, and events.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;

use sideline::domain::moment::{Moment, Now};
use sideline::domain::outbox::Rank;
use sideline::domain::report::{CameraReason, CameraState, Event, EventKind};
use sideline::ship::datum::{CAPACITY, Datum, HEALTH, Scope, encode};
use sideline::ship::relay::wire;
use sideline::store::{Destination, Draft, FILE, Limits, Store, Turn};

/// Length of a period.
pub(crate) const PERIOD: Duration = Duration::from_secs(60);

/// Periods that are written in one commit, as nobody waits for them: sixty are an hour.
const AT_ONCE: u64 = 60;

const CAMERAS: u32 = 18;
const GPUS: u32 = 2;

/// Looks at everything in one period.
const SAMPLES: u32 = 6;

/// Not the boot of the machine that the agent will start on.
const BOOT: &str = "5e1f0000-0000-4000-8000-00000000000b";

/// What waits: periods, one a minute, and events that are spread among them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backlog {
    /// When it began; the start of a minute.
    pub(crate) first: Timestamp,
    pub(crate) periods: u64,
    pub(crate) events: u64,
    /// Bytes by which an event is longer than it usually is.
    pub(crate) padding: usize,
}

impl Backlog {
    /// Puts it into the store in `state`, as an agent of an earlier boot would have.
    pub(crate) async fn fill(&self, state: &Path) {
        let limits = Limits {
            bytes: 256 << 20,
            age: Duration::from_secs(14 * 86_400),
        };
        let mut rng = Rng::with_seed(14);
        let opened = Store::open(state, limits, BOOT, self.now(0)).await;
        let (store, _) = opened.expect("the store opens");
        for chunk in (0..self.periods).step_by(usize::try_from(AT_ONCE).expect("it is small")) {
            let end = (chunk + AT_ONCE).min(self.periods);
            let mut turn = Turn::new(Destination::CloudWatch, self.now(end));
            turn.put = (chunk..end)
                .map(|period| self.metrics(period, &mut rng))
                .collect();
            store.turn(turn).await.expect("the store lives");
            let mut turn = Turn::new(Destination::Relay, self.now(end));
            let until = |period: u64| period * self.events / self.periods;
            turn.put = (until(chunk)..until(end))
                .map(|number| self.event(chunk, number + 1))
                .collect();
            store.turn(turn).await.expect("the store lives");
        }
        store.flush().await;
        drop(store);
        // Its thread ends by itself, and lets go of the folder.
        let lock = File::open(state.join("sideline.mark")).expect("it is there");
        lock.lock().expect("it can be had");
    }

    /// The start of a period.
    pub(crate) fn start(&self, period: u64) -> Timestamp {
        self.first + minutes(period)
    }

    fn now(&self, period: u64) -> Now {
        Now {
            moment: Moment::after_boot(Duration::from_secs(100) + minutes(period)),
            wall: self.start(period),
            sure: true,
        }
    }

    fn metrics(&self, period: u64, rng: &mut Rng) -> Draft {
        let now = self.now(period);
        Draft {
            number: None,
            rank: Rank::Metric,
            moment: now.moment,
            wall: now.wall,
            period: Some(PERIOD),
            payload: encode(&minute(period, rng)),
        }
    }

    /// A camera goes, or comes back.
    fn event(&self, period: u64, number: u64) -> Draft {
        let now = self.now(period);
        let (up, down) = (CameraState::Up, CameraState::Down);
        let goes = number % 2 == 1;
        let (state, was) = if goes { (down, up) } else { (up, down) };
        let camera = number / 2 % u64::from(CAMERAS) + 1;
        let event = Event {
            v: 1,
            ts: now.wall,
            seq: number,
            boot: BOOT.to_owned(),
            kind: EventKind::Camera {
                cam: format!("hole{camera:02}{}", "x".repeat(self.padding)),
                state,
                was,
                reason: goes.then_some(CameraReason::NoFrames),
            },
        };
        wire::draft(&event, now)
    }
}

fn minutes(count: u64) -> Duration {
    PERIOD * u32::try_from(count).expect("two weeks")
}

/// What the store takes on the disk, in bytes.
pub(crate) fn size(state: &Path) -> u64 {
    let files = [FILE.to_owned(), format!("{FILE}-wal")];
    let sizes = files.map(|name| std::fs::metadata(state.join(name)).map_or(0, |file| file.len()));
    sizes.iter().sum()
}

/// One minute of a busy node: loads follow the daylight, measured values scatter, fps come with one decimal.
fn minute(period: u64, rng: &mut Rng) -> Vec<Datum> {
    #[expect(clippy::cast_precision_loss, reason = "minutes of a day")]
    let hour = (period % 1440) as f64 / 60.0;
    let daylight = (-(hour - 14.0).powi(2) / 18.0).exp();
    let around = |rng: &mut Rng, middle: f64, spread: f64| middle + spread * (rng.f64() - 0.5);
    let node = |name, samples: Vec<f64>| distribution(name, samples);
    let mut each = |count: u32, middle: f64, spread: f64, unit: f64| -> Vec<f64> {
        let sample = |_| (around(rng, middle, spread) / unit).round() * unit;
        (0..count).map(sample).collect()
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds of two weeks")]
    let age = (period * PERIOD.as_secs()) as f64;
    vec![
        Datum::single(CAPACITY, Scope::Site, f64::from(CAMERAS)),
        Datum::single(HEALTH, Scope::Node, 0.0),
        Datum::single("OutboxAge", Scope::Node, age),
        node("CamerasUp", vec![f64::from(CAMERAS); SAMPLES as usize]),
        node("CameraFpsRatio", each(CAMERAS * SAMPLES, 1.0, 0.12, 0.02)),
        node(
            "CpuUtilization",
            each(SAMPLES, 25.0 + 30.0 * daylight, 12.0, 0.01),
        ),
        node("DiskUsed", each(SAMPLES, 61.0, 0.02, 0.01)),
        node("GpuFaults", vec![0.0; (GPUS * SAMPLES) as usize]),
        node("GpuMemoryUsed", each(GPUS * SAMPLES, 48.0, 3.0, 0.01)),
        node(
            "GpuTemperature",
            each(GPUS * SAMPLES, 55.0 + 12.0 * daylight, 6.0, 1.0),
        ),
        node(
            "GpuUtilization",
            each(GPUS * SAMPLES, 30.0 + 40.0 * daylight, 25.0, 1.0),
        ),
        node("MemoryUsed", each(SAMPLES, 38.0, 1.0, 0.01)),
    ]
}

fn distribution(name: &'static str, samples: Vec<f64>) -> Datum {
    let mut counts = BTreeMap::new();
    for sample in samples {
        let key = Datum::single(name, Scope::Node, sample).values[0].0;
        *counts.entry(key).or_insert(0) += 1;
    }
    Datum {
        name,
        scope: Scope::Node,
        values: counts.into_iter().collect(),
    }
}
