//! What can still be read of a damaged file.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rangemap::RangeInclusiveSet;

use super::database::Database;
use super::rows::{Destination, Row};
use crate::domain::outbox::Number;

/// Looks for readable records so often in vain, then gives up.
const PATIENCE: u32 = 20_000;

/// Asks for so many missing records one by one, the newest first.
const MISSING: usize = 200_000;

/// No number is so far beyond the last one that is known: the mark may be a few behind, or gone.
const BEYOND: Number = 1 << 20;

/// Reads every record that SQLite can still find: where a page is damaged, the search goes on behind it. `known` have
/// a fate already, and `last` is the last number that is known of.
pub(super) fn rescue(
    from: &Database,
    of: Destination,
    known: RangeInclusiveSet<Number>,
    last: Number,
    each: &mut impl FnMut(Row),
) {
    let (mut patience, mut found) = (PATIENCE, known);
    search(from, of, 0..=last + BEYOND, &mut patience, &mut |row| {
        found.insert(row.number..=row.number);
        each(row);
    });
    // A key that is damaged ends a range too early without a word; its neighbours are found by their own.
    let missing: Vec<_> = found.gaps(&(1..=last.max(1))).collect();
    for number in missing.into_iter().flatten().rev().take(MISSING) {
        if let Ok(Some(row)) = from.fetch(of, number) {
            each(row);
        }
    }
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
