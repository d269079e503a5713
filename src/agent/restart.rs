//! How this boot came about: whether somebody took the machine down, or it went by itself.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::collect::kernel_log::pstore;
use crate::domain::memory::{Memory, Restart};
use crate::domain::moment::Now;

/// The restart that nobody asked for, if it was one. `memory` is of the boot before; `written` is when that life of the
/// agent last wrote anything.
pub(super) fn unclean(
    memory: &Memory,
    written: Option<Timestamp>,
    boot: &str,
    now: Now,
) -> Option<Restart> {
    if memory.stopped || memory.boot.is_empty() || boot.is_empty() {
        return None;
    }
    let up = SignedDuration::try_from(now.moment.since_boot()).unwrap_or_default();
    let began = now.wall.checked_sub(up).unwrap_or(now.wall);
    // Of an earlier crash its last words may still lie there.
    let words = pstore::last_words(Path::new("/"));
    let words = words.filter(|words| match (words.at, written) {
        (Some(at), Some(written)) => written <= at,
        (Some(_) | None, _) => true,
    });
    Some(Restart {
        boot: boot.to_owned(),
        began,
        last: written.filter(|written| *written <= began),
        panic: words.map(|words| words.panic),
        on_battery: memory.on_battery,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::moment::Moment;

    #[test]
    fn only_a_machine_that_went_by_itself_restarted_uncleanly() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let now = Now {
            moment: Moment::after_boot(Duration::from_secs(40)),
            wall: at(240),
            sure: true,
        };
        for (before, boot, stopped, expected) in [
            ("a", "b", false, true),
            ("a", "b", true, false),
            ("", "b", false, false),
            ("a", "", false, false),
        ] {
            let memory = Memory {
                boot: before.to_owned(),
                stopped,
                ..Memory::default()
            };
            let restart = unclean(&memory, Some(at(100)), boot, now);
            let times = restart.map(|restart| (restart.last, restart.began));
            let wanted = expected.then_some((Some(at(100)), at(200)));
            assert_eq!(times, wanted, "{before} {boot} {stopped}");
        }
    }
}
