//! The finding codes that judge.rules may name.
//!
//! They stand here, and not only in `domain`, because the configuration is below it; a test holds the two together.

/// Every finding code of the outside but the family `gpu.xid.<N>`, also those that this version does not raise yet:
/// a fleet's configuration is written for its newest agents.
pub const CODES: [&str; 50] = [
    "gpu.lost",
    "gpu.missing",
    "gpu.hung",
    "gpu.probe_crashed",
    "gpu.driver",
    "gpu.hot",
    "gpu.power_brake",
    "gpu.hw_slowdown",
    "gpu.fan_stopped",
    "gpu.ecc_uncorrectable",
    "gpu.ecc_rate",
    "gpu.row_remap_failed",
    "gpu.row_remap_pending",
    "gpu.retired_pages",
    "gpu.recovery_action",
    "gpu.pcie_degraded",
    "gpu.pcie_replays",
    "gpu.clocks_stuck",
    "gpu.memory_stuck",
    "gpu.slow_answers",
    "host.disk_full",
    "host.disk_io",
    "host.disk_wear",
    "host.fs_readonly",
    "host.memory",
    "host.oom",
    "host.memory_ecc",
    "host.machine_check",
    "host.cpu_throttled",
    "host.hung_task",
    "host.pcie_errors",
    "host.clock",
    "host.unclean_restart",
    "host.nic",
    "host.power",
    "host.check",
    "host.disk_missing",
    "host.memory_missing",
    "camera.down",
    "camera.degraded",
    "camera.unknown",
    "cameras.group",
    "ingest.down",
    "agent.credentials",
    "agent.identity",
    "agent.outbox_loss",
    "agent.config_rejected",
    "agent.kernel_log_gap",
    "agent.ecs",
    "agent.drain_held",
];

/// The family of the driver's error numbers: `gpu.xid.79`.
pub const XID: &str = "gpu.xid.";

/// Whether a key of judge.rules names a code or, with a `*` at its end, at least one.
#[must_use]
pub fn known(key: &str) -> bool {
    match (key.strip_suffix('*'), key.strip_prefix(XID)) {
        (Some(family), _) => {
            XID.starts_with(family) || CODES.iter().any(|code| code.starts_with(family))
        }
        (None, Some(number)) => number
            .parse::<u32>()
            .is_ok_and(|parsed| parsed.to_string() == number),
        (None, None) => CODES.contains(&key),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn codes_and_families_are_known() {
        for (key, wanted) in [
            ("gpu.lost", true),
            ("gpu.xid.79", true),
            ("gpu.xid.*", true),
            ("gpu.*", true),
            ("host.disk_*", true),
            ("agent.outbox_loss", true),
            ("gpu.xid", false),
            ("gpu.xid.", false),
            ("gpu.xid.079", false),
            ("gpu.xid.-1", false),
            ("gpu.xid.7*", false),
            ("disk.*", false),
            ("", false),
        ] {
            assert_eq!(super::known(key), wanted, "{key}");
        }
    }
}
