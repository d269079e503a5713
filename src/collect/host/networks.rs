//! Network interfaces that carry traffic off the machine, and their rates.
//!
//! Read from /sys/class/net, five small files an interface: sysinfo reads fifteen of every one, the bridges and
//! virtual pairs of each container among them, and asks drivers for their link speed.

use std::collections::BTreeMap;
use std::path::Path;

use crate::domain::moment::Moment;
use crate::domain::snapshot::Network;

/// Prefixes of interfaces whose traffic stays on the machine or is counted again on a real interface.
const INNER: [&str; 17] = [
    "lo",
    "docker",
    "veth",
    "br-",
    "virbr",
    "vnet",
    "tap",
    "cni",
    "flannel",
    "cali",
    "podman",
    "lxc",
    "lxdbr",
    "ecs-",
    "ifb",
    "dummy",
    "nodelocaldns",
];

/// More interfaces than a camera server has.
const MOST: usize = 64;

/// Byte counters of the previous look.
#[derive(Debug, Default)]
pub(super) struct Counters {
    at: Moment,
    bytes: BTreeMap<String, Bytes>,
}

#[derive(Debug, Clone, Copy)]
struct Bytes {
    received: u64,
    sent: u64,
}

impl Counters {
    /// Reads the interfaces below `folder` (/sys/class/net); rates are over the time since the previous look.
    pub(super) fn read(&mut self, folder: &Path, at: Moment) -> Vec<Network> {
        let before = std::mem::take(&mut self.bytes);
        let seconds = (at - self.at).as_secs_f64();
        self.at = at;

        let mut networks = Vec::new();
        for name in names(folder) {
            let interface = folder.join(&name);
            let Some(now) = bytes(&interface) else {
                continue;
            };
            let rates = before.get(&name).map(|before| now.rates(*before, seconds));
            let (received, sent) = rates.unwrap_or_default();
            networks.push(Network {
                up: std::fs::read_to_string(interface.join("operstate"))
                    .ok()
                    .and_then(|state| is_up(state.trim())),
                received_bytes_per_s: received,
                sent_bytes_per_s: sent,
                errors_total: errors(&interface),
                name: name.clone(),
            });
            self.bytes.insert(name, now);
        }
        networks
    }
}

impl Bytes {
    /// A counter that went back was reset, by its driver or with its interface: no rate then.
    fn rates(self, before: Bytes, seconds: f64) -> (Option<f64>, Option<f64>) {
        let rate = |now: u64, before: u64| {
            let grown = now.checked_sub(before)?;
            (seconds > 0.0).then(|| super::hundredths(grown as f64 / seconds))
        };
        (
            rate(self.received, before.received),
            rate(self.sent, before.sent),
        )
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !INNER.iter().any(|inner| name.starts_with(inner)))
        .collect();
    names.sort();
    names.truncate(MOST);
    names
}

fn bytes(interface: &Path) -> Option<Bytes> {
    Some(Bytes {
        received: number(&interface.join("statistics/rx_bytes"))?,
        sent: number(&interface.join("statistics/tx_bytes"))?,
    })
}

fn errors(interface: &Path) -> Option<u64> {
    let received = number(&interface.join("statistics/rx_errors"))?;
    let sent = number(&interface.join("statistics/tx_errors"))?;
    Some(received.saturating_add(sent))
}

fn number(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The states of RFC 2863 as the kernel writes them; `unknown` is what drivers without link detection say.
fn is_up(state: &str) -> Option<bool> {
    match state {
        "up" => Some(true),
        "down" | "lowerlayerdown" | "notpresent" | "dormant" | "testing" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn write(folder: &Path, name: &str, state: &str, received: u64, sent: u64) {
        let statistics = folder.join(name).join("statistics");
        std::fs::create_dir_all(&statistics).unwrap();
        std::fs::write(folder.join(name).join("operstate"), format!("{state}\n")).unwrap();
        for (counter, value) in [
            ("rx_bytes", received),
            ("tx_bytes", sent),
            ("rx_errors", 2),
            ("tx_errors", 3),
        ] {
            std::fs::write(statistics.join(counter), format!("{value}\n")).unwrap();
        }
    }

    #[test]
    fn rates_are_over_the_time_between_and_never_negative() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        std::fs::write(folder.join("bonding_masters"), "bond0\n").unwrap();
        for name in ["lo", "docker0", "veth1a2b", "br-77", "virbr0"] {
            write(folder, name, "up", 1, 1);
        }
        let at = |seconds| Moment::after_boot(Duration::from_secs(seconds));
        let mut counters = Counters::default();
        // seconds, state, received, sent → up, received a second, sent a second
        for (seconds, state, received, sent, up, rates) in [
            (10, "up", 1_000, 500, Some(true), (None, None)),
            (20, "up", 3_000, 500, Some(true), (Some(200.0), Some(0.0))),
            (30, "down", 9, 600, Some(false), (None, Some(10.0))),
            (40, "unknown", 19, 600, None, (Some(1.0), Some(0.0))),
            (40, "up", 29, 600, Some(true), (None, None)),
        ] {
            write(folder, "eno1", state, received, sent);
            let seen = counters.read(folder, at(seconds));
            let expected = Network {
                name: "eno1".into(),
                up,
                received_bytes_per_s: rates.0,
                sent_bytes_per_s: rates.1,
                errors_total: Some(5),
            };
            assert_eq!(seen, [expected], "at {seconds}");
        }
        std::fs::remove_dir_all(folder.join("eno1")).unwrap();
        assert_eq!(counters.read(folder, at(50)), []);
        write(folder, "eno1", "up", 1, 1);
        let back = counters.read(folder, at(60));
        assert_eq!(
            back[0].received_bytes_per_s, None,
            "a new interface has no rate"
        );
    }

    #[test]
    fn no_sysfs_is_no_interfaces() {
        let mut counters = Counters::default();
        assert_eq!(counters.read(Path::new("/nonexistent"), Moment::BOOT), []);
    }
}
