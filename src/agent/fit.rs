//! The file that is there while the node may take new work, for workers that pull theirs from a queue.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::domain::report::Report;

/// Beside the socket: `/run/sideline/fit`.
const NAME: &str = "fit";

/// Keeps the file in step with the report.
#[derive(Debug)]
pub(super) struct FitFile {
    path: PathBuf,
    /// What it says; `None` where it could not be written.
    says: Option<bool>,
}

impl FitFile {
    /// In this folder. What an agent that was killed left there goes: nobody knows yet.
    pub(super) fn in_folder(folder: &Path) -> Self {
        let mut file = FitFile {
            path: folder.join(NAME),
            says: None,
        };
        file.set(false);
        file
    }

    /// Makes it say what the report does.
    pub(super) fn follow(&mut self, report: &Report) {
        self.set(report.is_fit());
    }

    fn set(&mut self, fit: bool) {
        if self.says == Some(fit) {
            return;
        }
        let done = match fit {
            // For every user of the machine, whatever the service's umask.
            true => fs::write(&self.path, b"")
                .and_then(|()| fs::set_permissions(&self.path, Permissions::from_mode(0o644))),
            false => match fs::remove_file(&self.path) {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                done => done,
            },
        };
        match done {
            Ok(()) => self.says = Some(fit),
            Err(error) => {
                let file = self.path.display();
                tracing::error!(%file, fit, "can't say whether this node is fit: {error}");
            }
        }
    }
}

/// An agent that stops knows nothing any more.
impl Drop for FitFile {
    fn drop(&mut self) {
        self.set(false);
    }
}
