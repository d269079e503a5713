//! Network interfaces that carry traffic off the machine, and their rates.
//!
//! Read from /sys/class/net, five small files an interface: sysinfo reads fifteen of every one, the bridges and
//! virtual pairs of each container among them, and asks drivers for their link speed.

use std::collections::BTreeMap;
use std::path::Path;

use super::sysfs::{number, word};
use crate::domain::moment::Moment;
use crate::domain::snapshot::Network;

/// Prefixes of interfaces whose traffic stays on the machine or is counted again on a real interface.
const INNER: [&str; 20] = [
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
    "tailscale",
    "tun",
    "wg",
];

/// More interfaces than a camera server has.
const MOST: usize = 64;

/// What is kept of the previous look.
#[derive(Debug, Default)]
pub(super) struct Counters {
    at: Moment,
    bytes: BTreeMap<String, Bytes>,
    speeds: BTreeMap<String, Speed>,
}

/// What a link was negotiated to, and how often it had changed by then. Reading it asks the driver, under the lock
/// that a sick one may hold; it only changes when the link does.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Speed {
    changes: u64,
    mbps: Option<u32>,
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
            let state = word(&interface.join("operstate"));
            let up = state.and_then(|state| is_up(&state));
            let physical = is_physical(&interface);
            let carrier_changes: Option<u64> = number(&interface.join("carrier_changes"));
            if physical && up == Some(true) {
                self.look_at_speed(&name, &interface, carrier_changes.unwrap_or(0));
            }
            let speed = self.speeds.get(&name).and_then(|speed| speed.mbps);
            networks.push(Network {
                physical,
                mac: word(&interface.join("address")),
                up,
                speed_mbps: speed.filter(|_| up == Some(true)),
                carrier_changes_total: carrier_changes,
                received_bytes_per_s: received,
                sent_bytes_per_s: sent,
                errors_total: both(&interface, "errors"),
                dropped_total: both(&interface, "dropped"),
                packets_total: both(&interface, "packets"),
                name: name.clone(),
            });
            self.bytes.insert(name, now);
        }
        self.speeds.retain(|name, _| self.bytes.contains_key(name));
        networks
    }

    fn look_at_speed(&mut self, name: &str, interface: &Path, changes: u64) {
        let known = self.speeds.get(name);
        if known.is_none_or(|speed| speed.changes != changes) {
            let mbps = number(&interface.join("speed"));
            let speed = Speed { changes, mbps };
            self.speeds.insert(name.to_owned(), speed);
        }
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
    names.sort_unstable();
    names.truncate(MOST);
    names
}

fn bytes(interface: &Path) -> Option<Bytes> {
    Some(Bytes {
        received: number(&interface.join("statistics/rx_bytes"))?,
        sent: number(&interface.join("statistics/tx_bytes"))?,
    })
}

/// A counter of both directions.
fn both(interface: &Path, what: &str) -> Option<u64> {
    let received: u64 = number(&interface.join(format!("statistics/rx_{what}")))?;
    let sent = number(&interface.join(format!("statistics/tx_{what}")))?;
    Some(received.saturating_add(sent))
}

/// Whether a device stands behind it: bridges, bonds, VLANs and tunnels have none.
fn is_physical(interface: &Path) -> bool {
    let device = std::fs::canonicalize(interface.join("device"));
    device.is_ok_and(|device| !device.to_string_lossy().contains("/devices/virtual/"))
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

    use super::super::sysfs::plant;
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
            ("rx_dropped", 7),
            ("tx_dropped", 0),
            ("rx_packets", 100),
            ("tx_packets", 50),
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
                dropped_total: Some(7),
                packets_total: Some(150),
                ..Network::default()
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
    fn a_speed_is_read_anew_only_when_the_link_has_changed() {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("net");
        write(&net, "eno1", "up", 1, 1);
        write(&net, "bond0", "up", 1, 1);
        plant(
            root.path(),
            &[
                ("devices/pci0000:00/0000:02:00.0/vendor", "0x8086"),
                ("net/eno1/device", "->devices/pci0000:00/0000:02:00.0"),
                ("net/eno1/address", "aa:bb:cc:dd:ee:ff"),
                ("net/bond0/speed", "2000"),
            ],
        );
        let mut counters = Counters::default();
        // state, speed, carrier changes → speed told
        for (state, speed, changes, expected) in [
            ("up", "1000", "2", Some(1000)),
            ("up", "100", "2", Some(1000)),
            ("up", "100", "4", Some(100)),
            ("down", "-1", "5", None),
            ("up", "1000", "6", Some(1000)),
            ("up", "-1", "8", None),
        ] {
            write(&net, "eno1", state, 1, 1);
            std::fs::write(net.join("eno1/speed"), speed).unwrap();
            std::fs::write(net.join("eno1/carrier_changes"), changes).unwrap();
            let seen = counters.read(&net, Moment::BOOT);
            let [bond, eno1] = seen.as_slice() else {
                panic!("{seen:?}");
            };
            assert_eq!(eno1.speed_mbps, expected, "{state} {speed} {changes}");
            assert_eq!(eno1.carrier_changes_total, changes.parse().ok());
            assert_eq!(eno1.mac.as_deref(), Some("aa:bb:cc:dd:ee:ff"));
            assert!(eno1.physical && !bond.physical);
            assert_eq!(bond.speed_mbps, None, "only a device is asked");
        }
    }

    #[test]
    fn no_sysfs_is_no_interfaces() {
        let mut counters = Counters::default();
        assert_eq!(counters.read(Path::new("/nonexistent"), Moment::BOOT), []);
    }
}
