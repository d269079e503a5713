//! What processors and memory controllers count: slow-downs for heat, and bit errors.

use std::path::Path;

use super::sysfs::{entries, name, number};
use crate::domain::snapshot::MemoryController;

/// More than a board has.
const MOST_CONTROLLERS: usize = 64;

/// How often CPUs slowed down for heat, by the counters below `cpus` (/sys/devices/system/cpu). Only Intel's count
/// (kernel documentation, ABI/testing/sysfs-devices-system-cpu).
pub(super) fn throttles(cpus: &Path) -> Option<u64> {
    let mut total = None;
    for cpu in entries(cpus, "cpu") {
        for counter in ["core_throttle_count", "package_throttle_count"] {
            if let Some(count) = number::<u64>(&cpu.join("thermal_throttle").join(counter)) {
                total = Some(count.saturating_add(total.unwrap_or(0)));
            }
        }
    }
    total
}

/// The memory controllers below `folder` (/sys/devices/system/edac/mc): <https://docs.kernel.org/admin-guide/RAS/main.html>
pub(super) fn memory_controllers(folder: &Path) -> Vec<MemoryController> {
    let mut controllers: Vec<MemoryController> = entries(folder, "mc")
        .iter()
        .filter_map(|controller| {
            Some(MemoryController {
                name: name(controller),
                corrected: number(&controller.join("ce_count"))?,
                uncorrected: number(&controller.join("ue_count"))?,
            })
        })
        .collect();
    controllers.truncate(MOST_CONTROLLERS);
    controllers
}

#[cfg(test)]
mod tests {
    use super::super::sysfs::plant;
    use super::*;

    #[test]
    fn counters_are_added_up() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(throttles(root), None, "no counters are not zero");
        plant(
            root,
            &[
                ("cpu0/thermal_throttle/core_throttle_count", "3"),
                ("cpu0/thermal_throttle/package_throttle_count", "40"),
                ("cpu10/thermal_throttle/core_throttle_count", "0"),
                ("cpu10/thermal_throttle/package_throttle_count", "nonsense"),
                ("cpufreq/policy0/x", "1"),
            ],
        );
        assert_eq!(throttles(root), Some(43));
    }

    #[test]
    fn a_controller_that_can_not_be_read_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        assert_eq!(memory_controllers(root), []);
        plant(
            root,
            &[
                ("mc0/ce_count", "12"),
                ("mc0/ue_count", "1"),
                ("mc1/ce_count", "7"),
                ("power/control", "auto"),
            ],
        );
        let expected = MemoryController {
            name: "mc0".into(),
            corrected: 12,
            uncorrected: 1,
        };
        assert_eq!(memory_controllers(root), [expected]);
    }
}
