//! Whether somebody keeps the machine's clock: adjtimex(2), which time daemons write to and anybody may read.

use crate::domain::snapshot::ClockSync;

/// Asks the kernel; `None` where it may not be asked (seccomp filters of containers, systemd's `ProtectClock=`).
pub(super) fn read() -> Option<ClockSync> {
    #[expect(unsafe_code, reason = "no crate in the tree offers the call")]
    // SAFETY: `timex` is made of integers, for which all bits zero is a value; with no mode set nothing is changed.
    // The pointer is to a whole one of ours, which the kernel fills in and does not keep.
    let (state, timex) = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    let errors = [timex.maxerror, timex.esterror];
    (state != -1).then(|| told(state, timex.status, errors, timex.offset))
}

/// `[maximum, estimated]` errors are in microseconds, the offset is so too unless `STA_NANO` is set.
fn told(
    state: libc::c_int,
    status: libc::c_int,
    errors: [libc::c_long; 2],
    offset: libc::c_long,
) -> ClockSync {
    const MICRO: f64 = 1e-6;
    const NANO: f64 = 1e-9;
    let [max_error_s, est_error_s] = errors.map(|micros| micros as f64 * MICRO);
    let unit = if status & libc::STA_NANO == 0 {
        MICRO
    } else {
        NANO
    };
    ClockSync {
        synchronized: state != libc::TIME_ERROR && status & libc::STA_UNSYNC == 0,
        max_error_s,
        est_error_s,
        offset_s: offset as f64 * unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_units() {
        let status = libc::STA_PLL | libc::STA_NANO;
        for (state, status, synchronized, offset_s) in [
            (libc::TIME_OK, status, true, 0.002),
            (libc::TIME_OK, libc::STA_PLL, true, 2.0),
            (libc::TIME_INS, status, true, 0.002),
            (libc::TIME_ERROR, status, false, 0.002),
            (libc::TIME_OK, status | libc::STA_UNSYNC, false, 0.002),
        ] {
            let clock = told(state, status, [16_000_000, 1_500], 2_000_000);
            assert_eq!(clock.synchronized, synchronized, "{state} {status:#x}");
            assert!((clock.offset_s - offset_s).abs() < 1e-9, "{clock:?}");
            assert!((clock.max_error_s - 16.0).abs() < 1e-9, "{clock:?}");
            assert!((clock.est_error_s - 0.0015).abs() < 1e-9, "{clock:?}");
        }
    }

    #[test]
    fn this_machine_tells() {
        // A sandbox may forbid the call; where it answers, the answer makes sense.
        if let Some(clock) = read() {
            assert!(
                clock.max_error_s >= 0.0 && clock.est_error_s >= 0.0,
                "{clock:?}"
            );
            assert!(
                clock.offset_s.abs() < 1.0,
                "the kernel corrects half a second at most"
            );
        }
    }
}
