//! The clock: AWS refuses signatures of another hour, and data carry the time at which they were measured.

use jiff::SignedDuration;

use super::check::Found;
use super::identity::length;
use crate::collect::host;
use crate::domain::moment::CLOCK_TOLERANCE;
use crate::domain::snapshot::ClockSync;

/// A signature this far off is refused, but for those who learn AWS's time.
const REFUSED: SignedDuration = SignedDuration::from_mins(5);

/// Has a time daemon keep the clock.
const KEEP: &str =
    "sudo timedatectl set-ntp true && timedatectl timesync-status   # or: chronyc makestep";

/// `ahead` is how far AWS's time is ahead of this machine's, where AWS was asked and answered.
pub(super) fn clock(ahead: Option<SignedDuration>) -> Found {
    judge(ahead, host::clock_sync())
}

fn judge(ahead: Option<SignedDuration>, kept: Option<ClockSync>) -> Found {
    if let Some(ahead) = ahead
        && ahead.abs() > CLOCK_TOLERANCE
    {
        let way = if ahead.is_positive() {
            "behind"
        } else {
            "ahead of"
        };
        let says = format!(
            "this machine's clock is {} {way} AWS's",
            length(ahead.abs())
        );
        return match ahead.abs() > REFUSED {
            true => Found::fail(says, KEEP),
            false => Found::warn(says, KEEP),
        };
    }
    let agrees = match ahead {
        Some(_) => "it agrees with AWS's",
        None => "AWS did not tell its time",
    };
    match kept.map(|kept| kept.synchronized) {
        Some(false) => Found::warn(format!("{agrees}, but nobody keeps it"), KEEP),
        Some(true) => Found::ok(format!("{agrees}, and a time daemon keeps it")),
        None => Found::ok(format!(
            "{agrees}; the kernel does not say whether it is kept"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::State;

    #[test]
    fn clocks() {
        let kept = |synchronized| {
            Some(ClockSync {
                synchronized,
                ..ClockSync::default()
            })
        };
        let seconds = |count| Some(SignedDuration::from_secs(count));
        for (ahead, sync, state, says) in [
            (
                seconds(1),
                kept(true),
                State::Ok,
                "it agrees with AWS's, and a time daemon keeps it",
            ),
            (
                seconds(0),
                kept(false),
                State::Warn,
                "it agrees with AWS's, but nobody keeps it",
            ),
            (
                None,
                None,
                State::Ok,
                "AWS did not tell its time; the kernel does not say whether it is kept",
            ),
            (
                seconds(40),
                kept(true),
                State::Warn,
                "this machine's clock is 40 s behind AWS's",
            ),
            (
                seconds(-7200),
                kept(true),
                State::Fail,
                "this machine's clock is 2 h ahead of AWS's",
            ),
        ] {
            let found = judge(ahead, sync);
            assert_eq!((found.state, &*found.says), (state, says));
        }
    }
}
