//! Keeps what outlives the agent in `paths.state`; in memory only where it can't be written.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::domain::memory::Memory;

/// The file's name.
const FILE: &str = "memory.json";

/// What outlives the agent, and where it is kept.
#[derive(Debug)]
pub struct Store {
    memory: Memory,
    path: PathBuf,
    broken: bool,
}

impl Store {
    /// Opens the store in `folder`; what can't be read is set aside, never a reason not to start.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let memory = read(&path).unwrap_or_else(|why| {
            let aside = path.with_extension("json.corrupt");
            tracing::warn!(path = %path.display(), why, aside = %aside.display(), "memory can't be read: set aside");
            // Where even that fails, the next save says why.
            let _ = fs::rename(&path, aside);
            Memory::default()
        });
        Store {
            memory,
            path,
            broken: false,
        }
    }

    /// What is remembered.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What is remembered, to be changed; `save` keeps it.
    pub fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// Writes the memory: a new file, flushed to the disk, put in the place of the old one.
    pub fn save(&mut self) {
        match self.write() {
            Ok(()) => self.broken = false,
            Err(error) => {
                if !self.broken {
                    tracing::error!(path = %self.path.display(), %error, "memory can't be written: a restart will forget");
                }
                self.broken = true;
            }
        }
    }

    fn write(&self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let fresh = self.path.with_extension("json.new");
        let mut file = fs::File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(&self.memory)?)?;
        file.sync_data()?;
        fs::rename(fresh, &self.path)
    }
}

fn read(path: &Path) -> Result<Memory, String> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_found_again_and_garbage_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path());
        assert_eq!(*store.memory(), Memory::default());
        store.memory_mut().seq = 48_211;
        store.save();
        assert_eq!(Store::open(folder.path()).memory().seq, 48_211);

        fs::write(folder.path().join(FILE), b"{\"seq\": ").unwrap();
        assert_eq!(Store::open(folder.path()).memory().seq, 0);
        assert!(folder.path().join("memory.json.corrupt").exists());
    }
}
