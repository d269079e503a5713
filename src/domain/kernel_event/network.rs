//! The words of network interfaces.

use super::{Heard, KernelEvent, Wording, pci, plain};

pub(super) const WORDINGS: &[Wording] = &[
    Wording {
        needle: "ink is ",
        words: &["ink is Down", "ink is down"],
        read: |text| link(text, &["NIC Link is Down", "Link is Down", "Link is down"]).map(down),
        source: "drivers/net/ethernet/intel/{igb,e1000e,ixgbe,i40e,igc}, realtek/r8169_main.c, broadcom/{tg3,bnxt}; drivers/net/phy/phy.c",
    },
    Wording {
        needle: "ink is ",
        words: &["ink is Up", "ink is up"],
        read: |text| link(text, &["NIC Link is Up", "Link is Up", "Link is up"]).map(up),
        source: "the same",
    },
    Wording {
        needle: "ink down",
        words: &[],
        read: |text| link(text, &["Link down", "link down"]).map(down),
        source: "drivers/net/ethernet/mellanox/mlx5/core/en_main.c; realtek/r8169.c before 5.0",
    },
    Wording {
        needle: "ink up",
        words: &[],
        read: |text| link(text, &["Link up", "link up"]).map(up),
        source: "the same",
    },
    Wording {
        needle: "NETDEV WATCHDOG: ",
        words: &[" timed out"],
        read: |text| watchdog(text).map(|nic| KernelEvent::NicTxTimeout { nic }.into()),
        source: "net/sched/sch_generic.c dev_watchdog; behind the driver's name since 6.4",
    },
];

fn down(nic: String) -> Heard {
    KernelEvent::NicDown { nic }.into()
}

fn up(nic: String) -> Heard {
    KernelEvent::NicUp { nic }.into()
}

/// The interface before one of `words`: `igb 0000:03:00.0 eth0: igb: eth0 NIC Link is Down`,
/// `r8169 0000:02:00.0 enp2s0: Link is Down`, `tg3 0000:01:00.0: eth0: Link is down`, `e1000e: eth0 NIC Link is Down`.
fn link(text: &str, words: &[&str]) -> Option<String> {
    let before = words
        .iter()
        .find_map(|words| Some(text.split_once(words)?.0))?;
    if let Some(nic) = interface(before) {
        return Some(nic);
    }
    // Drivers of before 3.8 print no address.
    const OLD: [&str; 5] = ["e1000: ", "e1000e: ", "igb: ", "ixgbe: ", "bnx2: "];
    let said = OLD.iter().find_map(|driver| before.strip_prefix(driver))?;
    name(said.trim())
}

/// The interface in `igb 0000:03:00.0 eth0: igb: eth0 `: behind the driver and the device's address. An address of
/// another bus than PCI must not end in a colon, as it does before what a USB device calls itself.
fn interface(before: &str) -> Option<String> {
    let mut words = before.split_whitespace();
    let (driver, address) = (words.next()?, words.next()?);
    let is_driver = driver
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    let is_address = pci(address).is_some() || !address.ends_with(':');
    let nic = words.next_back().filter(|_| is_driver && is_address)?;
    name(nic.trim_end_matches(':'))
}

/// `NETDEV WATCHDOG: eth0 (igb): transmit queue 3 timed out`,
/// `igb 0000:03:00.0 eth0: NETDEV WATCHDOG: CPU: 3: transmit queue 0 timed out 5376 ms`.
fn watchdog(text: &str) -> Option<String> {
    let (before, said) = text.split_once("NETDEV WATCHDOG: ")?;
    if before.is_empty() {
        name(said.split(' ').next()?)
    } else {
        interface(before)
    }
}

/// Linux's names have at most 15 characters.
fn name(nic: &str) -> Option<String> {
    plain(nic).filter(|nic| nic.len() <= 15 && !nic.contains(':'))
}
