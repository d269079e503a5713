//! The files that the SSM agent takes into SSM Inventory: no call, no permission, no network.
//!
//! They lie in the state folder, which is all that the service may write to; in the SSM agent's folder stand symbolic
//! links to them, which it follows. The links are made once, with more power than the service has.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::assets::{Assets, Document, FILES};
use crate::domain::report::Report;

/// In the state folder.
const FOLDER: &str = "ssm-inventory";

/// What changes more often is written as it is then; the SSM agent looks every half hour at most.
const BETWEEN: Duration = Duration::from_secs(60);

/// What managed instances are called, and folders of theirs.
const INSTANCE: &str = "mi-";

/// Where the files and the links to them are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The SSM agent's folder, in which its registration lies.
    pub ssm: PathBuf,
    /// The managed instance; `None`: there are to be no links.
    pub instance: Option<String>,
    /// sideline's state folder.
    pub state: PathBuf,
}

/// A link that was made or taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// This is a link to a file of ours now.
    Made(PathBuf),
    /// This was one.
    TakenAway(PathBuf),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Made(link) => write!(f, "linked {}", link.display()),
            Change::TakenAway(link) => write!(f, "took away {}", link.display()),
        }
    }
}

impl Places {
    /// Of this configuration; `instance` is the managed instance that this machine is registered as.
    #[must_use]
    pub fn new(config: &Config, instance: Option<&str>) -> Self {
        let ssm = config.aws.registration.parent().unwrap_or(Path::new("/"));
        let instance = instance.filter(|_| config.ssm.inventory);
        Places {
            ssm: ssm.to_owned(),
            instance: instance.map(str::to_owned),
            state: config.paths.state.clone(),
        }
    }

    /// Makes the links that are missing and takes those away that are not wanted (any more). Where they are right
    /// nothing is done.
    ///
    /// # Errors
    /// A folder that can't be written to; something else in a link's place.
    pub fn link(&self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        for instance in self.instances()? {
            if self.instance.as_ref() != Some(&instance) {
                for link in FILES.map(|file| self.custom(&instance).join(file)) {
                    if self.is_ours(&link) {
                        fs::remove_file(&link)?;
                        changes.push(Change::TakenAway(link));
                    }
                }
            }
        }
        let Some(instance) = &self.instance else {
            return Ok(changes);
        };
        let custom = self.custom(instance);
        for file in FILES {
            let (link, target) = (custom.join(file), self.state.join(FOLDER).join(file));
            match fs::read_link(&link) {
                Ok(known) if known == target => continue,
                // It is a link, of an earlier configuration.
                Ok(_) => fs::remove_file(&link)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // As the SSM agent makes its own.
                    let mut folders = DirBuilder::new();
                    folders.recursive(true).mode(0o700).create(&custom)?;
                }
                Err(error) => {
                    let link = link.display();
                    return Err(io::Error::new(error.kind(), format!("{link}: {error}")));
                }
            }
            symlink(&target, &link)?;
            changes.push(Change::Made(link));
        }
        Ok(changes)
    }

    /// Where the SSM agent looks.
    fn custom(&self, instance: &str) -> PathBuf {
        self.ssm.join(instance).join("inventory/custom")
    }

    /// Managed instances that this machine is or was.
    fn instances(&self) -> io::Result<Vec<String>> {
        let folders = match fs::read_dir(&self.ssm) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            folders => folders?,
        };
        let names = folders.filter_map(|folder| folder.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| name.starts_with(INSTANCE)).collect())
    }

    /// Whether it is a link to one of our files, wherever the state folder was.
    fn is_ours(&self, link: &Path) -> bool {
        let target = fs::read_link(link).ok();
        target.is_some_and(|target| {
            target
                .parent()
                .is_some_and(|folder| folder.ends_with(FOLDER))
        })
    }

    /// Writes one document, whole, if it is not there already.
    fn write(&self, (file, text): &Document) -> io::Result<()> {
        let folder = self.state.join(FOLDER);
        let path = folder.join(file);
        if fs::read(&path).is_ok_and(|known| known == text.as_bytes()) {
            return Ok(());
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let draft = folder.join(format!("{file}.new"));
        fs::write(&draft, text)?;
        fs::rename(draft, path)
    }

    /// What is there no more is told no more, even where a link is left.
    fn clear(&self) {
        // It is not there at all where nothing was ever told.
        let _ = fs::remove_dir_all(self.state.join(FOLDER));
    }
}

/// Keeps links and files as `places` and `reports` say, until it is cancelled.
///
/// # Errors
/// None: what can't be written is in the log.
pub async fn run(
    places: Places,
    mut reports: watch::Receiver<Option<Arc<Report>>>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let places = Arc::new(places);
    let mut trouble = Trouble::default();
    let linked = apart(&places, |places| {
        if places.instance.is_none() {
            places.clear();
        }
        places.link()
    });
    match linked.await {
        // Nothing is to be told, and who can't take a link away has none to what is there.
        Err(_) if places.instance.is_none() => {}
        linked => trouble.note(
            "can't be linked; run `sideline inventory link` as root",
            linked,
        ),
    }
    if places.instance.is_none() {
        return Ok(());
    }
    let mut assets = Assets::default();
    let mut documents: Vec<Document> = Vec::new();
    let mut written: BTreeMap<&str, (String, Instant)> = BTreeMap::new();
    loop {
        let now = Instant::now();
        // What was never written is written at once.
        let due = |(file, text): &Document| match written.get(file) {
            Some((known, _)) if known == text => None,
            Some((_, at)) => Some(*at + BETWEEN),
            None => Some(now),
        };
        let next = documents
            .iter()
            .filter_map(|document| Some((due(document)?, document)));
        let next = next.min_by_key(|(due, _)| *due);
        if let Some((_, document)) = next.filter(|(due, _)| *due <= now) {
            let (file, text) = document.clone();
            let document = document.clone();
            let done = apart(&places, move |places| places.write(&document)).await;
            // What could not be written is tried again.
            let text = done.as_ref().map_or(String::new(), |()| text);
            written.insert(file, (text, now));
            trouble.note("can't be written", done);
            continue;
        }
        let next = next.map(|(due, _)| due);
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = at(next) => {}
            changed = reports.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                if let Some(report) = reports.borrow_and_update().as_deref() {
                    documents = assets.documents(report);
                }
            }
        }
    }
}

async fn at(wake: Option<Instant>) {
    match wake {
        Some(wake) => sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// Away from the agent's own thread: a disk may hang.
async fn apart<T: Send + 'static>(
    places: &Arc<Places>,
    work: impl FnOnce(&Places) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let places = Arc::clone(places);
    let done = tokio::task::spawn_blocking(move || work(&places)).await;
    done.unwrap_or_else(|broken| Err(io::Error::other(broken)))
}

/// What was wrong last, so that it is told once.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

impl Trouble {
    fn note<T>(&mut self, what: &str, done: io::Result<T>) {
        let error = done.err().map(|error| error.to_string());
        if let Some(error) = error
            .as_ref()
            .filter(|error| self.0.as_ref() != Some(error))
        {
            tracing::warn!(error, "the inventory for SSM {what}");
        }
        self.0 = error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path, instance: Option<&str>) -> Places {
        Places {
            ssm: folder.join("ssm"),
            instance: instance.map(str::to_owned),
            state: folder.join("state"),
        }
    }

    /// The links below the SSM agent's folder that lead to a file.
    fn leads_somewhere(places: &Places, instance: &str) -> Vec<bool> {
        let link = |file: &str| places.custom(instance).join(file);
        FILES.map(|file| link(file).is_file()).into()
    }

    #[test]
    fn links_follow_the_registration() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = ("mi-0123456789abcdef0", "mi-0fedcba9876543210");
        // The instance; how many links are made and taken away; again nothing is done.
        for (instance, made, taken) in [
            (None, 0, 0),
            (Some(one), 3, 0),
            (Some(other), 3, 3),
            (None, 0, 3),
            (Some(one), 3, 0),
        ] {
            let places = places(folder.path(), instance);
            let changes = places.link().unwrap();
            let is_made = |change: &&Change| matches!(change, Change::Made(_));
            let count = changes.iter().filter(is_made).count();
            assert_eq!(
                (count, changes.len() - count),
                (made, taken),
                "{instance:?}"
            );
            assert_eq!(places.link().unwrap(), [], "{instance:?}");
        }
        let places = places(folder.path(), Some(one));
        assert_eq!(leads_somewhere(&places, one), [false; 3]);
        for file in FILES {
            places.write(&(file, "{}".to_owned())).unwrap();
        }
        assert_eq!(leads_somewhere(&places, one), [true; 3]);
        places.clear();
        assert_eq!(leads_somewhere(&places, one), [false; 3]);
    }

    #[test]
    fn what_is_somebody_elses_stays() {
        let folder = tempfile::tempdir().unwrap();
        let instance = "mi-0123456789abcdef0";
        let on = places(folder.path(), Some(instance));
        let custom = on.custom(instance);
        fs::create_dir_all(&custom).unwrap();
        fs::write(custom.join("rack.json"), "{}").unwrap();
        fs::write(custom.join(FILES[0]), "by hand").unwrap();
        let error = on.link().unwrap_err().to_string();
        assert!(error.contains(FILES[0]), "{error}");
        assert_eq!(places(folder.path(), None).link().unwrap(), []);
        assert_eq!(fs::read(custom.join(FILES[0])).unwrap(), b"by hand");
        assert!(custom.join("rack.json").is_file());
    }

    #[test]
    fn links_to_an_earlier_state_folder_are_moved() {
        let folder = tempfile::tempdir().unwrap();
        let before = places(folder.path(), Some("mi-1"));
        before.link().unwrap();
        let after = Places {
            state: folder.path().join("elsewhere"),
            ..before
        };
        assert_eq!(after.link().unwrap().len(), 3);
        let target = fs::read_link(after.custom("mi-1").join(FILES[0])).unwrap();
        assert!(target.starts_with(&after.state), "{}", target.display());
    }
}
