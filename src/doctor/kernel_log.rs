//! The kernel log: whether it can be read.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::FileType;

use super::check::{Check, Found, on_disk};
use super::scene::{AS_ROOT, Scene, is_hidden};

/// The kernel's log.
const KMSG: &str = "/dev/kmsg";

/// Its number (Documentation/admin-guide/devices.txt).
const NUMBER: (u32, u32) = (1, 11);

pub(super) async fn look(scene: Arc<Scene>) -> Check {
    let path = scene.config.kernel_log.path.clone();
    on_disk("kernel_log", Box::new(move || readable(&path))).await
}

/// Whether the log is our standard input: an agent that may not open it is given it so, and reads on there. It is not
/// read here, where the agent would miss what was.
fn is_handed_over() -> bool {
    rustix::fs::fstat(std::io::stdin()).is_ok_and(|stat| {
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        device && stat.st_rdev == rustix::fs::makedev(NUMBER.0, NUMBER.1)
    })
}

fn readable(path: &Path) -> Found {
    let shown = path.display();
    if path == Path::new(KMSG) && is_handed_over() {
        return Found::ok(format!("{shown} was handed over by the unit"));
    }
    // Opening a FIFO would wait for its writer.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path);
    // /dev/kmsg can be opened by some who may not read it. One record is at most 8 KiB.
    let read = opened.and_then(|mut file| file.read(&mut [0; 8192]));
    match read {
        Ok(_) => Found::ok(format!("{shown} can be read")),
        // Nothing to read just now, or the oldest record was overwritten meanwhile.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe) => {
            Found::ok(format!("{shown} can be read"))
        }
        Err(error) if is_hidden(&error) => Found::warn(
            format!("{shown} can't be read by this user: {error}"),
            AS_ROOT,
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => Found::fail(
            format!("{shown} does not exist"),
            "[kernel_log] path = \"/dev/kmsg\"   # in /etc/sideline/sideline.toml",
        ),
        Err(error) => Found::fail(
            format!("{shown} can't be read: {error}"),
            "systemctl show sideline -p StandardInput -p DeviceAllow   # must be file:/dev/kmsg, and hold /dev/kmsg r",
        ),
    }
}
