//! What can still be read of a damaged file.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::database::Database;
use super::rows::{Destination, Row};
use crate::domain::outbox::Number;

/// Looks for readable records so often in vain, then gives up.
const PATIENCE: u32 = 20_000;

/// Reads every record that SQLite can still find: where a page is damaged, the search goes on behind it.
pub(super) fn rescue(from: &Database, of: Destination, last: Number, each: &mut impl FnMut(Row)) {
    let mut patience = PATIENCE;
    search(from, of, 0..=last, &mut patience, each);
}

/// Halves a range that can't be read to its end, until what is readable is read.
fn search(
    from: &Database,
    of: Destination,
    range: RangeInclusive<Number>,
    patience: &mut u32,
    each: &mut impl FnMut(Row),
) {
    let mut next = *range.start();
    let read = from.rows(of, &range, |row| {
        next = row.number + 1;
        each(row);
    });
    let last = *range.end();
    if read.is_ok() || next > last || *patience == 0 {
        return;
    }
    *patience -= 1;
    if range.start() == range.end() {
        return;
    }
    let middle = next + (last - next) / 2;
    search(from, of, next..=middle, patience, each);
    if middle < last {
        search(from, of, middle + 1..=last, patience, each);
    }
}

/// Renames the file and its log, so that an empty one can take its place; only the latest such file is kept.
/// Returns its new name.
pub(super) fn set_aside(file: &Path, now: Timestamp) -> std::io::Result<PathBuf> {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{name}.corrupt-");
    for old in fs::read_dir(file.parent().unwrap_or(Path::new(".")))?.flatten() {
        if old.file_name().to_string_lossy().starts_with(&prefix) {
            fs::remove_file(old.path())?;
        }
    }
    let aside = file.with_file_name(format!("{prefix}{}", now.strftime("%Y%m%dT%H%M%SZ")));
    for suffix in ["-wal", ""] {
        let with_suffix = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        match fs::rename(with_suffix(file), with_suffix(&aside)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // The index into the log is made anew by whoever opens it.
    match fs::remove_file(file.with_file_name(format!("{name}-shm"))) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(aside)
}
