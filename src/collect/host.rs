//! How the server itself does: CPU, memory, disks, networks, temperatures and pressure.
//!
//! Every read is of memory that the kernel keeps (/proc, /sys, statfs of local file systems), so it is done in
//! place. What may block on a device or a network is left out; `disks`, `drives` and `sensors` say what that is.

mod clock;
mod disks;
pub(super) mod drives;
mod networks;
mod processors;
mod sensors;
mod sysfs;

use std::path::Path;
use std::time::Duration;

use sysinfo::{MemoryRefreshKind, System};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::domain::reading::Reading;
use crate::domain::snapshot::{ClockSync, Host, Pressure};

/// CPU usage and rates need two looks; the first reading comes this long after the start.
const BETWEEN_FIRST_TWO: Duration = Duration::from_secs(1);

/// A look takes about a millisecond. One that takes this long has met a device that answers slowly.
const SLOW: Duration = Duration::from_secs(1);

/// Publishes how the server does: once after a second, then every `every`.
///
/// # Errors
/// sysinfo does not know this platform. What can't be read is `None`, and without /proc the reading is `Failed`.
pub async fn run(
    every: Duration,
    out: watch::Sender<Reading<Host>>,
    clock: Clock,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut looker = Looker::new()?;
    let started = clock.moment();
    // The first look is nothing to publish: shares and rates are measured from it.
    let _ = looker.look(&clock);
    let mut ticks = interval_at(clock.instant(started + BETWEEN_FIRST_TWO.min(every)), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);

    let mut failing_since = None;
    let mut slow = false;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = ticks.tick() => {}
        }
        let at = clock.moment();
        let seen = looker.look(&clock);
        let took = clock.moment() - at;
        if (took > SLOW) != slow {
            slow = !slow;
            if slow {
                tracing::warn!("reading the host's health took {took:?}; a device answers slowly");
            }
        }
        out.send_replace(match seen {
            Ok(value) => {
                failing_since = None;
                Reading::ok(value, at)
            }
            Err(why) => {
                let since = *failing_since.get_or_insert_with(|| {
                    tracing::warn!("host health is unknown: {why}");
                    at
                });
                Reading::Failed { why, at: since }
            }
        });
    }
}

/// What tells this boot of the kernel from every other: a UUID. `unknown` without /proc.
#[must_use]
pub fn boot_id() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// Whether somebody keeps the machine's clock; `None` where the kernel may not be asked.
#[must_use]
pub fn clock_sync() -> Option<ClockSync> {
    clock::read()
}

/// The host name as the kernel has it; may be empty.
#[must_use]
pub fn hostname() -> String {
    let names = rustix::system::uname();
    names.nodename().to_string_lossy().trim().to_owned()
}

/// What is kept between two looks.
struct Looker {
    system: System,
    networks: networks::Counters,
    sensors: sensors::Sensors,
}

impl Looker {
    fn new() -> anyhow::Result<Self> {
        Ok(Looker {
            system: System::new()?,
            networks: networks::Counters::default(),
            sensors: sensors::Sensors::default(),
        })
    }

    /// Looks at everything once; CPU usage and rates are those since the previous look.
    fn look(&mut self, clock: &Clock) -> Result<Host, String> {
        self.system.refresh_cpu_usage();
        self.system
            .refresh_memory_specifics(MemoryRefreshKind::everything());
        let total = self.system.total_memory();
        if total == 0 {
            return Err("/proc/meminfo can't be read; is /proc mounted?".into());
        }
        let available = self.system.available_memory().min(total);
        let cpus = self.system.cpus().len();
        let swap = self.system.total_swap();
        let kernel = rustix::system::sysinfo();

        Ok(Host {
            cpu_percent: percent(f64::from(self.system.global_cpu_usage())).filter(|_| cpus > 0),
            cpu_count: Some(cpus).filter(|cpus| *cpus > 0),
            cpu_throttles_total: processors::throttles(Path::new("/sys/devices/system/cpu")),
            load: Some(kernel.loads.map(fixed_point)),
            memory_used_percent: percent(100.0 * (total - available) as f64 / total as f64),
            memory_total_bytes: Some(total),
            memory_available_bytes: Some(available),
            memory_controllers: processors::memory_controllers(Path::new(
                "/sys/devices/system/edac/mc",
            )),
            swap_total_bytes: Some(swap),
            swap_used_bytes: Some(swap.saturating_sub(self.system.free_swap())),
            disks: disks::read(),
            drives: drives::read(Path::new("/sys/block")),
            raids: drives::raids(Path::new("/sys/block")),
            networks: self
                .networks
                .read(Path::new("/sys/class/net"), clock.moment()),
            temperatures: self.sensors.read(Path::new("/sys/class"), clock),
            pressure: pressure(Path::new("/proc/pressure")),
            clock: clock::read(),
            uptime_s: u64::try_from(kernel.uptime).ok(),
        })
    }
}

/// The kernel's load averages have 16 binary places.
fn fixed_point(load: rustix::ffi::c_ulong) -> f64 {
    hundredths(load as f64 / 65_536.0)
}

fn percent(value: f64) -> Option<f64> {
    value
        .is_finite()
        .then(|| hundredths(value.clamp(0.0, 100.0)))
}

/// Two decimals: nobody reads more, and every report carries them.
fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Pressure-stall information; `None` on kernels without it (before 4.20, or `psi=0`).
fn pressure(folder: &Path) -> Option<Pressure> {
    let read = |resource: &str, who: &str| {
        let text = std::fs::read_to_string(folder.join(resource)).ok()?;
        avg60(&text, who)
    };
    let pressure = Pressure {
        cpu_some_percent: read("cpu", "some "),
        memory_full_percent: read("memory", "full "),
        io_full_percent: read("io", "full "),
    };
    let Pressure {
        cpu_some_percent: cpu,
        memory_full_percent: memory,
        io_full_percent: io,
    } = pressure;
    cpu.or(memory).or(io).map(|_| pressure)
}

/// `some avg10=0.00 avg60=1.25 avg300=0.40 total=…` → 1.25
fn avg60(text: &str, who: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(who))?;
    let mut fields = line.split_whitespace();
    let average = fields.find_map(|field| field.strip_prefix("avg60="))?;
    percent(average.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_average_of_a_minute() {
        let both = "some avg10=8.88 avg60=3.74 avg300=1.72 total=35203150\n\
                    full avg10=0.00 avg60=0.50 avg300=0.00 total=0\n";
        for (text, who, expected) in [
            (both, "some ", Some(3.74)),
            (both, "full ", Some(0.5)),
            ("some avg10=1 avg60=2 avg300=3 total=4", "full ", None),
            ("some avg60=nan", "some ", None),
            ("some avg60=", "some ", None),
            ("some", "some ", None),
            ("", "some ", None),
        ] {
            assert_eq!(avg60(text, who), expected, "{who} in {text:?}");
        }
        assert_eq!(pressure(Path::new("/nonexistent")), None);
    }

    #[tokio::test(start_paused = true)]
    async fn this_machine_is_seen_within_a_second() {
        let (out, mut seen) = watch::channel(Reading::Pending);
        let clock = Clock::start(None);
        let started = clock.moment();
        let cancel = CancellationToken::new();
        let running = run(Duration::from_secs(10), out, clock.clone(), cancel.clone());
        let watching = async {
            let first = seen.wait_for(Reading::is_settled).await.unwrap().clone();
            assert!(clock.moment() - started <= Duration::from_millis(1_100));
            seen.mark_unchanged();
            seen.changed().await.unwrap();
            cancel.cancel();
            first
        };
        let (ran, first) = tokio::join!(running, watching);
        ran.unwrap();

        let host = first.value().expect("this machine has /proc");
        assert!(host.cpu_count.unwrap() >= 1);
        assert!((0.0..=100.0).contains(&host.cpu_percent.unwrap()));
        assert!((0.0..=100.0).contains(&host.memory_used_percent.unwrap()));
        assert!(host.memory_available_bytes.unwrap() <= host.memory_total_bytes.unwrap());
        assert!(host.swap_used_bytes.unwrap() <= host.swap_total_bytes.unwrap());
        assert!(host.load.unwrap().iter().all(|load| *load >= 0.0));
        assert!(host.uptime_s.unwrap() > 0);
        for disk in &host.disks {
            assert!((0.0..=100.0).contains(&disk.used_percent), "{disk:?}");
            assert!(disk.available_bytes <= disk.total_bytes, "{disk:?}");
        }
        for network in &host.networks {
            assert_ne!(network.name, "lo");
            assert!(network.received_bytes_per_s.is_none_or(|rate| rate >= 0.0));
        }
        for sensor in &host.temperatures {
            assert!((0.0..150.0).contains(&sensor.temperature_c), "{sensor:?}");
        }
        for drive in &host.drives {
            assert!(!drive.name.starts_with("loop"), "{drive:?}");
        }
        let recorded = serde_json::to_string(host).unwrap();
        assert!(!recorded.contains("NaN"));
        assert_eq!(&serde_json::from_str::<Host>(&recorded).unwrap(), host);
    }

    #[test]
    fn a_boot_has_an_id_and_the_host_a_name() {
        assert_eq!(boot_id(), boot_id());
        assert!(!boot_id().is_empty());
        assert!(!hostname().contains(char::is_whitespace));
    }
}
