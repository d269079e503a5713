//! Files that are whole, broken, missing, stale, and rewritten while they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;

struct Place {
    folder: tempfile::TempDir,
    config: config::Aws,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = config::Aws {
            credentials: folder.path().join("credentials").display().to_string(),
            registration: folder.path().join("ssm/registration"),
            ..config::Aws::default()
        };
        std::fs::create_dir_all(folder.path().join("ssm/runtimeconfig")).unwrap();
        Place { folder, config }
    }

    /// Writes the file, and makes it old enough to be believed.
    fn write(&self, text: &str) {
        let mut file = File::create(&self.config.credentials).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let past = SystemTime::now() - Duration::from_secs(60);
        file.set_modified(past).unwrap();
    }

    fn note(&self, text: &str) {
        let note = "ssm/runtimeconfig/identity_config.json";
        std::fs::write(self.folder.path().join(note), text).unwrap();
    }

    /// A note as the SSM agent writes it, for credentials that expire in so many seconds.
    fn shared(&self, seconds: i64) {
        let at = Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
        let file = &self.config.credentials;
        self.note(&format!(
            r#"{{"ShareFile":"{file}","ShareProfile":"","CredentialsExpiresAt":"{at}"}}"#
        ));
    }

    fn credentials(&self) -> NodeCredentials {
        NodeCredentials::new(&self.config, |_| None, Clock::start(None))
    }
}

fn ini(number: usize) -> String {
    format!(
        "[default]\naws_access_key_id = ASIA{number:016}\naws_secret_access_key = {number:040}\n\
         aws_session_token = {number:01000}\n"
    )
}

fn seconds_left(credentials: &Credentials) -> u64 {
    let left = credentials
        .expiry()
        .unwrap()
        .duration_since(SystemTime::now());
    left.unwrap_or_default().as_secs()
}

#[tokio::test(start_paused = true)]
async fn only_complete_sets_are_taken() {
    let place = Place::new();
    let static_key = "aws_access_key_id = AKIA1\naws_secret_access_key = s\n";
    let temporary = "aws_access_key_id = ASIA1\naws_secret_access_key = s\n";
    let double = "aws_access_key_id = test\naws_secret_access_key = s\n";
    // text, shared by the SSM agent → key, or what the error says
    for (text, shared, expected) in [
        (format!("[default]\n{static_key}"), false, Ok("AKIA1")),
        (format!("[default]\n{static_key}"), true, Ok("AKIA1")),
        (
            format!("\n# x\n[ default ]\n{static_key}[b]\n"),
            false,
            Ok("AKIA1"),
        ),
        (
            format!("[default]\r\n{}", static_key.replace('\n', "\r\n")),
            false,
            Ok("AKIA1"),
        ),
        (
            format!("[default]\n{temporary}aws_session_token=a=b=="),
            false,
            Ok("ASIA1"),
        ),
        (format!("[default]\n{double}"), false, Ok("test")),
        (
            format!("[default]\n{double}"),
            true,
            Err("no aws_session_token"),
        ),
        (
            format!("[default]\n{temporary}"),
            false,
            Err("no aws_session_token"),
        ),
        (
            format!("[default]\n{temporary}aws_session_token = "),
            false,
            Err("no aws_session_token"),
        ),
        (
            format!("[default]\n{temporary}aws_session_tok"),
            false,
            Err("key = value"),
        ),
        (
            "[default]\naws_access_key_id = AKIA1\n".into(),
            false,
            Err("no aws_secret_access_key"),
        ),
        ("[default]\n".into(), false, Err("no aws_access_key_id")),
        ("[defau".into(), false, Err("key = value")),
        (
            format!("[other]\n{static_key}"),
            false,
            Err("no such profile"),
        ),
        (String::new(), false, Err("no such profile")),
        ("\u{0}\u{1}".into(), false, Err("")),
        (static_key.into(), false, Err("key = value")),
        ("x".repeat(300_000), false, Err("not a file of credentials")),
    ] {
        place.write(&text);
        if shared {
            place.shared(3_600);
        } else {
            place.note("{ torn");
        }
        let read = place.credentials().provide_credentials().await;
        match (read, expected) {
            (Ok(read), Ok(key)) => assert_eq!(read.access_key_id(), key, "{text}"),
            (Err(error), Err(says)) => {
                let source = std::error::Error::source(&error).unwrap().to_string();
                assert!(source.contains(says), "{source}, of {text}");
            }
            (read, expected) => panic!("{text}: {read:?}, expected {expected:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_environment_wins_and_profiles_are_found() {
    let place = Place::new();
    place.write(
        "[default]\naws_access_key_id = AKIAD\naws_secret_access_key = s\n\
         [site]\naws_access_key_id = AKIAS\naws_secret_access_key = s\n",
    );
    let file = place.config.credentials.clone();
    // aws.credentials, environment → key
    for (configured, env, expected) in [
        (file.as_str(), vec![], Some("AKIAD")),
        (file.as_str(), vec![("AWS_PROFILE", "site")], Some("AKIAS")),
        (file.as_str(), vec![("AWS_PROFILE", "")], Some("AKIAD")),
        (
            "",
            vec![("AWS_SHARED_CREDENTIALS_FILE", file.as_str())],
            Some("AKIAD"),
        ),
        (
            "/nonexistent",
            vec![("AWS_SHARED_CREDENTIALS_FILE", file.as_str())],
            None,
        ),
        (
            file.as_str(),
            vec![
                ("AWS_ACCESS_KEY_ID", "AKIAE"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
            ],
            Some("AKIAE"),
        ),
        (
            file.as_str(),
            vec![("AWS_ACCESS_KEY_ID", "AKIAE")],
            Some("AKIAD"),
        ),
    ] {
        let config = config::Aws {
            credentials: configured.into(),
            ..place.config.clone()
        };
        let env = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let credentials = NodeCredentials::new(&config, env, Clock::start(None));
        assert_eq!(credentials.available().await, expected.is_some());
        let read = credentials.provide_credentials().await.ok();
        assert_eq!(read.as_ref().map(Credentials::access_key_id), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn they_expire_as_the_ssm_agent_says_or_in_a_minute() {
    let place = Place::new();
    place.write(&ini(1));
    let credentials = place.credentials();
    // note → at most so many seconds left, and whether the SSM agent's word is known
    let other = r#"{"ShareFile":"/other","CredentialsExpiresAt":"2020-01-01T00:00:00Z"}"#;
    for (note, left, known) in [
        (String::new(), 60, false),
        ("[]".into(), 60, false),
        (other.into(), 60, false),
        (other.replace("/other", &place.config.credentials), 0, true),
        (
            format!(
                r#"{{"ShareFile":"{}","CredentialsExpiresAt":"0001-01-01T00:00:00Z"}}"#,
                place.config.credentials
            ),
            60,
            false,
        ),
    ] {
        place.note(&note);
        let read = credentials.provide_credentials().await.unwrap();
        assert!(
            (left.max(10) - 10..=left).contains(&seconds_left(&read)),
            "{note}"
        );
        assert_eq!(
            credentials.look().await.expires_at.is_some(),
            known,
            "{note}"
        );
    }
    place.shared(30);
    let read = credentials.provide_credentials().await.unwrap();
    assert!((20..=30).contains(&seconds_left(&read)));
    place.shared(3_600);
    let read = credentials.provide_credentials().await.unwrap();
    assert!((50..=60).contains(&seconds_left(&read)));
}

#[tokio::test(start_paused = true)]
async fn a_rewritten_file_is_read_again_and_a_broken_one_is_bridged() {
    let place = Place::new();
    let credentials = place.credentials();
    let key = async || {
        let read = credentials.provide_credentials().await.ok();
        read.map(|read| read.access_key_id().to_owned())
    };
    assert_eq!(key().await, None, "no file yet");
    place.write(&ini(1));
    assert_eq!(key().await.unwrap(), format!("ASIA{:016}", 1));
    place.write(&ini(2));
    assert_eq!(key().await.unwrap(), format!("ASIA{:016}", 2));

    place.shared(3_600);
    assert_eq!(key().await.unwrap(), format!("ASIA{:016}", 2));
    place.write("");
    assert_eq!(key().await.unwrap(), format!("ASIA{:016}", 2), "bridged");
    credentials.forget();
    assert_eq!(key().await, None, "refused by AWS, so not offered again");

    place.write(&ini(3));
    place.shared(-5);
    assert_eq!(
        key().await.unwrap(),
        format!("ASIA{:016}", 3),
        "AWS decides"
    );
    place.write("");
    assert_eq!(key().await, None, "expired, so no bridge");

    place.write(&ini(4));
    place.note("");
    assert!(key().await.is_some());
    std::fs::remove_file(&place.config.credentials).unwrap();
    assert_eq!(key().await, None, "removed on purpose");
    place.write("");
    assert_eq!(key().await, None, "and forgotten");
}

#[test]
fn a_set_is_never_incomplete_or_mixed_while_the_file_is_rewritten() {
    // The two halves are written 1 ms apart, so the second comes well before the file counts as settled.
    const SETTLED: Duration = Duration::from_millis(20);
    let place = Place::new();
    place.write(&ini(0));
    let file = CredentialsFile::new(&place.config, |_| None);
    let stop = AtomicBool::new(false);

    // Returns the sets whose halves a busy machine has torn too far apart to be told from whole ones.
    let write = || {
        let mut far_apart = BTreeSet::new();
        // Bounded, so that a reader that fails does not wait for ever.
        for number in 1..1_000 {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let text = ini(number);
            // Tear it in another place each time.
            let (first, second) = text.as_bytes().split_at(number * 37 % text.len());
            let begun = Instant::now();
            let mut torn = File::create(&file.path).unwrap();
            torn.write_all(first).unwrap();
            std::thread::sleep(Duration::from_millis(1));
            torn.write_all(second).unwrap();
            if begun.elapsed() > SETTLED / 2 {
                far_apart.insert(number);
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        far_apart
    };
    let read = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let (mut reads, mut taken) = (0, BTreeMap::new());
        while reads < 1_000 || taken.len() < 10 {
            reads += 1;
            if let Ok(set) = runtime.block_on(file.read(true, SETTLED)) {
                let key = set.credentials.access_key_id();
                let number: usize = key.trim_start_matches("ASIA").parse().unwrap();
                taken.insert(number, set.credentials);
            }
        }
        stop.store(true, Ordering::Relaxed);
        taken
    };
    let (taken, far_apart) = std::thread::scope(|threads| {
        let writing = threads.spawn(write);
        (read(), writing.join().unwrap())
    });
    for (number, credentials) in taken {
        let whole = Credentials::new(
            format!("ASIA{number:016}"),
            format!("{number:040}"),
            Some(format!("{number:01000}")),
            None,
            "file",
        );
        assert!(
            credentials == whole || far_apart.contains(&number),
            "{number}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn secrets_are_not_shown() {
    let place = Place::new();
    place.write(
        "[default]\naws_access_key_id = ASIAX\naws_secret_access_key = hush\naws_session_token = quiet\n",
    );
    let credentials = place.credentials();
    let read = credentials.provide_credentials().await.unwrap();
    place.write("[default]\naws_access_key_id = ASIAX\naws_secret_access_key = hush\nquiet\n");
    credentials.forget();
    let error = credentials.provide_credentials().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    for shown in [
        format!("{credentials:?}"),
        format!("{read:?}"),
        format!("{error:?} {error} {source}"),
    ] {
        assert!(
            !shown.contains("hush") && !shown.contains("quiet"),
            "{shown}"
        );
    }
}

#[test]
fn refusals() {
    assert!(is_refusal("ExpiredToken"));
    assert!(!is_refusal("ThrottlingException"));
}
