//! Reports → the data of one CloudWatch period: every sample of the period in one datum a metric.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::datum::{CAPACITY, Datum, HEALTH, MAX_VALUES, Scope, hundredths};
use crate::config::{CloudWatch as Settings, Profile};
use crate::domain::finding::{Severity, Subject};
use crate::domain::moment::Moment;
use crate::domain::report::{CameraState, Report};
use crate::domain::snapshot::Gpu;

/// Time between two looks at what is not measured but judged (cameras, faults).
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Collects the samples of one period.
#[derive(Debug, Clone)]
pub struct Period {
    settings: Settings,
    /// Where in the periods since 1970 this node's own end.
    phase: Duration,
    /// End of the period that is being filled.
    end: Timestamp,
    samples: BTreeMap<(Scope, &'static str), Distribution>,
    sick: BTreeSet<Scope>,
    host_seen: Option<Moment>,
    gpus_seen: Option<Moment>,
    looked: Option<Moment>,
}

impl Period {
    /// The period that `now` lies in. Periods end `phase` after each multiple of their length since 1970: each of those
    /// has one end in it, also across a restart.
    #[must_use]
    pub fn starting(settings: Settings, phase: Duration, now: Timestamp) -> Self {
        let end = next_end(now, settings.period, phase);
        Period {
            settings,
            phase,
            end,
            samples: BTreeMap::new(),
            sick: BTreeSet::new(),
            host_seen: None,
            gpus_seen: None,
            looked: None,
        }
    }

    /// What is sent.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the period is over. One that begins in the future is, too: the clock was put back.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now < self.start() || self.end <= now
    }

    /// Time until it is over.
    #[must_use]
    pub fn left(&self, now: Timestamp) -> Duration {
        if self.is_over(now) {
            return Duration::ZERO;
        }
        Duration::try_from(self.end.duration_since(now)).unwrap_or(Duration::ZERO)
    }

    fn start(&self) -> Timestamp {
        let start = self.end.checked_sub(self.settings.period);
        start.unwrap_or(self.end)
    }

    /// Takes in what a report measured that the one before it had not.
    pub fn take_in(&mut self, report: &Report) {
        if self.settings.profile == Profile::Capacity {
            return;
        }
        self.note_sick(report);
        if report.measured.host != self.host_seen {
            self.host_seen = report.measured.host;
            self.host_sample(report);
        }
        if report.measured.gpus != self.gpus_seen {
            self.gpus_seen = report.measured.gpus;
            self.gpu_sample(report);
        }
        if self
            .looked
            .is_none_or(|at| report.measured.judged - at >= LOOK_EVERY)
        {
            self.looked = Some(report.measured.judged);
            self.judged_sample(report);
        }
    }

    /// Ends the period with the report that holds now and starts the next: the end of the one that has ended, and its
    /// data in the order of importance.
    pub fn finish(
        &mut self,
        report: &Report,
        outbox_age: Duration,
        now: Timestamp,
    ) -> (Timestamp, Vec<Datum>) {
        self.fill_gaps(report);
        let next = Self::starting(self.settings.clone(), self.phase, now);
        // After the clock was put back, what was measured belongs to now.
        let at = self.end.min(next.start());
        let available = f64::from(report.capacity.available);
        let health = f64::from(report.verdict.state.code());
        let mut data = vec![
            Datum::single(CAPACITY, Scope::Site, available),
            Datum::single(HEALTH, Scope::Node, health),
        ];
        if self.settings.profile != Profile::Capacity {
            let age = outbox_age.as_secs_f64().round();
            data.push(Datum::single("OutboxAge", Scope::Node, age));
        }
        let wanted = self.wanted();
        for ((scope, name), distribution) in std::mem::take(&mut self.samples) {
            if wanted.contains(&scope) {
                data.push(Datum {
                    name,
                    scope,
                    values: distribution.values(),
                });
            }
        }
        self.sick.clear();
        self.end = next.end;
        (at, data)
    }

    /// A short period may end before anything was measured in it: what is known still holds.
    fn fill_gaps(&mut self, report: &Report) {
        if self.settings.profile == Profile::Capacity {
            return;
        }
        self.note_sick(report);
        let has = |samples: &BTreeMap<(Scope, &str), Distribution>, name| {
            samples.contains_key(&(Scope::Node, name))
        };
        if !has(&self.samples, "CpuUtilization") {
            self.host_sample(report);
        }
        if !has(&self.samples, "GpuUtilization") {
            self.gpu_sample(report);
        }
        if !has(&self.samples, "CamerasUp") && !has(&self.samples, "GpuFaults") {
            self.judged_sample(report);
        }
    }

    /// The scopes to send: the node, and single GPUs and cameras by the profile or while they are sick.
    fn wanted(&self) -> BTreeSet<Scope> {
        let mut wanted = BTreeSet::from([Scope::Node]);
        let mut budget = self.settings.detail_budget as usize;
        let mut metrics: BTreeMap<&Scope, usize> = BTreeMap::new();
        for (scope, _) in self.samples.keys() {
            *metrics.entry(scope).or_default() += 1;
        }
        for (scope, metrics) in metrics {
            if self.settings.profile == Profile::Full {
                wanted.insert(scope.clone());
            } else if self.sick.contains(scope) && metrics <= budget {
                budget -= metrics;
                wanted.insert(scope.clone());
            }
        }
        wanted
    }

    /// Before the samples, which are kept by name of what is sick only.
    fn note_sick(&mut self, report: &Report) {
        for finding in report
            .findings
            .iter()
            .filter(|finding| finding.severity > Severity::Info)
        {
            if let Subject::Gpu(id) = &finding.subject {
                self.sick.insert(Scope::Gpu(id.clone()));
            } else if let Subject::Camera(id) = &finding.subject {
                self.sick.insert(Scope::Camera(id.clone()));
            }
        }
    }

    fn host_sample(&mut self, report: &Report) {
        let Some(host) = &report.host else { return };
        self.add(Scope::Node, "CpuUtilization", host.cpu_percent);
        self.add(Scope::Node, "MemoryUsed", host.memory_used_percent);
        let fullest = host
            .disks
            .iter()
            .filter(|disk| !disk.read_only)
            .map(|disk| disk.used_percent);
        self.add(Scope::Node, "DiskUsed", fullest.reduce(f64::max));
    }

    fn gpu_sample(&mut self, report: &Report) {
        for gpu in &report.gpus {
            for scope in [Some(Scope::Node), self.detail(Scope::Gpu(gpu.id.clone()))]
                .into_iter()
                .flatten()
            {
                self.add(scope.clone(), "GpuUtilization", gpu.utilization_percent);
                self.add(scope.clone(), "GpuMemoryUsed", memory_used_percent(gpu));
                self.add(scope, "GpuTemperature", gpu.temperature_c);
            }
        }
    }

    fn judged_sample(&mut self, report: &Report) {
        for (id, faults) in faults(report) {
            self.add(Scope::Node, "GpuFaults", Some(faults));
            if let Some(scope) = self.detail(Scope::Gpu(id)) {
                self.add(scope, "GpuFaults", Some(faults));
            }
        }
        let mut up = 0.0;
        for camera in &report.cameras {
            let is_up = f64::from(u8::from(camera.state == CameraState::Up));
            up += is_up;
            let usual = camera.usual_fps.filter(|usual| *usual > 0.0);
            let ratio = camera.fps.zip(usual).map(|(fps, usual)| fps / usual);
            self.add(Scope::Node, "CameraFpsRatio", ratio);
            if let Some(scope) = self.detail(Scope::Camera(camera.id.to_string())) {
                self.add(scope.clone(), "CamerasUp", Some(is_up));
                self.add(scope, "CameraFpsRatio", ratio);
            }
        }
        if !report.cameras.is_empty() {
            self.add(Scope::Node, "CamerasUp", Some(up));
        }
    }

    /// A scope of its own if it may be wanted at the period's end.
    fn detail(&self, scope: Scope) -> Option<Scope> {
        let wanted = self.settings.profile == Profile::Full || self.sick.contains(&scope);
        (wanted && scope.can_be_named()).then_some(scope)
    }

    fn add(&mut self, scope: Scope, name: &'static str, value: Option<f64>) {
        if let Some(value) = value.filter(|value| value.is_finite()) {
            self.samples.entry((scope, name)).or_default().add(value);
        }
    }
}

/// Open findings of each GPU that are worse than `info`; those of all GPUs count for each.
fn faults(report: &Report) -> Vec<(String, f64)> {
    let open = |subject: &Subject| {
        let of = |finding: &&crate::domain::finding::Finding| {
            finding.severity > Severity::Info && &finding.subject == subject
        };
        report.findings.iter().filter(of).count()
    };
    let all = open(&Subject::Gpus);
    let listed = report.gpus.iter().map(|gpu| gpu.id.clone());
    let blamed = report
        .findings
        .iter()
        .filter_map(|finding| finding.subject.gpu().map(str::to_owned));
    let cards: BTreeSet<String> = listed.chain(blamed).collect();
    let count = |faults: usize| u32::try_from(faults).map_or(f64::MAX, f64::from);
    if cards.is_empty() && all > 0 {
        return vec![("all".to_owned(), count(all))];
    }
    cards
        .into_iter()
        .map(|id| {
            let faults = all + open(&Subject::Gpu(id.clone()));
            (id, count(faults))
        })
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share of memory needs no 53 bits"
)]
fn memory_used_percent(gpu: &Gpu) -> Option<f64> {
    let total = gpu.memory_total_bytes.filter(|total| *total > 0)?;
    Some(gpu.memory_used_bytes? as f64 * 100.0 / total as f64)
}

/// The first end of a period after `now`.
fn next_end(now: Timestamp, period: Duration, phase: Duration) -> Timestamp {
    let milliseconds = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(0);
    let (period, phase) = (milliseconds(period).max(1), milliseconds(phase));
    let over = (now.as_millisecond() - phase).div_euclid(period);
    Timestamp::from_millisecond((over + 1) * period + phase).unwrap_or(now)
}

/// Values, in hundredths, and how often each was seen.
#[derive(Debug, Clone, Default)]
struct Distribution {
    counts: BTreeMap<i64, u32>,
}

impl Distribution {
    fn add(&mut self, value: f64) {
        *self.counts.entry(hundredths(value)).or_default() += 1;
    }

    /// At most `MAX_VALUES` values: rounded no more than it takes.
    fn values(self) -> Vec<(i64, u32)> {
        let (mut counts, mut step) = (self.counts, 1_i64);
        while counts.len() > MAX_VALUES {
            step *= 10;
            let mut coarser = BTreeMap::new();
            for (key, count) in counts {
                *coarser
                    .entry((key + step / 2).div_euclid(step) * step)
                    .or_default() += count;
            }
            counts = coarser;
        }
        counts.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cost;
    use crate::ship::datum::METRICS;

    #[test]
    fn a_distribution_rounds_no_more_than_it_takes() {
        let spread = |count: i32, step: f64| {
            let mut distribution = Distribution::default();
            (0..count).for_each(|n| distribution.add(f64::from(n) * step));
            distribution.values()
        };
        for (count, step, values) in [
            (150, 0.01, 150),
            (151, 0.01, 16),
            (1000, 0.1, 101),
            (1, 0.0, 1),
        ] {
            let got = spread(count, step);
            assert_eq!(got.len(), values, "{count} values {step} apart");
            let total: u32 = got.iter().map(|(_, count)| count).sum();
            assert_eq!(i64::from(total), i64::from(count));
        }
        assert_eq!(spread(2, 0.25), [(0, 1), (25, 1)]);
    }

    #[test]
    fn the_bill_knows_every_metric() {
        let mut billed: Vec<&str> = [
            &cost::BY_SITE[..],
            &cost::HEALTH,
            &cost::GPU,
            &cost::CAMERA,
            &cost::HOST,
        ]
        .concat();
        let mut sent: Vec<&str> = METRICS.iter().map(|(name, _)| *name).collect();
        billed.sort_unstable();
        sent.sort_unstable();
        assert_eq!(billed, sent);
    }

    #[test]
    fn a_period_is_over_at_its_end_and_when_the_clock_is_put_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let phase = Duration::from_secs(20);
        let period = Period::starting(Settings::default(), phase, at(3_630));
        for (now, left) in [
            (3_620, 60),
            (3_679, 1),
            (3_680, 0),
            (9_999, 0),
            (3_619, 0),
            (0, 0),
        ] {
            assert_eq!(period.left(at(now)), Duration::from_secs(left), "{now}");
            assert_eq!(period.is_over(at(now)), left == 0, "{now}");
        }
    }

    #[test]
    fn periods_end_at_the_nodes_own_time() {
        for (now, period, phase, end) in [
            (119_999, 60_000, 0, 120_000),
            (120_000, 60_000, 0, 180_000),
            (119_999, 60_000, 12_345, 132_345),
            (132_344, 60_000, 12_345, 132_345),
            (132_345, 60_000, 12_345, 192_345),
            (7_000, 5_000, 4_999, 9_999),
            (7_000, 1_000, 1, 7_001),
        ] {
            let [now, end] = [now, end].map(|at| Timestamp::from_millisecond(at).unwrap());
            let [period, phase] = [period, phase].map(Duration::from_millis);
            assert_eq!(next_end(now, period, phase), end);
        }
    }

    /// Every minute since 1970 has one end in it, whenever the agent is started anew.
    #[test]
    fn a_restart_neither_repeats_nor_leaves_out_a_minute() {
        let minute = Duration::from_secs(60);
        for node in ["mi-0field", "mi-1field", "a", ""] {
            let phase = crate::domain::phase::of(node, minute);
            let mut now = Timestamp::from_second(600).unwrap();
            for life in 0..1_000_i64 {
                let end = Period::starting(Settings::default(), phase, now).end;
                let number = |at: Timestamp| at.as_millisecond().div_euclid(60_000);
                assert!((now..=now + minute).contains(&end), "{now} {end}");
                assert!(number(end) - number(now) <= 1, "{now} {end}");
                let again = now + Duration::from_millis(u64::try_from(life * 37 % 60_000).unwrap());
                if again < end {
                    let same = Period::starting(Settings::default(), phase, again);
                    assert_eq!(same.end, end, "a restart at {again}");
                }
                now = end;
            }
        }
    }
}
