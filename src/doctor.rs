//! Is the set-up right? One function a check, each with what was seen and the exact mend; nothing is changed.

mod agent;
mod aws;
pub mod bundle;
mod certificates;
mod check;
mod clock;
mod config;
mod devices;
mod ecs;
mod gpu;
mod identity;
mod kernel_log;
mod mqtt;
mod reach;
mod scene;
mod secrets;
mod service;
mod ssm_agent;
mod state;
mod systemd;
pub mod text;
mod ups;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

pub use check::{Check, State};
use check::{broken, late, together};
use scene::Scene;
pub use scene::Subject;

/// All checks together take no longer.
const ALL: Duration = Duration::from_secs(18);

/// Has the service see what root sees.
const SANDBOX: &str = "sudo systemctl restart sideline   # a folder that was made anew after its start is not seen; what \
                       lies in /root or /home has to be let in: \
                       /usr/share/doc/sideline/examples/sideline.service.d/home.conf";

/// What came of an examination, in its wire form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Of this form.
    pub version: u32,
    /// When it began, by this machine's clock.
    pub at: Timestamp,
    /// The worst state among the checks.
    pub worst: State,
    /// The checks, in reading order.
    pub checks: Vec<Check>,
}

impl Examination {
    fn of(at: Timestamp, checks: Vec<Check>) -> Self {
        let worst = checks.iter().map(|check| check.state).max();
        Examination {
            version: 1,
            at,
            worst: worst.unwrap_or_default(),
            checks,
        }
    }

    /// How many checks came out so.
    #[must_use]
    pub fn count(&self, state: State) -> usize {
        let of_state = self.checks.iter().filter(|check| check.state == state);
        of_state.count()
    }
}

/// What a doctor's visit brings: the examination, and what else a bundle wants to hold.
#[derive(Debug)]
pub struct Visit {
    /// What was found.
    pub examination: Examination,
    /// The running agent's report, or why there is none.
    pub report: Result<Value, String>,
}

/// Checks that belong together; they are told under the first one's name where they all fail to come back.
type Group = (&'static str, BoxFuture<'static, Vec<Check>>);

/// Examines a set-up from outside, with the help of the agent that runs, if one does. Takes 18 s at most; the
/// runtime may hold threads that hang when it is done.
pub async fn examine(subject: Subject) -> Visit {
    let at = Timestamp::now();
    let scene = Arc::new(Scene::set(subject).await);
    let mut checks = all(groups(&scene)).await;
    blame_the_sandbox(&mut checks);
    Visit {
        examination: Examination::of(at, checks),
        report: scene.report.clone(),
    }
}

/// What works here and not inside the service is hidden from it by its own sandbox, and mended there.
fn blame_the_sandbox(checks: &mut [Check]) {
    let outside = checks.to_vec();
    for check in checks.iter_mut().filter(|check| check.state != State::Ok) {
        let name = check.name.strip_prefix("inside.");
        let fine = |one: &&Check| Some(one.name.as_str()) == name && one.state == State::Ok;
        if outside.iter().any(|one| fine(&one)) {
            check.mend = Some(SANDBOX.to_owned());
        }
    }
}

/// In reading order: first what the rest stands on.
fn groups(scene: &Arc<Scene>) -> Vec<Group> {
    let scene = || Arc::clone(scene);
    vec![
        ("config", config::look(scene()).boxed()),
        ("service", service::look(scene()).boxed()),
        ("socket", agent::look(scene()).boxed()),
        ("state", state::look(scene()).boxed()),
        ("identity.registration", identity::look(scene()).boxed()),
        ("identity.ssm_agent", ssm_agent::look(scene()).boxed()),
        ("aws.region", aws::look(scene()).boxed()),
        ("mqtt.relay", mqtt::look(scene()).boxed()),
        ("gpu.nvml", gpu::look(scene()).boxed()),
        (
            "kernel_log",
            kernel_log::look(scene()).map(|one| vec![one]).boxed(),
        ),
        ("ups", ups::look(scene()).boxed()),
        ("inside", agent::inside(scene()).boxed()),
    ]
}

/// Makes all checks at once. One that panics or hangs is a failed check, and holds no other up.
async fn all(groups: Vec<Group>) -> Vec<Check> {
    let deadline = Instant::now() + ALL;
    let running: Vec<_> = groups
        .into_iter()
        .map(|(name, group)| (name, tokio::spawn(group)))
        .collect();
    let mut checks = Vec::new();
    for (name, group) in running {
        match timeout_at(deadline, group).await {
            Ok(Ok(made)) => checks.extend(made),
            Ok(Err(_)) => checks.push(broken().named(name)),
            Err(_) => checks.push(late().named(name)),
        }
    }
    checks
}

/// What only the service itself can know: what it may do in its own sandbox. Called in the agent's process.
pub async fn inside(config: crate::config::Config) -> Vec<Check> {
    let subject = Subject::inside(config);
    let scene = Arc::new(Scene::alone(subject));
    let mut checks = identity::look(Arc::clone(&scene)).await;
    let on_disk = vec![
        state::folder(Arc::clone(&scene)).boxed(),
        mqtt::files(Arc::clone(&scene)).boxed(),
        kernel_log::look(Arc::clone(&scene)).boxed(),
        devices::look(scene).boxed(),
    ];
    checks.extend(together(on_disk).await);
    for check in &mut checks {
        check.name = format!("inside.{}", check.name);
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;
    use check::Found;

    #[tokio::test(start_paused = true)]
    async fn a_group_that_hangs_or_panics_is_a_failed_check_in_its_place() {
        let fine = |name: &'static str| async move { vec![Found::ok("fine").named(name)] };
        let checks = all(vec![
            ("a", fine("a").boxed()),
            ("b", std::future::pending().boxed()),
            ("c", async { panic!("on purpose") }.boxed()),
            ("d", fine("d").boxed()),
        ])
        .await;
        let told: Vec<_> = checks
            .iter()
            .map(|check| format!("{} {}: {}", check.state.name(), check.name, check.says))
            .collect();
        let expected = [
            "ok a: fine",
            "fail b: no answer within 10s",
            "fail c: the check itself broke",
            "ok d: fine",
        ];
        assert_eq!(told, expected);
        let mut both = vec![
            Found::ok("").named("a"),
            Found::fail("", "own").named("inside.a"),
        ];
        both.push(Found::fail("", "own").named("inside.b"));
        blame_the_sandbox(&mut both);
        let mends: Vec<_> = both
            .iter()
            .filter_map(|check| check.mend.as_deref())
            .collect();
        assert_eq!(mends, [SANDBOX, "own"]);
        let examination = Examination::of(Timestamp::UNIX_EPOCH, checks);
        assert_eq!(examination.worst, State::Fail);
        assert_eq!(examination.count(State::Ok), 2);
    }
}
