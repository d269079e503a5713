//! The running agent: whether it answers, what it says of its own ways out, and what it sees inside its sandbox.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::timeout;

use super::check::{Check, Found};
use super::scene::{AS_ROOT, Scene, is_root};
use crate::status::client;

/// A report is made every two seconds.
const OLD: SignedDuration = SignedDuration::from_secs(30);

/// The agent looks under a deadline of its own.
const LOOK: Duration = Duration::from_secs(12);

/// Codes that the checks of doctor tell themselves.
const TOLD_ELSEWHERE: [&str; 1] = ["agent.config_rejected"];

pub(super) async fn look(scene: Arc<Scene>) -> Vec<Check> {
    vec![
        socket(&scene).named("socket"),
        outlets(&scene).named("agent.outlets"),
        findings(&scene).named("agent.findings"),
    ]
}

fn socket(scene: &Scene) -> Found {
    let path = scene.socket.display();
    let report = match &scene.report {
        Ok(report) => report,
        Err(_) if is_closed_to_us(scene) => {
            return Found::warn(
                format!("this user may not ask at {path}: only root and group sideline may"),
                "sudo usermod -aG sideline $USER   # and log in again",
            );
        }
        Err(_) if !scene.socket.exists() => {
            return Found::fail(
                format!("no agent runs: there is no {path}"),
                match scene.has_systemd() {
                    true => "sudo systemctl enable --now sideline",
                    false => "sideline run   # systemd does not run here",
                },
            );
        }
        Err(why) => {
            return Found::fail(
                format!("the agent at {path} does not answer: {}", first_line(why)),
                "sudo systemctl restart sideline",
            );
        }
    };
    let (own, agent) = (env!("CARGO_PKG_VERSION"), report["node"]["agent"].as_str());
    if agent != Some(own) {
        let agent = agent.unwrap_or("unknown");
        return Found::warn(
            format!("version {agent} runs, this is {own}"),
            "sudo systemctl restart sideline",
        );
    }
    let at: Option<Timestamp> = report["at"].as_str().and_then(|at| at.parse().ok());
    let age = at.map(|at| Timestamp::now().duration_since(at));
    if let Some(age) = age.filter(|age| *age > OLD) {
        return Found::fail(
            format!("the agent's report is {} s old: it hangs", age.as_secs()),
            "sudo systemctl restart sideline",
        );
    }
    let state = report["verdict"]["state"].as_str().unwrap_or("unknown");
    Found::ok(format!("version {own} answers at {path}: {state}"))
}

/// Whether the socket is there for others.
fn is_closed_to_us(scene: &Scene) -> bool {
    rustix::fs::access(&scene.socket, rustix::fs::Access::WRITE_OK)
        .is_err_and(|error| error == rustix::io::Errno::ACCESS)
}

/// How the agent's own ways out do: it knows better than a single try.
fn outlets(scene: &Scene) -> Found {
    let Ok(report) = &scene.report else {
        return Found::unused("no agent answers");
    };
    let all = report["outlets"].as_array().map_or(&[][..], Vec::as_slice);
    let name = |outlet: &Value| outlet["name"].as_str().unwrap_or("?").to_owned();
    let told = |outlet: &&Value| {
        let error = outlet["error"].as_str().unwrap_or("no reason given");
        format!(
            "{} {}: {error}",
            name(outlet),
            outlet["state"].as_str().unwrap_or("?")
        )
    };
    let of_state = |state: &str| -> Vec<&Value> {
        all.iter()
            .filter(|outlet| outlet["state"] == state)
            .collect()
    };
    let (rejected, retrying) = (of_state("rejected"), of_state("retrying"));
    let sick: Vec<String> = rejected.iter().chain(&retrying).map(told).collect();
    let mend = "sideline status   # the checks below say how each can be mended";
    match (rejected.is_empty(), sick.is_empty()) {
        (false, _) => Found::fail(sick.join("\n"), mend),
        (true, false) => Found::warn(sick.join("\n"), mend),
        (true, true) => {
            let works: Vec<String> = of_state("ok").into_iter().map(name).collect();
            match works.is_empty() {
                true => Found::ok("nothing is sent anywhere"),
                false => Found::ok(format!("all is sent: {}", works.join(", "))),
            }
        }
    }
}

/// What the agent has found wrong with itself.
fn findings(scene: &Scene) -> Found {
    if scene.report.is_err() {
        return Found::unused("no agent answers");
    }
    let code = |finding: &Value| finding["code"].as_str().unwrap_or("?").to_owned();
    let mut found = scene.findings("agent.");
    found.retain(|finding| !TOLD_ELSEWHERE.contains(&code(finding).as_str()));
    let Some(first) = found.first() else {
        return Found::ok("the agent finds nothing wrong with itself");
    };
    let told = |finding: &&Value| {
        let evidence = finding["evidence"].as_str().unwrap_or_default();
        format!("{}: {evidence}", code(finding))
    };
    let says: Vec<String> = found.iter().map(told).collect();
    Found::warn(says.join("\n"), format!("sideline explain {}", code(first)))
}

/// What the agent sees inside its own sandbox.
pub(super) async fn inside(scene: Arc<Scene>) -> Vec<Check> {
    if scene.report.is_err() {
        let unknown = "no agent answers: what it may do in its sandbox is not known";
        return vec![Found::unused(unknown).named("inside")];
    }
    if !is_root() && is_other_user(&scene) {
        let says = "only root may ask what the service sees in its sandbox";
        return vec![Found::warn(says, AS_ROOT).named("inside")];
    }
    let answer = timeout(LOOK, client::examine(&scene.socket)).await;
    let why = match answer {
        Ok(Ok(answer)) => {
            let checks = answer.as_array().map_or(&[][..], Vec::as_slice);
            match checks.iter().map(Check::read).collect() {
                Some(checks) => return checks,
                None => "its answer is no list of checks".to_owned(),
            }
        }
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("no answer within {LOOK:?}"),
    };
    let says = format!("the agent does not look: {}", first_line(&why));
    vec![Found::warn(says, "sudo systemctl restart sideline").named("inside")]
}

/// Whether the socket is somebody else's: their agent takes no orders from us.
fn is_other_user(scene: &Scene) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    std::fs::metadata(&scene.socket).is_ok_and(|socket| socket.uid() != own)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
