//! Credentials that are read afresh for every request: the SSM agent renews them by rewriting their file.
//!
//! aws-config reads a credentials file once and keeps it for ever, so a node would fall silent within the hour.
//! The SSM agent truncates the file and writes it again, so a reader can meet any beginning of it.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_runtime::env_config::section::EnvConfigSections;
use aws_runtime::env_config::source;
use aws_types::os_shim_internal::{Env, Fs};
use backon::{ConstantBuilder, Retryable};
use jiff::Timestamp;
use serde_json::Value;

use super::aws::innermost;
use crate::clock::Clock;
use crate::config;
use crate::domain::identity::{self, Source};

/// A set is used for a minute at most before it is read again.
const AT_MOST: Duration = Duration::from_secs(60);

/// A file this young may be half written.
const SETTLED: Duration = Duration::from_millis(50);

/// How often, and how far apart, a file that is being rewritten is read again.
const READS_AGAIN: usize = 5;
const BETWEEN_READS: Duration = Duration::from_millis(30);

/// How long a set whose expiry is not known stands in for a file that has become unreadable.
const STANDS_IN: Duration = Duration::from_secs(600);

/// A credentials file has some 1,500 bytes a profile.
const LONGEST_FILE: u64 = 256 * 1024;

/// Where this node's credentials come from; clones share what was read last.
#[derive(Debug, Clone)]
pub struct NodeCredentials {
    origin: Origin,
    last_good: Arc<Mutex<Option<Good>>>,
    /// What AWS said when it refused a set last, until it takes one.
    refused: Arc<Mutex<Option<String>>>,
    clock: Clock,
}

#[derive(Debug, Clone)]
enum Origin {
    Environment(Credentials),
    File(Arc<CredentialsFile>),
}

/// A complete set, and until when it may stand in for a broken file.
#[derive(Debug, Clone)]
struct Good {
    credentials: Credentials,
    until: Timestamp,
}

impl NodeCredentials {
    /// `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of the environment, else the file of `aws.credentials`, else of
    /// `AWS_SHARED_CREDENTIALS_FILE`, else root's, which the SSM agent writes; for an ordinary user their own.
    /// `env` looks up an environment variable; nothing is read from disk yet.
    #[must_use]
    pub fn new(
        config: &config::Aws,
        env: impl Fn(&str) -> Option<String>,
        clock: Clock,
    ) -> NodeCredentials {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        let keys = env("AWS_ACCESS_KEY_ID").zip(env("AWS_SECRET_ACCESS_KEY"));
        let origin = match keys {
            Some((key, secret)) => Origin::Environment(Credentials::new(
                key,
                secret,
                env("AWS_SESSION_TOKEN"),
                None,
                "environment",
            )),
            None => Origin::File(Arc::new(CredentialsFile::new(config, env))),
        };
        NodeCredentials {
            origin,
            last_good: Arc::default(),
            refused: Arc::default(),
            clock,
        }
    }

    /// Whether a complete set can be found now.
    pub async fn available(&self) -> bool {
        self.read().await.is_ok()
    }

    /// AWS has refused what was read last, in these words: it must not stand in for a broken file.
    pub fn refused(&self, said: &str) {
        self.forget();
        *lock(&self.refused) = Some(said.to_owned());
    }

    /// AWS has taken what was read last.
    pub fn taken(&self) {
        *lock(&self.refused) = None;
    }

    /// The file that they are read from; `None`: they stand in the environment.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.origin {
            Origin::Environment(_) => None,
            Origin::File(file) => Some(&file.path),
        }
    }

    /// How they are, without any part of them.
    pub async fn look(&self) -> identity::Credentials {
        let read = self.read().await;
        let (source, file, expires_at) = match &self.origin {
            Origin::Environment(_) => (Source::Environment, None, None),
            Origin::File(file) => {
                let path = file.path.display().to_string();
                let source = if file.path.exists() {
                    Source::File
                } else {
                    Source::None
                };
                (source, Some(path), file.sharing().expires_at)
            }
        };
        identity::Credentials {
            source: Some(source),
            file,
            expires_at,
            // AKIA are a user's own keys; a session's come with a token.
            long_lived: read.as_ref().ok().map(|set| {
                set.session_token().is_none() && set.access_key_id().starts_with("AKIA")
            }),
            problem: read.err().map(|error| innermost(&error)),
            refused: lock(&self.refused).clone(),
        }
    }

    fn forget(&self) {
        *self.last_good() = None;
    }

    async fn read(&self) -> provider::Result {
        let file = match &self.origin {
            Origin::Environment(credentials) => return Ok(credentials.clone()),
            Origin::File(file) => file,
        };
        let had_token = self
            .last_good()
            .as_ref()
            .is_some_and(|good| good.credentials.session_token().is_some());
        let again = ConstantBuilder::default()
            .with_delay(BETWEEN_READS)
            .with_max_times(READS_AGAIN);
        let read = (|| file.read(had_token, SETTLED))
            .retry(again)
            .sleep(tokio::time::sleep)
            .when(Trouble::passes)
            .await;

        let now = self.clock.now().wall;
        match read {
            Ok(set) => {
                let soon = now.saturating_add(AT_MOST).unwrap_or(now);
                let expiry = set.expires_at.map_or(soon, |at| at.min(soon));
                let mut credentials = set.credentials;
                *credentials.expiry_mut() = Some(expiry.into());
                let until = now.saturating_add(STANDS_IN).unwrap_or(now);
                *self.last_good() = Some(Good {
                    credentials: credentials.clone(),
                    until: set.expires_at.unwrap_or(until),
                });
                Ok(credentials)
            }
            // Whoever removes the file means it.
            Err(trouble @ Trouble::Missing { .. }) => {
                self.forget();
                Err(CredentialsError::not_loaded(trouble))
            }
            Err(
                trouble @ (Trouble::Unreadable { .. }
                | Trouble::Changing { .. }
                | Trouble::Incomplete { .. }),
            ) => {
                let good = self.last_good().clone();
                good.filter(|good| now < good.until)
                    .map(|good| good.credentials)
                    .ok_or_else(|| CredentialsError::provider_error(trouble))
            }
        }
    }

    fn last_good(&self) -> MutexGuard<'_, Option<Good>> {
        lock(&self.last_good)
    }
}

/// Every change is whole by itself, so a panic elsewhere leaves nothing half done.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ProvideCredentials for NodeCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.read())
    }
}

/// Whether an AWS error code says that the credentials were renewed or revoked: forget them, read again and retry.
#[must_use]
pub fn is_refusal(code: &str) -> bool {
    matches!(
        code,
        "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidClientTokenId"
            | "UnrecognizedClient"
            | "UnrecognizedClientException"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
    )
}

/// Why there are no credentials. Never holds any part of them.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("there is no credentials file {}", path.display())]
    Missing { path: PathBuf },
    #[error("credentials file {} can't be read: {why}", path.display())]
    Unreadable { path: PathBuf, why: String },
    #[error("credentials file {} is being rewritten", path.display())]
    Changing { path: PathBuf },
    #[error("credentials file {}, profile {profile}: {what}", path.display())]
    Incomplete {
        path: PathBuf,
        profile: String,
        what: &'static str,
    },
}

impl Trouble {
    /// Whether it may be gone in a moment.
    fn passes(&self) -> bool {
        match self {
            Trouble::Changing { .. } | Trouble::Incomplete { .. } => true,
            Trouble::Missing { .. } | Trouble::Unreadable { .. } => false,
        }
    }
}

/// A credentials file, and the SSM agent's word on it.
#[derive(Debug)]
struct CredentialsFile {
    path: PathBuf,
    /// `AWS_PROFILE`.
    profile: Option<String>,
    /// The SSM agent's identity_config.json.
    note: PathBuf,
}

/// A complete set of credentials.
struct Set {
    credentials: Credentials,
    expires_at: Option<Timestamp>,
}

/// What the SSM agent says of the file.
#[derive(Debug, Default, PartialEq)]
struct Sharing {
    /// It is the SSM agent who writes the file: its credentials have a token.
    shared: bool,
    profile: Option<String>,
    expires_at: Option<Timestamp>,
}

impl CredentialsFile {
    fn new(config: &config::Aws, env: impl Fn(&str) -> Option<String>) -> Self {
        let set = Some(config.credentials.clone()).filter(|path| !path.is_empty());
        let home = if rustix::process::geteuid().is_root() {
            None
        } else {
            env("HOME")
        };
        let default = || Path::new(home.as_deref().unwrap_or("/root")).join(".aws/credentials");
        let path = set.or_else(|| env("AWS_SHARED_CREDENTIALS_FILE"));
        let ssm = config.registration.parent().unwrap_or(Path::new("/"));
        CredentialsFile {
            path: path.map_or_else(default, PathBuf::from),
            profile: env("AWS_PROFILE"),
            note: ssm.join("runtimeconfig/identity_config.json"),
        }
    }

    /// Reads the file once. `settled` is the age from which a file counts as written to its end.
    async fn read(&self, had_token: bool, settled: Duration) -> Result<Set, Trouble> {
        let text = self.text(settled)?;
        let sharing = self.sharing();
        let profile = self.profile.clone().or(sharing.profile);
        let profile = profile.unwrap_or_else(|| "default".into());
        let incomplete = |what| Trouble::Incomplete {
            path: self.path.clone(),
            profile: profile.clone(),
            what,
        };

        // The parser's own words may quote the file.
        let sections = parse(text)
            .await
            .ok_or_else(|| incomplete("lines that are not like key = value"))?;
        let section = sections
            .get_profile(&profile)
            .ok_or_else(|| incomplete("no such profile"))?;
        let value = |key| section.get(key).filter(|value| !value.is_empty());
        let key = value("aws_access_key_id").ok_or_else(|| incomplete("no aws_access_key_id"))?;
        let secret =
            value("aws_secret_access_key").ok_or_else(|| incomplete("no aws_secret_access_key"))?;
        let token = value("aws_session_token");
        // AKIA are a user's own keys, which have no token; ASIA are temporary ones, which are nothing without.
        let needs_token =
            !key.starts_with("AKIA") && (key.starts_with("ASIA") || had_token || sharing.shared);
        if needs_token && token.is_none() {
            return Err(incomplete("no aws_session_token"));
        }
        Ok(Set {
            credentials: Credentials::new(key, secret, token.map(str::to_owned), None, "file"),
            expires_at: sharing.expires_at,
        })
    }

    /// The text of the file, if nobody has written to it while it was read nor just before.
    fn text(&self, settled: Duration) -> Result<String, Trouble> {
        let path = || self.path.clone();
        let unreadable = |why: String| Trouble::Unreadable { path: path(), why };
        let failed = |error: std::io::Error| {
            if error.kind() == ErrorKind::NotFound {
                Trouble::Missing { path: path() }
            } else {
                unreadable(error.to_string())
            }
        };
        // Opening a pipe would wait for its writer.
        let before = std::fs::metadata(&self.path).map_err(failed)?;
        if !before.is_file() || before.len() > LONGEST_FILE {
            return Err(unreadable("it is not a file of credentials".into()));
        }
        let mut text = Vec::new();
        let file = File::open(&self.path).map_err(failed)?;
        file.take(LONGEST_FILE + 1)
            .read_to_end(&mut text)
            .map_err(failed)?;
        let after = std::fs::metadata(&self.path).map_err(failed)?;

        let whole = text.len() as u64 == after.len() && same(&before, &after);
        // A time of change in the future is a clock that was set back, not a writer.
        let age = after
            .modified()
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if !whole || age.is_some_and(|age| age < settled) {
            return Err(Trouble::Changing { path: path() });
        }
        String::from_utf8(text).map_err(|_| unreadable("it is not text".into()))
    }

    /// What the SSM agent says; nothing if the note is missing, torn, or about another file.
    fn sharing(&self) -> Sharing {
        let note = std::fs::read(&self.note).ok();
        let Some(note) = note.and_then(|note| serde_json::from_slice::<Value>(&note).ok()) else {
            return Sharing::default();
        };
        let text = |key: &str| {
            let text = note.get(key)?.as_str()?;
            (!text.is_empty()).then(|| text.to_owned())
        };
        if text("ShareFile").as_deref().map(Path::new) != Some(self.path.as_path()) {
            return Sharing::default();
        }
        let expires_at: Option<Timestamp> =
            text("CredentialsExpiresAt").and_then(|at| at.parse().ok());
        Sharing {
            shared: true,
            profile: text("ShareProfile"),
            // A time that was never set is the year 1 in Go.
            expires_at: expires_at.filter(|at| *at > Timestamp::UNIX_EPOCH),
        }
    }
}

fn same(before: &Metadata, after: &Metadata) -> bool {
    let state = |of: &Metadata| (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec());
    state(before) == state(after)
}

/// The SDK's own parser. It is async for files; text it parses at once.
async fn parse(text: String) -> Option<EnvConfigSections> {
    let files = EnvConfigFiles::builder()
        .with_contents(EnvConfigFileKind::Credentials, text)
        .build();
    let source = source::load(&Env::from_slice(&[]), &Fs::from_slice(&[]), &files).await;
    EnvConfigSections::parse(source.ok()?).ok()
}

#[cfg(test)]
mod tests;
