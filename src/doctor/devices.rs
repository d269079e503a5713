//! The nodes in /dev that NVIDIA's library opens.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::Access;

use super::check::{Check, Found, on_disk};
use super::scene::{AS_ROOT, Scene, is_hidden};
use crate::config::Enabled;

/// The name of the check.
pub(super) const NAME: &str = "gpu.devices";

/// The driver's own node: opening it touches no card.
const CONTROL: &str = "dev/nvidiactl";

pub(super) async fn look(scene: Arc<Scene>) -> Check {
    on_disk(NAME, Box::new(move || usable(&scene))).await
}

fn usable(scene: &Scene) -> Found {
    if scene.config.gpu.enabled == Enabled::Never {
        return Found::unused("gpu.enabled is never");
    }
    let control = scene.system(CONTROL);
    let cards = cards(&scene.system("dev"));
    let driver = scene.system("proc/driver/nvidia/version").exists();
    if !control.exists() {
        return match (driver, cards.is_empty()) {
            (false, true) => Found::unused("NVIDIA's driver is not loaded"),
            (true, _) | (false, false) => Found::fail(
                "NVIDIA's driver is loaded, but /dev/nvidiactl is not there",
                "sudo nvidia-modprobe -c 0 -u && ls -l /dev/nvidia*",
            ),
        };
    }
    // Only an open shows what the sandbox's list of devices forbids. A card's own node is not opened: that would wake
    // a card that sleeps, or hang with one that is sick.
    let opened = OpenOptions::new().read(true).write(true).open(&control);
    match opened {
        Ok(_) => {}
        Err(error) if is_hidden(&error) => {
            return Found::warn(format!("/dev/nvidiactl can't be opened: {error}"), AS_ROOT);
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return Found::fail(
                "/dev/nvidiactl is forbidden by the sandbox",
                "systemctl show sideline -p DeviceAllow   # must hold char-nvidia rw",
            );
        }
        Err(error) => {
            return Found::fail(
                format!("/dev/nvidiactl can't be opened: {error}"),
                "sudo modprobe nvidia && ls -l /dev/nvidia*",
            );
        }
    }
    let both = Access::READ_OK | Access::WRITE_OK;
    for card in &cards {
        if rustix::fs::access(scene.system("dev").join(card), both).is_err() {
            return Found::fail(
                format!("/dev/{card} can't be read and written"),
                format!(
                    "sudo chmod 666 /dev/{card}   # for good: NVreg_DeviceFileMode=0666 of module nvidia"
                ),
            );
        }
    }
    match cards.as_slice() {
        [] => Found::warn(
            "/dev/nvidiactl is there, but no /dev/nvidia0",
            "sudo nvidia-modprobe -c 0 && sudo systemctl enable --now nvidia-persistenced",
        ),
        cards => Found::ok(format!(
            "/dev/nvidiactl and {} can be used",
            cards.join(", ")
        )),
    }
}

/// `nvidia0`, `nvidia1`, …
fn cards(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let is_card = |name: &String| {
        let number = name.strip_prefix("nvidia").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    };
    let mut cards: Vec<String> = names.filter(is_card).collect();
    cards.sort_unstable();
    cards
}
