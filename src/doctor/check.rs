//! One check: its name, what was seen, and the mend.

use std::borrow::Cow;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join_all};
use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, timeout};

/// No check may take longer; what is asked over a network gives up by itself before.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be, or not used here.
    #[default]
    Ok,
    /// It works, but will bite.
    Warn,
    /// It does not work.
    Fail,
}

impl State {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warn => "warn",
            State::Fail => "fail",
        }
    }
}

/// A check that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, which stays: `identity.credentials`.
    pub name: String,
    /// How it came out.
    pub state: State,
    /// What was seen, for a person.
    pub says: String,
    /// A command to type or a line to write; always there where `state` is not ok.
    pub mend: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

impl Check {
    /// Reads one in its wire form; `None` where it is none.
    pub(super) fn read(wire: &Value) -> Option<Self> {
        let text = |key: &str| wire[key].as_str().map(str::to_owned);
        let state = wire["state"].as_str()?;
        let states = [State::Ok, State::Warn, State::Fail];
        Some(Check {
            name: text("name")?,
            state: states.into_iter().find(|one| one.name() == state)?,
            says: text("says")?,
            mend: text("mend"),
            took_ms: wire["took_ms"].as_u64()?,
        })
    }
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) state: State,
    pub(super) says: Words,
    pub(super) mend: Option<Words>,
}

/// Most of what is said is known before.
type Words = Cow<'static, str>;

impl Found {
    /// As it should be.
    pub(super) fn ok(says: impl Into<Words>) -> Self {
        Found {
            state: State::Ok,
            says: says.into(),
            mend: None,
        }
    }

    /// Nothing to look at: it is not used here.
    pub(super) fn unused(why: &str) -> Self {
        Found::ok(format!("{UNUSED}{why}"))
    }

    /// It works, but will bite.
    pub(super) fn warn(says: impl Into<Words>, mend: impl Into<Words>) -> Self {
        Found {
            state: State::Warn,
            says: says.into(),
            mend: Some(mend.into()),
        }
    }

    /// It does not work.
    pub(super) fn fail(says: impl Into<Words>, mend: impl Into<Words>) -> Self {
        Found {
            state: State::Fail,
            says: says.into(),
            mend: Some(mend.into()),
        }
    }

    /// With its name, as having taken no time.
    pub(super) fn named(self, name: &str) -> Check {
        self.timed(name, Duration::ZERO)
    }

    fn timed(self, name: &str, took: Duration) -> Check {
        Check {
            name: name.to_owned(),
            state: self.state,
            says: without_numbers(&self.says),
            mend: self.mend.map(Cow::into_owned),
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Without the ` (os error 2)` that the system's words end in.
fn without_numbers(says: &str) -> String {
    let mut out = String::new();
    let mut rest = says;
    while let Some((before, after)) = rest.split_once(" (os error ") {
        out.push_str(before);
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    out + rest
}

/// Before what is not used here.
pub(super) const UNUSED: &str = "not used: ";

/// A check that is being made. Boxed like all that differs in it alone, for each kind of future would be compiled anew.
pub(super) type Look<'a> = BoxFuture<'a, Found>;

/// Makes a check under the deadline, and times it.
pub(super) async fn timed(name: &str, look: Look<'_>) -> Check {
    let begun = Instant::now();
    let found = timeout(DEADLINE, look).await.unwrap_or_else(|_| late());
    found.timed(name, begun.elapsed())
}

/// Makes a check that touches files, on a thread of its own: a disk that hangs must hold nobody else up.
pub(super) async fn on_disk(name: &str, look: Box<dyn FnOnce() -> Found + Send>) -> Check {
    let looking = tokio::task::spawn_blocking(look);
    timed(
        name,
        async { looking.await.unwrap_or_else(|_| broken()) }.boxed(),
    )
    .await
}

/// Makes checks at once, and returns them in their order.
pub(super) async fn together(checks: Vec<BoxFuture<'_, Check>>) -> Vec<Check> {
    join_all(checks).await
}

/// It did not come back.
pub(super) fn late() -> Found {
    Found::fail(
        format!("no answer within {DEADLINE:?}"),
        "sudo dmesg | tail -n 50   # a disk, a driver or a server hangs",
    )
}

/// It panicked.
pub(super) fn broken() -> Found {
    Found::fail(
        "the check itself broke",
        "sideline doctor --bundle FILE   # and send it to whoever maintains sideline",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_hangs_or_breaks_is_told() {
        let check = timed("a", std::future::pending().boxed()).await;
        assert_eq!(
            (check.state, check.says.as_str()),
            (State::Fail, "no answer within 10s")
        );
        assert_eq!(check.took_ms, 10_000);
        let check = on_disk("b", Box::new(|| panic!("on purpose"))).await;
        assert_eq!(
            (check.state, check.says.as_str()),
            (State::Fail, "the check itself broke")
        );
        let wire = serde_json::to_value(&check).unwrap();
        assert_eq!(Check::read(&wire), Some(check));
        assert_eq!(Check::read(&Value::Null), None);
        let found = Found::ok("/a: gone (os error 2); /b: gone (os error 2)").named("n");
        assert_eq!(found.says, "/a: gone; /b: gone");
        let check = on_disk("c", Box::new(|| Found::unused("no c"))).await;
        assert_eq!(
            (check.state, check.says.as_str(), check.mend),
            (State::Ok, "not used: no c", None)
        );
    }
}
