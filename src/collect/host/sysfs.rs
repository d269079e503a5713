//! Files of /sys and /proc: one word or number each.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The text of a file without the white space around it; `None` where there is none.
pub(super) fn word(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The number in a file.
pub(super) fn number<T: FromStr>(file: &Path) -> Option<T> {
    word(file)?.parse().ok()
}

/// Entries whose name starts with `prefix`, in an order that does not change: `cpu2` before `cpu10`.
pub(super) fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort_unstable_by_key(|path| (path.as_os_str().len(), path.clone()));
    found
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Writes a tree of files, and links where the text starts with `->`.
#[cfg(test)]
pub(super) fn plant(root: &Path, files: &[(&str, &str)]) {
    for (file, text) in files {
        let file = root.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        match text.strip_prefix("->") {
            Some(target) => std::os::unix::fs::symlink(root.join(target), file).unwrap(),
            None => std::fs::write(file, format!("{text}\n")).unwrap(),
        }
    }
}
