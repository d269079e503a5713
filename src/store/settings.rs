//! The copy of the parameters that SSM gave last: `settings.json`, so that a node starts with them also without uplink.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::domain::settings::{Kept, VERSION};

/// The file's name in `paths.state`.
pub const FILE: &str = "settings.json";

/// Ten parameters of 8 KiB, twice, are far less.
const LARGEST: u64 = 1 << 20;

/// What was written last in `folder`; `None` where nothing ever was.
///
/// # Errors
/// The file can't be read, or is no copy of this version's.
pub fn read(folder: &Path) -> io::Result<Option<Kept>> {
    let file = match File::open(folder.join(FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    // serde's words may quote what stands there, and it may be secret.
    let damaged = |_| io::Error::other("it is damaged");
    let kept: Kept = serde_json::from_slice(&bytes).map_err(damaged)?;
    if kept.version != VERSION {
        return Err(io::Error::other(format!(
            "it is of version {}, not {VERSION}",
            kept.version
        )));
    }
    Ok(Some(kept))
}

/// Writes it whole, for root's eyes alone: a crash leaves the old one or the new one.
///
/// # Errors
/// The disk can't be written.
pub fn write(folder: &Path, kept: &Kept) -> io::Result<()> {
    let (path, new) = (folder.join(FILE), folder.join("settings.json.new"));
    // One that a crash left may be somebody else's, or readable.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::domain::settings::Parameter;

    #[test]
    fn what_was_written_is_read_and_nobody_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(read(folder).unwrap(), None);
        // A crash in the middle of a write.
        fs::write(folder.join("settings.json.new"), "{\"version\"").unwrap();
        for version in [1, 2] {
            let mut kept = Kept::default();
            kept.good.push(Parameter {
                name: "/a".to_owned(),
                version,
                value: "[node]\nsite = \"north\"\n".to_owned(),
            });
            write(folder, &kept).unwrap();
            assert_eq!(read(folder).unwrap(), Some(kept));
        }
        let mode = fs::metadata(folder.join(FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = fs::read_dir(folder).unwrap().count();
        assert_eq!(files, 1, "the new one has become the old one");
    }

    #[test]
    fn what_is_damaged_is_told_without_its_words() {
        let folder = tempfile::tempdir().unwrap();
        for (text, wanted) in [
            ("", "it is damaged"),
            ("{\"version\":1,\"good\":[\"secret\"]}", "it is damaged"),
            ("\0\0\0\0", "it is damaged"),
            (
                "{\"version\":2,\"good\":[],\"trial\":null,\"refused\":[]}",
                "it is of version 2, not 1",
            ),
        ] {
            fs::write(folder.path().join(FILE), text).unwrap();
            let error = read(folder.path()).unwrap_err();
            assert_eq!(error.to_string(), wanted, "{text}");
        }
    }
}
