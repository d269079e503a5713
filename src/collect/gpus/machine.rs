//! What the machine shows of its GPUs without the vendor's library.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::probe;
use crate::domain::snapshot::PciGpu;

/// Where loaders look for libraries that no configuration of theirs names, and where containers and WSL put this one.
const LIBRARY_FOLDERS: [&str; 10] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "lib64",
    "lib",
    "usr/local/lib",
    "usr/local/nvidia/lib64",
    "usr/lib/wsl/lib",
    "run/opengl-driver/lib",
];

/// The file system that is looked at.
#[derive(Debug, Clone)]
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine under a root; `/` is this one.
    pub(super) fn at(root: impl Into<PathBuf>) -> Self {
        Machine { root: root.into() }
    }

    /// Where its processes are listed.
    pub(super) fn proc(&self) -> PathBuf {
        self.root.join("proc")
    }

    /// NVIDIA's display and 3D controllers on the PCI bus, in the order of their addresses.
    pub(super) fn bus(&self) -> Vec<PciGpu> {
        let Ok(devices) = fs::read_dir(self.root.join("sys/bus/pci/devices")) else {
            return Vec::new();
        };
        let mut found: Vec<PciGpu> = devices
            .filter_map(|device| {
                let device = device.ok()?;
                is_gpu(&device.path()).then_some(())?;
                let address = device.file_name().into_string().ok()?;
                Some(pci_gpu(&device.path(), address.split('.').next()?))
            })
            .collect();
        found.sort_unstable_by(|one, other| one.pci.cmp(&other.pci));
        found.dedup_by(|one, other| one.pci == other.pci);
        found
    }

    /// Whether `libnvidia-ml.so.1` lies where the loader finds it. `search`: the value of `LD_LIBRARY_PATH`.
    pub(super) fn has_library(&self, search: &str) -> bool {
        let named = search.split([':', ';']).filter(|folder| !folder.is_empty());
        named
            .map(PathBuf::from)
            .chain(LIBRARY_FOLDERS.iter().map(|folder| self.root.join(folder)))
            .any(|folder| folder.join(probe::LIBRARY).exists())
    }

    /// A probe in uninterruptible sleep, left behind by this agent or the one before it: its process id.
    pub(super) fn stuck_probe(&self) -> Option<u32> {
        fs::read_dir(self.root.join("proc"))
            .ok()?
            .filter_map(|process| {
                let process = process.ok()?;
                let id = process.file_name().to_str()?.parse().ok()?;
                let stat = fs::read_to_string(process.path().join("stat")).ok()?;
                is_stuck_probe(&stat).then_some(id)
            })
            .next()
    }
}

/// What sysfs says of one controller.
fn pci_gpu(device: &Path, address: &str) -> PciGpu {
    let read = |file: &str| fs::read_to_string(device.join(file)).ok();
    let driver = fs::read_link(device.join("driver")).ok();
    let mut gpu = PciGpu {
        pci: address.to_owned(),
        driver: driver
            .as_deref()
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned()),
        ..PciGpu::default()
    };
    // All that follows asks the card itself. One that sleeps would be woken, and waking a card that is broken may
    // take for ever. A kernel without power management has no such file.
    let status = read("power/runtime_status");
    if status.is_some_and(|status| !matches!(status.trim(), "active" | "unsupported")) {
        return gpu;
    }
    gpu.answers = answers(device);
    if gpu.answers != Some(false) {
        let speed = |file| read(file).as_deref().and_then(link_speed);
        let width = |file| read(file).as_deref().and_then(link_width);
        gpu.link_gts = speed("current_link_speed");
        gpu.link_gts_max = speed("max_link_speed");
        gpu.link_width = width("current_link_width");
        gpu.link_width_max = width("max_link_width");
    }
    gpu
}

/// Whether the vendor's number can still be read from the card's configuration space: `vendor` in sysfs is what was
/// found there when the machine started.
fn answers(device: &Path) -> Option<bool> {
    let mut vendor = [0; 2];
    let mut config = File::open(device.join("config")).ok()?;
    config.read_exact(&mut vendor).ok()?;
    Some(vendor != [0xff; 2])
}

/// `16.0 GT/s PCIe`; older kernels leave the last word out, and say `Unknown` (speed).
fn link_speed(text: &str) -> Option<f64> {
    let speed: f64 = text.split_whitespace().next()?.parse().ok()?;
    (0.0 < speed && speed <= 1000.0).then_some(speed)
}

/// Lanes: 0 and 255 mean that there is no link.
fn link_width(text: &str) -> Option<u32> {
    let lanes = text.trim().parse().ok()?;
    (1..=32).contains(&lanes).then_some(lanes)
}

/// NVIDIA's vendor number, and the class of displays (VGA and 3D).
fn is_gpu(device: &Path) -> bool {
    let starts =
        |file, with| fs::read_to_string(device.join(file)).is_ok_and(|text| text.starts_with(with));
    starts("vendor", "0x10de") && starts("class", "0x03")
}

/// `1234 (name) D 1 …`: names may hold blanks and brackets.
fn is_stuck_probe(stat: &str) -> bool {
    let named = stat.split_once('(').zip(stat.rsplit_once(')'));
    named.is_some_and(|((_, name), (_, state))| {
        name.starts_with(&format!("{})", probe::NAME)) && state.trim_start().starts_with('D')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bus_tells_gpus_from_the_rest() {
        let root = tempfile::tempdir().unwrap();
        for (address, vendor, class) in [
            ("0000:c1:00.0", "0x10de", "0x030200"),
            ("0000:01:00.0", "0x10de", "0x030000"),
            ("0000:01:00.1", "0x10de", "0x040300"),
            ("0000:00:02.0", "0x8086", "0x030000"),
        ] {
            let device = root.path().join("sys/bus/pci/devices").join(address);
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(device.join("class"), format!("{class}\n")).unwrap();
        }
        let machine = Machine::at(root.path());
        let addresses: Vec<String> = machine.bus().into_iter().map(|gpu| gpu.pci).collect();
        assert_eq!(addresses, ["0000:01:00", "0000:c1:00"]);
        assert!(Machine::at("/nonexistent").bus().is_empty());
    }

    #[test]
    fn the_bus_says_how_a_card_is_linked_and_whether_it_answers() {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/bus/pci/devices/0000:01:00.0");
        fs::create_dir_all(device.join("power")).unwrap();
        let write = |file: &str, text: &[u8]| fs::write(device.join(file), text).unwrap();
        write("vendor", b"0x10de\n");
        write("class", b"0x030200\n");
        let machine = Machine::at(root.path());
        let seen = || machine.bus().pop().unwrap();
        let bare = PciGpu {
            pci: "0000:01:00".into(),
            ..PciGpu::default()
        };
        assert_eq!(seen(), bare);

        for driver in ["nvidia", "vfio-pci"] {
            let link = device.join("driver");
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(format!("../../bus/pci/drivers/{driver}"), link).unwrap();
            assert_eq!(seen().driver.as_deref(), Some(driver));
        }
        write("config", b"\xde\x10\xb8\x27");
        write("current_link_speed", b"2.5 GT/s PCIe\n");
        write("max_link_speed", b"16.0 GT/s PCIe\n");
        write("current_link_width", b"8\n");
        write("max_link_width", b"16\n");
        let awake = PciGpu {
            answers: Some(true),
            driver: Some("vfio-pci".into()),
            link_gts: Some(2.5),
            link_gts_max: Some(16.0),
            link_width: Some(8),
            link_width_max: Some(16),
            ..bare.clone()
        };
        for (status, known) in [
            ("active", true),
            ("unsupported", true),
            ("suspended", false),
            ("resuming", false),
        ] {
            write("power/runtime_status", format!("{status}\n").as_bytes());
            assert_eq!(seen() == awake, known, "{status}");
            assert_eq!(seen().answers, known.then_some(true), "{status}");
        }
        write("power/runtime_status", b"active\n");
        write("config", b"\xff\xff\xff\xff");
        let off = seen();
        assert_eq!((off.answers, off.link_gts), (Some(false), None));
        assert_eq!(off.driver, awake.driver);
    }

    #[test]
    fn a_link_that_is_not_known_is_none() {
        for (text, expected) in [
            ("16.0 GT/s PCIe\n", Some(16.0)),
            ("8 GT/s", Some(8.0)),
            ("Unknown\n", None),
            ("Unknown speed\n", None),
            ("", None),
        ] {
            assert_eq!(link_speed(text), expected, "{text:?}");
        }
        for (text, expected) in [("16\n", Some(16)), ("0\n", None), ("255\n", None)] {
            assert_eq!(link_width(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_library_is_looked_for_where_the_loader_looks() {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::at(root.path());
        let elsewhere = root.path().join("opt");
        let search = format!("/nonexistent:{}", elsewhere.display());
        assert!(!machine.has_library(&search));
        for folder in ["opt", "usr/lib64"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(elsewhere.join(probe::LIBRARY), "").unwrap();
        assert!(machine.has_library(&search));
        assert!(!machine.has_library(""));
        fs::write(root.path().join("usr/lib64").join(probe::LIBRARY), "").unwrap();
        assert!(machine.has_library(""));
    }

    #[test]
    fn a_probe_that_sleeps_uninterruptibly_is_stuck() {
        for (stat, expected) in [
            ("812 (sideline-probe) D 1 812", true),
            ("812 (sideline-probe) S 1 812", false),
            ("812 (sideline) D 1 812", false),
            ("812 (a (sideline-probe) D) S 1 812", false),
            ("812 (kworker/u8:1) D 2 0", false),
            ("", false),
        ] {
            assert_eq!(is_stuck_probe(stat), expected, "{stat:?}");
        }
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::at(root.path());
        assert_eq!(machine.stuck_probe(), None);
        for (id, state) in [("11", "S"), ("812", "D"), ("self", "D")] {
            fs::create_dir_all(root.path().join("proc").join(id)).unwrap();
            let stat = format!("{id} (sideline-probe) {state} 1");
            fs::write(root.path().join("proc").join(id).join("stat"), stat).unwrap();
        }
        assert_eq!(machine.stuck_probe(), Some(812));
    }
}
