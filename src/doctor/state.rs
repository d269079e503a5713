//! The state folder: whose it is, whether it can be written, how much room it has, and whether the store is whole.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use bytesize::ByteSize;
use futures_util::FutureExt;

use super::check::{Check, Found, on_disk, together};
use super::scene::{AS_ROOT, Scene, is_hidden, is_root};
use crate::store::FILE;
use crate::store::inspect::Outboxes;

/// With less, nothing can be kept.
const TOO_LITTLE: u64 = 16 << 20;

/// The name of the check.
const NAME: &str = "state";

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    let (one, other) = (Arc::clone(&scene), Arc::clone(&scene));
    together(vec![
        folder(one).boxed(),
        on_disk("state.space", Box::new(move || space(&other))).boxed(),
        on_disk(
            "state.outbox",
            Box::new(move || outbox(&scene.config.paths.state)),
        )
        .boxed(),
    ])
    .await
}

pub(super) async fn folder(scene: Arc<Scene>) -> Check {
    on_disk(NAME, Box::new(move || kept(&scene.config.paths.state))).await
}

fn kept(folder: &Path) -> Found {
    let shown = folder.display();
    let metadata = match fs::metadata(folder) {
        Ok(metadata) => metadata,
        Err(error) if is_hidden(&error) => return hidden(folder, &error),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Found::warn(
                format!("{shown} is not there yet: no agent has started with this configuration"),
                "sudo systemctl enable --now sideline",
            );
        }
        Err(error) => return Found::fail(format!("{shown}: {error}"), format!("ls -ld {shown}")),
    };
    if !metadata.is_dir() {
        return Found::fail(
            format!("{shown} is no folder"),
            format!("sudo mv {shown} {shown}.old && sudo systemctl restart sideline"),
        );
    }
    let (own, owner) = (rustix::process::geteuid().as_raw(), metadata.uid());
    if owner != own {
        return match is_root() {
            true => Found::warn(
                format!("{shown} belongs to user {owner}, not to root"),
                format!("sudo chown -R root: {shown}"),
            ),
            false => Found::warn(
                format!("{shown} is another user's: only they can look into it"),
                AS_ROOT,
            ),
        };
    }
    if metadata.mode() & 0o022 != 0 {
        return Found::fail(
            format!(
                "others than its owner may write {shown}, and so put words into the agent's mouth"
            ),
            format!("sudo chmod 700 {shown}"),
        );
    }
    match write(folder) {
        Ok(()) => Found::ok(format!("{shown} can be written")),
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => Found::fail(
            format!("{shown} is on a file system that is mounted read-only"),
            format!(
                "sudo dmesg | tail && sudo mount -o remount,rw $(findmnt -no TARGET -T {shown})"
            ),
        ),
        Err(error) => Found::fail(
            format!("{shown} can't be written: {error}"),
            format!("df -h {shown} && sudo chown -R root: {shown} && sudo chmod 700 {shown}"),
        ),
    }
}

fn hidden(folder: &Path, error: &io::Error) -> Found {
    Found::warn(
        format!("{} can't be looked at: {error}", folder.display()),
        AS_ROOT,
    )
}

/// Writes a byte and takes it away.
fn write(folder: &Path) -> io::Result<()> {
    let file = folder.join(format!(".doctor-{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&file)
        .and_then(|mut opened| io::Write::write_all(&mut opened, b"?"));
    // It was never made where that failed.
    let _ = fs::remove_file(&file);
    written
}

fn space(scene: &Scene) -> Found {
    let folder = &scene.config.paths.state;
    // Of a folder that is not there yet, where it would be.
    let there = folder.ancestors().find(|folder| folder.exists());
    let there = there.unwrap_or(Path::new("/"));
    let free = match rustix::fs::statvfs(there) {
        Ok(found) => found.f_bavail.saturating_mul(found.f_frsize),
        Err(error) => {
            return Found::fail(format!("{}: {error}", there.display()), "df -h");
        }
    };
    let size = |name: &str| fs::metadata(folder.join(name)).map_or(0, |file| file.len());
    let held = size(FILE) + size(&format!("{FILE}-wal"));
    room(folder, free, held, scene.config.outbox.max_bytes.as_u64())
}

/// Whether the outbox, which holds `held` bytes, can grow to `most` with `free` bytes left.
fn room(folder: &Path, free: u64, held: u64, most: u64) -> Found {
    let shown = folder.display();
    let bytes = |count: u64| ByteSize::b(count);
    if free < TOO_LITTLE {
        return Found::fail(
            format!(
                "{} is free where {shown} is: nothing can be kept",
                bytes(free)
            ),
            format!("sudo du -xh $(findmnt -no TARGET -T {shown}) | sort -h | tail -n 20"),
        );
    }
    let wanted = most.saturating_sub(held);
    if free < wanted {
        return Found::warn(
            format!(
                "{} is free where {shown} is, and the outbox may grow by {}",
                bytes(free),
                bytes(wanted)
            ),
            format!(
                "[outbox] max_bytes = \"{}MiB\"   # or make room",
                ((held + free) / 2) >> 20
            ),
        );
    }
    Found::ok(format!(
        "{} free, the outbox needs at most {}",
        bytes(free),
        bytes(wanted)
    ))
}

fn outbox(folder: &Path) -> Found {
    let aside = set_aside(folder);
    if let Some(file) = aside.first() {
        return Found::warn(
            format!(
                "a damaged store was set aside ({} files): {file}",
                aside.len()
            ),
            format!(
                "sudo rm {}/{FILE}.corrupt-*   # when nobody wants to look into it",
                folder.display()
            ),
        );
    }
    let outboxes = match Outboxes::open(folder) {
        Ok(outboxes) if outboxes.exist() => outboxes,
        Ok(_) => return Found::unused("nothing was kept yet"),
        Err(why) if !is_root() => return Found::warn(why.to_string(), AS_ROOT),
        Err(why) => {
            return Found::fail(
                why.to_string(),
                "sudo systemctl restart sideline   # it sets a damaged store aside and goes on",
            );
        }
    };
    // What a payload means is the outlets' business: `sideline outbox verify` asks them, too.
    let found = outboxes.verify(&|_, _| true);
    if let Some(problem) = found.problems.first() {
        return Found::fail(
            format!("{} problems, the first: {problem}", found.problems.len()),
            "sideline outbox verify; sudo systemctl restart sideline",
        );
    }
    Found::ok(format!(
        "whole; {} wait, {} are gone",
        found.waiting, found.gone
    ))
}

fn set_aside(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.starts_with(&format!("{FILE}.corrupt-")))
        .collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::State;

    #[test]
    fn room_for_the_outbox() {
        const MIB: u64 = 1 << 20;
        for (free, held, most, state) in [
            (500 * MIB, 0, 256 * MIB, State::Ok),
            (100 * MIB, 200 * MIB, 256 * MIB, State::Ok),
            (100 * MIB, 0, 256 * MIB, State::Warn),
            (15 * MIB, 300 * MIB, 256 * MIB, State::Fail),
            (0, 0, 0, State::Fail),
        ] {
            let found = room(Path::new("/s"), free, held, most);
            assert_eq!(found.state, state, "{free} {held} {most}: {found:?}");
        }
        let told = room(Path::new("/s"), 100 * MIB, 0, 256 * MIB);
        assert_eq!(
            told.mend.unwrap(),
            "[outbox] max_bytes = \"50MiB\"   # or make room"
        );
    }
}
