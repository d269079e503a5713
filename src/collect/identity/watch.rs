//! Looks again and again at what proves who this node is, and wakes the SSM agent where that is wanted.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Identity, registration};
use crate::clients::credentials::NodeCredentials;
use crate::collect::program::{Program, Ran, run as run_program, words};
use crate::config;
use crate::domain::identity::{Registered, Renewal, Seen};

/// Between two looks: three small files.
const EVERY: Duration = Duration::from_secs(10);

/// Whoever writes the registration is done with it after so long.
const AGAIN: Duration = Duration::from_millis(200);

/// What systemd calls the SSM agent: installed as a package, or as a snap.
const UNITS: [&str; 2] = [
    "amazon-ssm-agent.service",
    "snap.amazon-ssm-agent.amazon-ssm-agent.service",
];

/// systemd gives a service 90 seconds to stop.
const RESTARTS_WITHIN: Duration = Duration::from_secs(120);

/// systemd's answers to our questions are two lines.
const LONGEST_OUTPUT: usize = 4096;

/// What the task needs.
#[derive(Debug, Clone)]
pub struct Watching {
    /// Where the files are.
    pub aws: config::Aws,
    /// Who the agent started as.
    pub identity: Identity,
    /// What it signs with.
    pub credentials: NodeCredentials,
    /// systemd's program.
    pub systemctl: String,
}

/// Keeps `seen` at what is there, and restarts the SSM agent once more whenever `wanted` has grown, until it is
/// cancelled.
///
/// # Errors
/// None.
pub async fn run(
    watching: Watching,
    mut wanted: watch::Receiver<u64>,
    seen: watch::Sender<Seen>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let (mut restarts, mut trouble) = (0, None);
    loop {
        let now = Seen {
            restarts,
            restart_trouble: trouble.clone(),
            ..watching.look().await
        };
        seen.send_if_modified(|known| {
            let is_news = *known != now;
            *known = now;
            is_news
        });
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = tokio::time::sleep(EVERY) => continue,
            grown = wanted.changed() => if grown.is_err() {
                return Ok(());
            },
        }
        let restarted = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            restarted = restart(&watching.systemctl) => restarted,
        };
        match restarted {
            Ok(unit) => {
                tracing::warn!(unit, "the SSM agent slept and was restarted");
                (restarts, trouble) = (restarts + 1, None);
            }
            Err(why) => {
                tracing::error!("the SSM agent sleeps and can't be restarted: {why}");
                trouble = Some(why);
            }
        }
    }
}

impl Watching {
    /// Looks once; what only time brings is left as it is at the start.
    pub async fn look(&self) -> Seen {
        let mut read = registration(&self.aws.registration);
        if read.is_err() {
            // It may be half written.
            tokio::time::sleep(AGAIN).await;
            read = registration(&self.aws.registration);
        }
        let registered = match read {
            Err(problem) => Registered::Unreadable(problem),
            Ok(read) => match (read.managed_instance, read.problem) {
                (Some(instance), _) => Registered::As(instance),
                (None, Some(problem)) => Registered::Unreadable(problem),
                (None, None) => Registered::No,
            },
        };
        Seen {
            started_as: self.identity.managed_instance.clone(),
            region: self.identity.region.clone(),
            registered,
            credentials: self.credentials.look().await,
            renewal: self.renewal(),
            restarts: 0,
            restart_trouble: None,
        }
    }

    /// What the SSM agent says of what it renews, whatever file that is in.
    fn renewal(&self) -> Option<Renewal> {
        let folder = self.aws.registration.parent()?;
        let note = std::fs::read(folder.join("runtimeconfig/identity_config.json")).ok()?;
        let note: Value = serde_json::from_slice(&note).ok()?;
        let time = |key: &str| {
            let time: Timestamp = note.get(key)?.as_str()?.parse().ok()?;
            // A time that was never set is the year 1 in Go.
            (Timestamp::UNIX_EPOCH < time).then_some(time)
        };
        Some(Renewal {
            at: time("CredentialsRetrievedAt"),
            expires_at: time("CredentialsExpiresAt")?,
        })
    }
}

/// Restarts the SSM agent, whichever way it is installed, and returns its unit; or why it could not be.
async fn restart(systemctl: &str) -> Result<&'static str, String> {
    let mut show = vec!["show", "--property=Id,LoadState"];
    show.extend(UNITS);
    let shown = call(systemctl, &show, Duration::from_secs(10)).await?;
    let is_loaded = |unit: &&'static str| {
        shown.split("\n\n").any(|one| {
            let has = |wanted: &str| one.lines().any(|line| line == wanted);
            has(&format!("Id={unit}")) && has("LoadState=loaded")
        })
    };
    let unit = UNITS.into_iter().find(is_loaded);
    let unit = unit.ok_or_else(|| format!("systemd has neither {}", UNITS.join(" nor ")))?;
    call(systemctl, &["restart", unit], RESTARTS_WITHIN).await?;
    Ok(unit)
}

async fn call(systemctl: &str, arguments: &[&str], timeout: Duration) -> Result<String, String> {
    let words_of = std::iter::once(&systemctl).chain(arguments);
    let program = Program {
        command: words_of.map(|word| (*word).to_owned()).collect(),
        user: None,
        timeout,
        output: LONGEST_OUTPUT,
    };
    let what = || format!("systemctl {}", arguments.join(" "));
    match run_program(program).await {
        Ran::Ended { status, output } if status.success() => {
            Ok(String::from_utf8_lossy(&output).into_owned())
        }
        Ran::Ended { status, .. } => Err(format!("{} {}", what(), words(status))),
        Ran::NotStarted(why) => Err(why),
        // What is left of it is systemd's to wait for: the next try is an hour away.
        Ran::TimedOut { .. } => Err(format!("{} does not end", what())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A systemctl that knows these units, and notes what it was told.
    fn systemctl(folder: &std::path::Path, loaded: &str, restarts: u8) -> String {
        let file = folder.join("systemctl");
        let script = format!(
            "#!/bin/sh\n\
             if [ \"$1\" = restart ]; then echo \"$2\" >> {folder}/restarted; exit {restarts}; fi\n\
             for unit in \"$3\" \"$4\"; do\n\
             case \"$unit\" in {loaded}) state=loaded;; *) state=not-found;; esac\n\
             printf 'Id=%s\\nLoadState=%s\\n\\n' \"$unit\" \"$state\"\n\
             done\n",
            folder = folder.display()
        );
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        file.display().to_string()
    }

    #[tokio::test]
    async fn the_ssm_agent_is_restarted_whichever_way_it_is_installed() {
        for (loaded, restarts, expected) in [
            ("amazon-ssm-agent.service", 0, Ok(UNITS[0])),
            ("snap.*", 0, Ok(UNITS[1])),
            (
                "none",
                0,
                Err("systemd has neither amazon-ssm-agent.service nor snap"),
            ),
            (
                "*",
                5,
                Err("systemctl restart amazon-ssm-agent.service exited with status 5"),
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let done = restart(&systemctl(folder.path(), loaded, restarts)).await;
            match (&done, expected) {
                (Ok(unit), Ok(expected)) => assert_eq!(*unit, expected),
                (Err(why), Err(expected)) => assert!(why.starts_with(expected), "{why}"),
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => panic!("{done:?} of {loaded}"),
            }
            let restarted = std::fs::read_to_string(folder.path().join("restarted"));
            let told = restarted.ok().map(|unit| unit.trim().to_owned());
            assert_eq!(
                told,
                expected
                    .ok()
                    .or((restarts > 0).then_some(UNITS[0]))
                    .map(str::to_owned)
            );
        }
        let missing = restart("/nonexistent/systemctl").await;
        assert!(missing.is_err(), "{missing:?}");
    }
}
