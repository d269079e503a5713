//! Who the node is to AWS: its registration with SSM and its credentials.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use futures_util::FutureExt;
use jiff::{SignedDuration, Timestamp};

use super::check::{Check, Found, timed};
use super::scene::{AS_ROOT, Scene, is_hidden, is_root};
use crate::clients::aws::innermost;

/// Credentials that expire so soon should have been renewed long ago: the SSM agent renews at half of their hour.
const SOON: SignedDuration = SignedDuration::from_mins(10);

/// How a node is registered; the code and its id come from CreateActivation.
const REGISTER: &str = "sudo systemctl stop amazon-ssm-agent; sudo amazon-ssm-agent -register -y -code CODE -id ID \
                        -region REGION; sudo systemctl start amazon-ssm-agent";

/// What has the SSM agent write new ones.
const RENEW: &str =
    "sudo systemctl restart amazon-ssm-agent && journalctl -u amazon-ssm-agent -n 20 --no-pager";

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    vec![
        registration(&scene).named("identity.registration"),
        timed("identity.credentials", credentials(&scene).boxed()).await,
    ]
}

fn registration(scene: &Scene) -> Found {
    let path = &scene.config.aws.registration;
    let shown = path.display();
    if let Some(problem) = scene
        .problems
        .iter()
        .find(|one| one.contains("SSM registration") && !one.contains("Region"))
    {
        return match std::fs::File::open(path) {
            Err(error) if is_hidden(&error) => Found::warn(problem.clone(), AS_ROOT),
            Ok(_) | Err(_) => Found::fail(problem.clone(), REGISTER),
        };
    }
    match (&scene.identity.managed_instance, std::fs::metadata(path)) {
        (Some(id), _) => {
            let region = scene.identity.region.as_deref().unwrap_or("no region");
            Found::ok(format!("{id} in {region}, by {shown}"))
        }
        (None, Err(error)) if is_hidden(&error) => {
            Found::warn(format!("{shown} can't be read: {error}"), AS_ROOT)
        }
        (None, _) if path.parent().is_some_and(Path::exists) => Found::warn(
            format!("an SSM agent is installed, but not registered: there is no {shown}"),
            REGISTER,
        ),
        (None, _) if !scene.config.ssm.parameters.is_empty() => Found::warn(
            "ssm.parameters are asked for, but the node is not registered with SSM",
            "sudo snap install amazon-ssm-agent --classic   # or its deb, then amazon-ssm-agent -register",
        ),
        (None, _) => Found::unused(&format!("there is no {shown}")),
    }
}

async fn credentials(scene: &Scene) -> Found {
    if !scene.wants_aws() {
        return Found::unused("nothing here calls AWS");
    }
    let file = scene.credentials.file();
    let expires_at = scene.credentials.look().await.expires_at;
    match scene.credentials.provide_credentials().await {
        Ok(credentials) => judge(&credentials, file, expires_at),
        Err(error) => missing(scene, &innermost(&error), file),
    }
}

/// There is no complete set.
fn missing(scene: &Scene, why: &str, file: Option<&Path>) -> Found {
    let opened = file.map(std::fs::File::open);
    if let Some(Err(error)) = &opened
        && is_hidden(error)
    {
        return Found::warn(why.to_owned(), AS_ROOT);
    }
    if scene.is_registered() {
        return Found::fail(why.to_owned(), RENEW);
    }
    if let Some(Err(error)) = opened
        && error.kind() == ErrorKind::NotFound
    {
        return Found::fail(
            format!("{why}, and the node is not registered with SSM, which would write it"),
            REGISTER,
        );
    }
    let shown = file
        .map(|file| file.display().to_string())
        .unwrap_or_default();
    Found::fail(why.to_owned(), format!("sudoedit {shown}"))
}

/// A complete set.
fn judge(credentials: &Credentials, file: Option<&Path>, expires_at: Option<Timestamp>) -> Found {
    let from = match file {
        Some(file) => file.display().to_string(),
        None => "the environment".to_owned(),
    };
    let open = file.and_then(|file| std::fs::metadata(file).ok());
    let open = open.is_some_and(|file| file.mode() & 0o077 != 0);
    let close = format!("{}chmod 600 {from}", if is_root() { "" } else { "sudo " });
    if credentials.session_token().is_none() {
        let age = file.and_then(age).unwrap_or_default();
        let says = format!(
            "long-lived keys in {from}{age}: whoever copies them has them until somebody revokes them"
        );
        let mend = format!("{REGISTER}   # then delete the keys");
        return match open {
            true => Found::warn(
                format!("{says}\nand others than its owner may read it"),
                format!("{close}\n{mend}"),
            ),
            false => Found::warn(says, mend),
        };
    }
    if open {
        return Found::warn(format!("others than its owner may read {from}"), close);
    }
    match expires_at {
        None => Found::ok(format!("temporary, from {from}; nobody says until when")),
        Some(at) => expiring(at, Timestamp::now(), &from),
    }
}

fn expiring(at: Timestamp, now: Timestamp, from: &str) -> Found {
    let left = at.duration_since(now);
    if left <= SignedDuration::ZERO {
        return Found::fail(
            format!("those in {from} expired {} ago", length(-left)),
            RENEW,
        );
    }
    if left < SOON {
        return Found::warn(
            format!(
                "those in {from} expire in {}, and nobody has renewed them",
                length(left)
            ),
            RENEW,
        );
    }
    Found::ok(format!(
        "temporary, from {from}; they expire in {}",
        length(left)
    ))
}

/// How long ago a file was written.
fn age(file: &Path) -> Option<String> {
    let written = std::fs::metadata(file).ok()?.modified().ok()?;
    let written = Timestamp::try_from(written).ok()?;
    let age = Timestamp::now().duration_since(written);
    (age > SignedDuration::ZERO).then(|| format!(", {} old", length(age)))
}

/// `3 d`, `5 h`, `12 min`, `40 s`: the largest unit that counts.
pub(super) fn length(of: SignedDuration) -> String {
    let seconds = of.as_secs();
    match seconds {
        172_800.. => format!("{} d", seconds / 86_400),
        7_200.. => format!("{} h", seconds / 3_600),
        120.. => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::State;

    #[test]
    fn credentials_expire() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for (at, state, says) in [
            (
                "2026-11-23T12:43:00Z",
                State::Ok,
                "temporary, from f; they expire in 43 min",
            ),
            (
                "2026-11-23T12:09:59Z",
                State::Warn,
                "those in f expire in 9 min, and nobody has renewed them",
            ),
            (
                "2026-11-23T12:00:00Z",
                State::Fail,
                "those in f expired 0 s ago",
            ),
            (
                "2026-11-20T12:00:00Z",
                State::Fail,
                "those in f expired 3 d ago",
            ),
        ] {
            let found = expiring(at.parse().unwrap(), now, "f");
            assert_eq!((found.state, &*found.says), (state, says));
        }
    }
}
