//! The operator's own checks: programs by the convention of monitoring plugins, of which there are hundreds.
//!
//! <https://www.monitoring-plugins.org/doc/guidelines.html>

use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::program::{self, Leftover, Program, Ran, printable, words};
use crate::clock::Clock;
use crate::config;
use crate::domain::moment::Moment;
use crate::domain::reading::Reading;
use crate::domain::snapshot::{Check, CheckState};

/// At most so many run at once: a check is a guest on a machine that has work to do.
const AT_ONCE: usize = 4;

/// First starts are spread over this long, and so are all that follow.
const SPREAD: Duration = Duration::from_secs(10);

/// As much of a check's output is kept as the plugins' guidelines promise to be read.
const OUTPUT: usize = 4096;

/// A line of evidence is no longer than this, in characters.
const LONGEST_TEXT: usize = 512;

/// Runs every check of `config` at its pace, and publishes what each said last, in the order of the configuration.
///
/// A check that has not ended yet is not in the reading. One that would not be killed is `Unknown`, and is not started
/// again until it is gone.
///
/// # Errors
/// None: a check that can't run is `Unknown`, and says why.
pub async fn run(
    config: Vec<config::Check>,
    out: watch::Sender<Reading<Vec<Check>>>,
    clock: Clock,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    if config.is_empty() {
        out.send_replace(Reading::Off);
        cancel.cancelled().await;
        return Ok(());
    }
    let order: Vec<&str> = config.iter().map(|check| check.name.as_str()).collect();
    let slots = Semaphore::new(AT_ONCE);
    let publish = |check: Check| {
        let at = check.at;
        out.send_modify(|reading| {
            let mut seen = reading.value().cloned().unwrap_or_default();
            seen.retain(|known| known.name != check.name);
            seen.push(check);
            seen.sort_unstable_by_key(|known| order.iter().position(|name| *name == known.name));
            *reading = Reading::ok(seen, at);
        });
    };
    let checks = config
        .iter()
        .map(|check| repeat(check, &slots, &clock, &publish));
    tokio::select! {
        () = cancel.cancelled() => {}
        _ = join_all(checks) => {}
    }
    Ok(())
}

/// Runs one check for ever.
async fn repeat(check: &config::Check, slots: &Semaphore, clock: &Clock, publish: &impl Fn(Check)) {
    let mut last = None;
    let spread = SPREAD.min(check.every).mul_f64(fastrand::f64());
    let mut next = clock.moment() + spread;
    loop {
        tokio::time::sleep_until(clock.instant(next)).await;
        // Never closed; if it were, the check would still run.
        let slot = slots.acquire().await;
        let started = clock.moment();
        let (seen, left) = once(check, started, clock).await;
        if last != Some(seen.state) {
            last = Some(seen.state);
            tell(&seen);
        }
        publish(seen);
        drop(slot);
        if let Some(mut left) = left {
            left.gone().await;
        }
        next = following(next, check.every, clock.moment());
    }
}

/// Runs a check once; what it left behind may hang for ever.
async fn once(check: &config::Check, started: Moment, clock: &Clock) -> (Check, Option<Leftover>) {
    let ran = program::run(Program {
        command: check.command.clone(),
        user: Some(check.user.clone()),
        timeout: check.timeout,
        output: OUTPUT,
    });
    let (state, text, left) = match ran.await {
        Ran::Ended { status, output } => {
            let (state, text) = verdict(status, &output);
            (state, text, None)
        }
        Ran::NotStarted(why) => {
            let text = format!("can't be started: {why}");
            (CheckState::Unknown, printable(&text, LONGEST_TEXT), None)
        }
        Ran::TimedOut { left } => {
            let limit = config::units::format_duration(check.timeout);
            let text = if left.is_some() {
                format!("did not end in {limit}, and can't be killed")
            } else {
                format!("did not end in {limit}")
            };
            (CheckState::Unknown, text, left)
        }
    };
    let at = clock.moment();
    let seen = Check {
        name: check.name.clone(),
        state,
        text,
        took: at - started,
        at,
    };
    (seen, left)
}

/// What an exit status and a first line mean; performance data follow a bar.
fn verdict(status: ExitStatus, output: &[u8]) -> (CheckState, String) {
    let state = match status.code() {
        Some(0) => CheckState::Ok,
        Some(1) => CheckState::Warning,
        Some(2) => CheckState::Critical,
        Some(_) | None => CheckState::Unknown,
    };
    let output = String::from_utf8_lossy(output);
    let line = output.lines().next().unwrap_or_default();
    let text = printable(line.split('|').next().unwrap_or_default(), LONGEST_TEXT);
    let usual = matches!(status.code(), Some(0..=3));
    match (text.is_empty(), usual) {
        (false, true) => (state, text),
        (true, _) => (state, words(status)),
        (false, false) => (state, format!("{}: {text}", words(status))),
    }
}

/// The next start: in step, and without catching up on those that were missed.
fn following(last: Moment, every: Duration, now: Moment) -> Moment {
    let next = last + every;
    if now <= next {
        return next;
    }
    let late = (now - next).as_nanos() % every.as_nanos().max(1);
    now + every.saturating_sub(Duration::from_nanos(u64::try_from(late).unwrap_or(0)))
}

fn tell(check: &Check) {
    let Check { name, text, .. } = check;
    match check.state {
        CheckState::Ok => tracing::info!("check {name} is ok: {text}"),
        CheckState::Warning => tracing::warn!("check {name} warns: {text}"),
        CheckState::Critical => tracing::warn!("check {name} is critical: {text}"),
        CheckState::Unknown => tracing::warn!("check {name} is unknown: {text}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn verdicts() {
        use CheckState::{Critical, Ok, Unknown, Warning};
        for (raw, output, state, text) in [
            (0, "LOAD OK - 0.1|load1=0.1;;\nmore\n", Ok, "LOAD OK - 0.1"),
            (1 << 8, "DISK WARNING\n", Warning, "DISK WARNING"),
            (2 << 8, "\tCRIT\u{7}ICAL \n", Critical, "CRIT ICAL"),
            (3 << 8, "UNKNOWN", Unknown, "UNKNOWN"),
            (4 << 8, "what", Unknown, "exited with status 4: what"),
            (127 << 8, "", Unknown, "exited with status 127"),
            (9, "half a li", Unknown, "killed by signal 9: half a li"),
            (0, "|only=data", Ok, "exited with status 0"),
            (0, "\nsecond line", Ok, "exited with status 0"),
        ] {
            let seen = verdict(ExitStatus::from_raw(raw), output.as_bytes());
            assert_eq!(seen, (state, text.to_owned()), "{raw} {output:?}");
        }
        let (_, text) = verdict(ExitStatus::from_raw(0), &[b'x'; 4096]);
        assert_eq!(text.len(), LONGEST_TEXT);
        let (_, text) = verdict(ExitStatus::from_raw(0), b"\xff\xfe");
        assert_eq!(text, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn starts_stay_in_step_and_are_not_made_up_for() {
        let at = |seconds| Moment::after_boot(Duration::from_secs(seconds));
        // last start, now → next start; every 10 s
        for (last, now, next) in [
            (5, 6, 15),
            (5, 15, 15),
            (5, 16, 25),
            (5, 47, 55),
            (5, 55, 65),
        ] {
            let seen = following(at(last), Duration::from_secs(10), at(now));
            assert_eq!(seen, at(next), "last {last}, now {now}");
        }
    }
}
