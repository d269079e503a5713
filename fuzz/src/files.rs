//! Files that the SSM agent writes, whole and torn, as they lie in a folder.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use sideline::clients::credentials::NodeCredentials;
use sideline::clock::Clock;
use sideline::collect::identity;
use sideline::config::{Aws, Config};
use tempfile::TempDir;

use super::parts;

/// A registration: the node has a name that CloudWatch and MQTT take, whatever stands there.
pub(super) fn registration(input: &[u8]) {
    let folder = TempDir::new().expect("there is room for a folder");
    let mut config = Config::default();
    config.aws.registration = folder.path().join("registration");
    write(&config.aws.registration, input);
    let (identity, problems) = identity::read(&config, |_| None);

    let name = &identity.node_id;
    let usual = |c: char| c.is_ascii_graphic() && !"/+#".contains(c);
    assert!((1..=128).contains(&name.len()) && name.chars().all(usual) && !name.starts_with(':'));
    if let Some(id) = &identity.managed_instance {
        assert!(id.starts_with("mi-") && id == name, "{id} {name}");
    }
    if let Some(region) = &identity.region {
        let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(region.chars().all(usual), "{region:?}");
    }
    assert!(problems.len() <= 2, "{problems:?}");
    for problem in problems {
        assert!(!problem.contains(char::is_control), "{problem:?}");
        assert!(problem.len() <= 512, "{problem}");
    }
}

/// A credentials file, the SSM agent's note on it, in which `@FILE@` stands for its path, and the file as it is found
/// later: only complete sets are used, each of one file.
pub(super) fn credentials(input: &[u8]) {
    let parts = parts(input);
    let part = |at: usize| parts.get(at).copied().unwrap_or_default();
    let home = Home::new(part(1));
    // The name of a profile may be told, so a note that holds a secret proves nothing.
    let profile_is_told = part(1).windows(6).any(|word| word == b"SECRET");
    // tokio's pauses pass at once; a file that stays broken is read again several times.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be built");
    runtime.block_on(async {
        let provider = NodeCredentials::new(&home.config, |_| None, Clock::start(None));
        let mut texts = Vec::new();
        for text in [part(0), part(2)] {
            write(Path::new(&home.config.credentials), text);
            texts.push(String::from_utf8_lossy(text));
            match provider.provide_credentials().await {
                Ok(set) => {
                    assert!(texts.iter().any(|text| is_of(&set, text)), "mixed");
                }
                Err(error) => {
                    let error = format!("{error} {error:?}");
                    assert!(profile_is_told || !error.contains("SECRET"), "{error}");
                }
            }
        }
        let seen = format!("{:?}", provider.look().await);
        assert!(profile_is_told || !seen.contains("SECRET"), "{seen}");
        provider.refused("ExpiredToken");
    });
}

/// Whether a set is complete, for a minute at most, and all of it stands in the text.
fn is_of(set: &Credentials, text: &str) -> bool {
    let (key, secret, token) = (
        set.access_key_id(),
        set.secret_access_key(),
        set.session_token(),
    );
    assert!(!key.is_empty() && !secret.is_empty() && token != Some(""));
    assert!(!key.starts_with("ASIA") || token.is_some());
    let soon = SystemTime::now() + Duration::from_secs(61);
    assert!(set.expiry().is_some_and(|at| at <= soon));
    // A value may go on in the next line.
    let values = [key, secret, token.unwrap_or_default()];
    values
        .iter()
        .all(|value| value.lines().all(|line| text.contains(line)))
}

/// A folder with a note, and the configuration that leads there.
struct Home {
    _folder: TempDir,
    config: Aws,
}

impl Home {
    fn new(note: &[u8]) -> Self {
        let folder = TempDir::new().expect("there is room for a folder");
        let file = folder.path().join("credentials").display().to_string();
        let beside = folder.path().join("runtimeconfig");
        std::fs::create_dir(&beside).expect("the folder is ours");
        let note = String::from_utf8_lossy(note).replace("@FILE@", &file);
        write(&beside.join("identity_config.json"), note.as_bytes());
        let config = Aws {
            credentials: file,
            registration: folder.path().join("registration"),
            ..Aws::default()
        };
        Home {
            _folder: folder,
            config,
        }
    }
}

/// Writes a file that nobody has touched for long.
fn write(path: &Path, bytes: &[u8]) {
    let mut file = File::create(path).expect("the folder is ours");
    file.write_all(bytes).expect("there is room for a file");
    file.set_modified(SystemTime::UNIX_EPOCH)
        .expect("the file is ours");
}
