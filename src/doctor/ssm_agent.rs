//! The SSM agent, which renews the node's credentials: whether it runs, and whether it sleeps.

use std::sync::Arc;

use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::check::{Check, Found, timed};
use super::identity::length;
use super::scene::{AS_ROOT, Scene, is_hidden, read};
use super::systemd::Unit;

/// What the package and the snap call it.
const UNITS: [&str; 2] = [
    "amazon-ssm-agent.service",
    "snap.amazon-ssm-agent.amazon-ssm-agent.service",
];

/// Renewal comes at half of the credentials' life, and may wait for a few tries.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// Agents before this one sleep for up to 25 hours when their way to AWS was closed for a while (its issues 468, 501).
const FIRST_GOOD: [u32; 2] = [3, 3];

/// What it prints as its version is a line.
const LONGEST: usize = 4 << 10;

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    vec![timed("identity.ssm_agent", agent(&scene).boxed()).await]
}

async fn agent(scene: &Scene) -> Found {
    let note = scene
        .config
        .aws
        .registration
        .with_file_name("runtimeconfig/identity_config.json");
    if !scene.is_registered() {
        return match read(&scene.config.aws.registration) {
            Err(error) if is_hidden(&error) => {
                Found::warn("whether this node is registered can't be seen", AS_ROOT)
            }
            Ok(_) | Err(_) => Found::unused("the node is not registered with SSM"),
        };
    }
    let mut restart = "sudo systemctl restart amazon-ssm-agent".to_owned();
    let mut runs = "";
    for name in UNITS {
        let Some(unit) = Unit::ask(scene, name, "LoadState,ActiveState,UnitFileState").await else {
            break;
        };
        let Ok(unit) = unit else { continue };
        if !unit.exists() {
            continue;
        }
        restart = format!(
            "sudo systemctl restart {}",
            name.trim_end_matches(".service")
        );
        let active = unit.get("ActiveState");
        if active != "active" {
            return Found::fail(
                format!("{name} is {active}: nobody renews this node's credentials"),
                restart.replace("restart", "enable --now"),
            );
        }
        if unit.get("UnitFileState") == "disabled" {
            return Found::warn(
                format!("{name} runs, but will not start with the machine"),
                restart.replace("restart", "enable"),
            );
        }
        runs = "runs, ";
    }
    match read(&note) {
        Ok(text) => {
            let found = renews(&text, Timestamp::now(), runs, &restart);
            match old(scene).await {
                Some(old) if found.mend.is_none() => old,
                Some(_) | None => found,
            }
        }
        Err(error) if is_hidden(&error) => Found::warn(
            format!("{} can't be read: {error}", note.display()),
            AS_ROOT,
        ),
        Err(_) => Found::warn(
            format!(
                "there is no {}: it has renewed no credentials",
                note.display()
            ),
            format!("{restart} && journalctl -u amazon-ssm-agent -n 20 --no-pager"),
        ),
    }
}

/// What `identity_config.json` tells of the renewals.
fn renews(text: &str, now: Timestamp, runs: &str, restart: &str) -> Found {
    let note: Value = serde_json::from_str(text).unwrap_or_default();
    let time = |key: &str| -> Option<Timestamp> {
        let at: Timestamp = note[key].as_str()?.parse().ok()?;
        // A time that was never set is the year 1 in Go.
        (Timestamp::UNIX_EPOCH < at).then_some(at)
    };
    let (Some(expires), Some(got)) = (time("CredentialsExpiresAt"), time("CredentialsRetrievedAt"))
    else {
        return Found::ok(format!(
            "{runs}does not say when it renewed the credentials"
        ));
    };
    let half = expires.duration_since(got) / 2;
    let late = now.duration_since(got) - half;
    if late <= MARGIN {
        let ago = length(now.duration_since(got));
        return Found::ok(format!("{runs}renewed the credentials {ago} ago"));
    }
    let says = format!(
        "it sleeps: the credentials should have been renewed {} ago",
        length(late)
    );
    // After half an hour offline it hibernates (its issue 616); after repairs it finds a stranger's fingerprint.
    let mend = format!(
        "{restart}   # its log says \"fingerprint\"? hardware has changed: register the node anew, and run \
         `sudo amazon-ssm-agent -fingerprint -similarityThreshold 1` before the next repair"
    );
    match expires <= now {
        true => Found::fail(says, mend),
        false => Found::warn(says, mend),
    }
}

/// A version that is known to oversleep.
async fn old(scene: &Scene) -> Option<Found> {
    let told = scene
        .ask("amazon-ssm-agent", &["-version"], LONGEST)
        .await
        .ok()?;
    let version = told
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let parts: Vec<u32> = version
        .split('.')
        .filter_map(|part| part.parse().ok())
        .collect();
    (parts.get(..2)? < &FIRST_GOOD[..]).then(|| {
        Found::warn(
            format!("version {version} may sleep for a day after an outage; 3.3 sleeps half an hour at most"),
            "aws ssm send-command --document-name AWS-UpdateSSMAgent --instance-ids MI   # or its newest deb",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::State;

    #[test]
    fn an_agent_that_sleeps_is_told_from_one_that_renews() {
        let note = |got: &str, expires: &str| {
            serde_json::json!({"CredentialsRetrievedAt": got, "CredentialsExpiresAt": expires})
                .to_string()
        };
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (text, state, says) in [
            (
                note("2026-11-23T11:40:00Z", "2026-11-23T12:40:00Z"),
                State::Ok,
                "runs, renewed the credentials 20 min ago",
            ),
            (
                note("2026-11-23T11:26:00Z", "2026-11-23T12:26:00Z"),
                State::Ok,
                "runs, renewed the credentials 34 min ago",
            ),
            (
                note("2026-11-23T11:20:00Z", "2026-11-23T12:20:00Z"),
                State::Warn,
                "it sleeps: the credentials should have been renewed 10 min ago",
            ),
            (
                note("2026-11-23T01:00:00Z", "2026-11-23T02:00:00Z"),
                State::Fail,
                "it sleeps: the credentials should have been renewed 10 h ago",
            ),
            (
                note("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
                State::Ok,
                "runs, does not say when it renewed the credentials",
            ),
            (
                "{".into(),
                State::Ok,
                "runs, does not say when it renewed the credentials",
            ),
        ] {
            let found = renews(&text, now, "runs, ", "restart it");
            assert_eq!((found.state, &*found.says), (state, says), "{text}");
        }
    }
}
