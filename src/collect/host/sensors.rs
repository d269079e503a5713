//! Temperature sensors of processors and board (hwmon, else thermal zones).
//!
//! Read here rather than by sysinfo, which reads every sensor there is: some must not be read.
//!
//! - A disk's sensor is a command to the disk. A dying NVMe controller lets it wait for a minute, and the whole
//!   agent with it; and a resting hard disk is kept awake (kernel documentation of drivetemp).
//! - A processor core's sensor is read by the core itself, which has to wake up for it. The package's tells enough.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sysfs::{entries, word};
use crate::clock::Clock;
use crate::domain::snapshot::Temperature;

/// Drivers whose sensors are commands to a disk.
const DISKS: [&str; 2] = ["nvme", "drivetemp"];

/// A sensor that takes this long is a device that may hang: it is not asked again.
const TOO_SLOW: Duration = Duration::from_millis(250);

/// Looks between two searches for sensors: drivers load late.
const SEARCH_EVERY: u32 = 10;

/// More sensors than are told apart by eye.
const MOST: usize = 32;

/// The sensors that were found, so that a look reads one file each.
#[derive(Debug, Default)]
pub(super) struct Sensors {
    looks: u32,
    sensors: Vec<Sensor>,
    too_slow: BTreeSet<PathBuf>,
}

#[derive(Debug, PartialEq)]
struct Sensor {
    label: String,
    /// Thousandths of a degree Celsius.
    input: PathBuf,
    critical_c: Option<f64>,
}

impl Sensors {
    /// Reads the sensors below `class` (/sys/class); those without a sane value are left out.
    pub(super) fn read(&mut self, class: &Path, clock: &Clock) -> Vec<Temperature> {
        if self.looks.is_multiple_of(SEARCH_EVERY) {
            self.sensors = search(class);
            self.sensors
                .retain(|sensor| !self.too_slow.contains(&sensor.input));
        }
        self.looks = self.looks.wrapping_add(1);

        let mut temperatures = Vec::with_capacity(self.sensors.len());
        self.sensors.retain(|sensor| {
            let asked = clock.moment();
            let temperature = celsius(&sensor.input);
            let took = clock.moment() - asked;
            temperatures.extend(temperature.map(|temperature_c| Temperature {
                label: sensor.label.clone(),
                temperature_c,
                critical_c: sensor.critical_c,
            }));
            if took <= TOO_SLOW {
                return true;
            }
            let label = &sensor.label;
            tracing::warn!("temperature sensor {label} took {took:?}; it is not asked again");
            self.too_slow.insert(sensor.input.clone());
            false
        });
        temperatures
    }
}

fn search(class: &Path) -> Vec<Sensor> {
    let mut sensors: Vec<Sensor> = entries(&class.join("hwmon"), "hwmon")
        .iter()
        .flat_map(|chip| hwmon(chip))
        .collect();
    if sensors.is_empty() {
        let zones = entries(&class.join("thermal"), "thermal_zone");
        sensors = zones.iter().map(|zone| thermal_zone(zone)).collect();
    }
    sensors.truncate(MOST);
    number_doubles(&mut sensors);
    sensors
}

/// The temperatures of one chip: <https://docs.kernel.org/hwmon/sysfs-interface.html>
fn hwmon(chip: &Path) -> Vec<Sensor> {
    let driver = word(&chip.join("name")).unwrap_or_else(|| "hwmon".into());
    if DISKS.contains(&driver.as_str()) {
        return Vec::new();
    }
    let mut inputs: Vec<PathBuf> = entries(chip, "temp");
    inputs.retain(|file| file.to_string_lossy().ends_with("_input"));
    let sensor = |input: PathBuf| {
        let name = input.file_name()?.to_str()?.strip_suffix("_input")?;
        let label = word(&chip.join(format!("{name}_label"))).unwrap_or_else(|| name.to_owned());
        let of_a_core = driver == "coretemp" && label.starts_with("Core ");
        let critical_c = celsius(&chip.join(format!("{name}_crit")));
        (!of_a_core).then(|| Sensor {
            label: format!("{driver} {label}"),
            input,
            critical_c,
        })
    };
    inputs.into_iter().filter_map(sensor).collect()
}

/// <https://docs.kernel.org/driver-api/thermal/sysfs-api.html>; boards without hwmon have these.
fn thermal_zone(zone: &Path) -> Sensor {
    Sensor {
        label: word(&zone.join("type")).unwrap_or_else(|| "thermal".into()),
        input: zone.join("temp"),
        critical_c: None,
    }
}

/// Two processors of one kind have sensors of one name.
fn number_doubles(sensors: &mut [Sensor]) {
    let mut seen = BTreeSet::new();
    for sensor in sensors {
        let label = sensor.label.clone();
        let mut number = 1;
        while !seen.insert(sensor.label.clone()) {
            number += 1;
            sensor.label = format!("{label} #{number}");
        }
    }
}

/// Sensors that are not wired up say 0, −128, 255 and the like.
fn celsius(file: &Path) -> Option<f64> {
    let milli: f64 = word(file)?.parse().ok()?;
    let celsius = milli / 1_000.0;
    (celsius > 0.0 && celsius < 150.0).then_some(celsius)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(class: &Path, file: &str, text: &str) {
        let file = class.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn labels(temperatures: &[Temperature]) -> Vec<(&str, f64, Option<f64>)> {
        temperatures
            .iter()
            .map(|sensor| {
                (
                    sensor.label.as_str(),
                    sensor.temperature_c,
                    sensor.critical_c,
                )
            })
            .collect()
    }

    #[test]
    fn packages_and_boards_but_no_cores_and_no_disks() {
        let class = tempfile::tempdir().unwrap();
        let class = class.path();
        for (file, text) in [
            ("hwmon/hwmon0/name", "coretemp\n"),
            ("hwmon/hwmon0/temp1_input", "45000\n"),
            ("hwmon/hwmon0/temp1_label", "Package id 0\n"),
            ("hwmon/hwmon0/temp1_crit", "100000\n"),
            ("hwmon/hwmon0/temp2_input", "44000\n"),
            ("hwmon/hwmon0/temp2_label", "Core 0\n"),
            ("hwmon/hwmon1/name", "nvme\n"),
            ("hwmon/hwmon1/temp1_input", "40000\n"),
            ("hwmon/hwmon2/name", "nct6775\n"),
            ("hwmon/hwmon2/temp1_input", "-128000\n"),
            ("hwmon/hwmon2/temp2_input", "31500\n"),
            ("hwmon/hwmon2/temp3_input", "nonsense\n"),
            ("hwmon/hwmon2/temp4_input", "255000\n"),
            ("hwmon/hwmon2/in0_input", "1000\n"),
            ("hwmon/hwmon3/name", "k10temp\n"),
            ("hwmon/hwmon3/temp1_input", "50000\n"),
            ("hwmon/hwmon4/name", "k10temp\n"),
            ("hwmon/hwmon4/temp1_input", "51000\n"),
            ("thermal/thermal_zone0/type", "acpitz\n"),
            ("thermal/thermal_zone0/temp", "27800\n"),
        ] {
            write(class, file, text);
        }
        let clock = Clock::start(None);
        let mut sensors = Sensors::default();
        assert_eq!(
            labels(&sensors.read(class, &clock)),
            [
                ("coretemp Package id 0", 45.0, Some(100.0)),
                ("nct6775 temp2", 31.5, None),
                ("k10temp temp1", 50.0, None),
                ("k10temp temp1 #2", 51.0, None),
            ]
        );

        std::fs::remove_dir_all(class.join("hwmon")).unwrap();
        let mut seen = Vec::new();
        for _ in 0..SEARCH_EVERY {
            seen = sensors.read(class, &clock);
        }
        assert_eq!(labels(&seen), [("acpitz", 27.8, None)]);
    }

    #[test]
    fn a_machine_without_sensors_has_none() {
        let seen = Sensors::default().read(Path::new("/nonexistent"), &Clock::start(None));
        assert_eq!(seen, []);
    }
}
