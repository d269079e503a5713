//! What the machine shows of its GPUs without the vendor's library.

use std::fs;
use std::path::{Path, PathBuf};

use super::probe;

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

    /// NVIDIA's display and 3D controllers on the PCI bus, as `0000:01:00`, in order.
    pub(super) fn pci(&self) -> Vec<String> {
        let Ok(devices) = fs::read_dir(self.root.join("sys/bus/pci/devices")) else {
            return Vec::new();
        };
        let mut found: Vec<String> = devices
            .filter_map(|device| {
                let device = device.ok()?;
                is_gpu(&device.path()).then_some(())?;
                let address = device.file_name().into_string().ok()?;
                Some(address.split('.').next()?.to_owned())
            })
            .collect();
        found.sort();
        found.dedup();
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
        assert_eq!(machine.pci(), ["0000:01:00", "0000:c1:00"]);
        assert!(Machine::at("/nonexistent").pci().is_empty());
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
