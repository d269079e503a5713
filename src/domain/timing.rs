//! Hysteresis: when trouble of each kind opens, when it closes, and what proves that it is over. The one table.

use std::time::Duration;

use super::finding::Code;
use super::xid;
use crate::config::Config;

/// How findings of one code open and close.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// A state has to last so long before it counts.
    pub opens: Hold,
    /// Where one event is not enough, or more make it worse: so many within so long.
    pub repeats: Option<Repeats>,
    /// Evidence that it is over has to last so long.
    pub closes: Hold,
    /// What that evidence is. Without a fresh look at it, nothing closes.
    pub proof: &'static str,
}

/// A length of time.
#[derive(Debug, Clone, Copy)]
pub enum Hold {
    /// None.
    Now,
    /// Always the same.
    For(Duration),
    /// The rule knows better.
    Varies(&'static str),
    /// What the configuration says.
    Set {
        /// The key, for people.
        key: &'static str,
        /// Its value.
        of: fn(&Config) -> Duration,
    },
}

/// So many events within so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    /// How many.
    pub count: u64,
    /// Of what.
    pub what: &'static str,
    /// Within how long.
    pub within: Duration,
}

/// Who closes and opens again is not over it. From the third opening within this time of the close before on, each
/// doubles the time that the next close takes.
pub const FLAP_MEMORY: Duration = HOUR;

/// The first doubled time is twice this, where a rule closes sooner.
const FLAP_LEAST: Duration = seconds(30);

/// No flapping makes a close take longer, unless the rule itself does.
const FLAP_MOST: Duration = minutes(30);

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = minutes(1);
const HOUR: Duration = minutes(60);
const DAY: Duration = minutes(24 * 60);

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

const FORGET: Hold = Hold::Set {
    key: "judge.forget_after",
    of: |config| config.judge.forget_after,
};

/// Three readings in a row: the first begins the hold, the third ends it.
const THREE_GPU_READINGS: Hold = Hold::Set {
    key: "3 readings of gpu.every",
    of: |config| config.gpu.every * 5 / 2,
};

impl Timing {
    /// The row of a code.
    #[must_use]
    pub fn of(code: Code) -> Timing {
        match code {
            Code::GpuXid(number) if xid::persists(number) => {
                held("the driver loaded afresh, the card back after a reset, or a reboot")
            }
            Code::GpuXid(_) => event(FORGET).repeated(
                xid::PROGRAMS as u64,
                "different programs on one card",
                xid::PROGRAMS_WITHIN,
            ),
            Code::GpuLost => held("the card answers again"),
            Code::GpuMissing => held("the card is listed again, or `sideline inventory accept`"),
            Code::GpuHung => held("the card answers again"),
            Code::GpuProbeCrashed => held("a whole reading").repeated(3, "crashes", minutes(10)),
            Code::GpuDriver => held("NVML starts"),
            Code::GpuHot => state(
                Hold::Set {
                    key: "judge.gpu_hot_after",
                    of: |config| config.judge.gpu_hot_after,
                },
                seconds(30),
                "readings below the limit",
            ),
            Code::GpuPowerBrake | Code::GpuHwSlowdown => state(
                THREE_GPU_READINGS,
                MINUTE,
                "readings without the driver's reason",
            ),
            Code::GpuFanStopped => state(
                THREE_GPU_READINGS,
                seconds(30),
                "a fan that turns, or a cool card",
            ),
            Code::GpuEccUncorrectable => held("the counter at 0, after a reset"),
            Code::GpuEccRate => held("fewer in the window").repeated(100, "corrected errors", HOUR),
            Code::GpuRowRemapFailed => held("the driver reports no failed remap"),
            Code::GpuRowRemapPending => held("nothing pending, after a reset"),
            Code::GpuRetiredPages => {
                held("nothing pending and few pages, after a reboot or a new card")
            }
            Code::GpuRecoveryAction => held("the driver asks for nothing"),
            Code::GpuPcieDegraded => state(
                THREE_GPU_READINGS,
                MINUTE,
                "the best link again, under load",
            ),
            Code::GpuPcieReplays => held("fewer in the window").repeated(
                1,
                "more replays a minute than the link may have",
                minutes(5),
            ),
            Code::GpuClocksStuck => {
                state(Hold::For(minutes(5)), MINUTE, "higher clocks, or no load")
            }
            Code::GpuMemoryStuck => state(Hold::For(minutes(5)), MINUTE, "memory free, or used"),
            Code::GpuSlowAnswers => state(
                Hold::For(MINUTE),
                MINUTE,
                "answers as quick as this node's usual ones",
            ),
            Code::HostDiskFull => state(Hold::Now, Duration::ZERO, "space below the limit"),
            Code::HostDiskIo => event(FORGET),
            Code::HostDiskWear => held("the disk itself says that it is well"),
            Code::HostDiskMissing | Code::HostMemoryMissing => {
                held("it is back, or `sideline inventory accept`")
            }
            Code::HostFsReadonly => held("it is mounted writable"),
            Code::HostMemory => state(
                Hold::Varies("1m if full, 5m if programs wait for it"),
                Duration::ZERO,
                "memory below the limit",
            ),
            Code::HostOom => event(FORGET),
            Code::HostMemoryEcc => event(Hold::For(DAY)).repeated(10, "corrected errors", DAY),
            Code::HostMachineCheck => event(Hold::For(DAY)).repeated(10, "corrected errors", DAY),
            Code::HostCpuThrottled => {
                event(FORGET).repeated(3, "looks with throttling", minutes(10))
            }
            Code::HostHungTask => event(FORGET),
            Code::HostPcieErrors => event(Hold::For(HOUR)).repeated(100, "corrected errors", HOUR),
            Code::HostClock => state(
                Hold::Varies("10s if off by AWS's time, 10m if nobody keeps it"),
                Duration::ZERO,
                "a clock that agrees",
            ),
            Code::HostUncleanRestart => event(Hold::For(DAY)).repeated(2, "unclean restarts", DAY),
            Code::HostNic => state(Hold::For(seconds(5)), seconds(30), "the link up and quiet")
                .repeated(5, "losses of the link", minutes(10)),
            Code::HostPower => state(Hold::Now, seconds(30), "the UPS on line"),
            Code::HostCheck => state(Hold::Now, Duration::ZERO, "the check returns OK"),
            // Together they are one `cameras.group`: what goes within this time is waited for.
            Code::CameraDown => state(
                Hold::For(SECOND.saturating_mul(2)),
                Duration::ZERO,
                "frames arrive",
            ),
            Code::CameraDegraded => state(Hold::Now, Duration::ZERO, "enough frames arrive"),
            Code::CameraUnknown => state(
                Hold::Varies("1m15s if never heard of, else cameras.down_after"),
                Duration::ZERO,
                "its source speaks of it",
            ),
            Code::CamerasGroup => held("all of them deliver").repeated(3, "cameras", seconds(15)),
            Code::IngestDown => state(
                Hold::Set {
                    key: "cameras.down_after",
                    of: |config| config.cameras.down_after,
                },
                Duration::ZERO,
                "the program is heard",
            ),
            // The rules themselves wait out what the SSM agent renews late.
            Code::AgentCredentials => state(
                Hold::For(minutes(1)),
                Duration::ZERO,
                "credentials that AWS takes",
            ),
            Code::AgentIdentity => state(
                Hold::Now,
                Duration::ZERO,
                "an SSM agent that renews, and the registration it had",
            ),
            Code::AgentOutboxLoss => event(FORGET),
            Code::AgentConfigRejected => {
                state(Hold::Now, Duration::ZERO, "a configuration that is right")
            }
            Code::AgentKernelLogGap => event(FORGET),
            Code::AgentEcs => state(Hold::Now, seconds(30), "a call to ECS that succeeds"),
            Code::AgentDrainHeld => state(
                Hold::Now,
                Duration::ZERO,
                "the guard lets go, or the node need not be drained",
            ),
        }
    }

    /// How long the proof has to last for a finding that has opened so often without a rest of `FLAP_MEMORY`.
    #[must_use]
    pub fn closes_after(self, config: &Config, openings: u32) -> Duration {
        let usual = self.closes.length(config);
        match openings.checked_sub(2) {
            None | Some(0) => usual,
            Some(doublings) => {
                let doubled = usual.max(FLAP_LEAST).saturating_mul(1 << doublings.min(16));
                doubled.min(FLAP_MOST).max(usual)
            }
        }
    }

    /// The window of repetition; the rules of a code without one do not ask.
    #[must_use]
    pub fn window(code: Code) -> Repeats {
        Timing::of(code).repeats.unwrap_or(Repeats {
            count: 1,
            what: "events",
            within: Duration::MAX,
        })
    }

    const fn repeated(mut self, count: u64, what: &'static str, within: Duration) -> Self {
        self.repeats = Some(Repeats {
            count,
            what,
            within,
        });
        self
    }
}

impl Hold {
    /// How long it is.
    #[must_use]
    pub fn length(self, config: &Config) -> Duration {
        match self {
            Hold::Now | Hold::Varies(_) => Duration::ZERO,
            Hold::For(length) => length,
            Hold::Set { of, .. } => of(config),
        }
    }
}

/// Holds from the first look at it to the first at its proof.
const fn held(proof: &'static str) -> Timing {
    state(Hold::Now, Duration::ZERO, proof)
}

const fn state(opens: Hold, closes: Duration, proof: &'static str) -> Timing {
    Timing {
        opens,
        repeats: None,
        closes: if closes.is_zero() {
            Hold::Now
        } else {
            Hold::For(closes)
        },
        proof,
    }
}

/// Closes when no other has come for so long.
const fn event(closes: Hold) -> Timing {
    Timing {
        opens: Hold::Now,
        repeats: None,
        closes,
        proof: "no other one",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flapping_takes_longer_to_close() {
        let config = Config::default();
        for (code, openings, seconds) in [
            (Code::HostDiskFull, 1, 0),
            (Code::HostDiskFull, 2, 0),
            (Code::HostDiskFull, 3, 60),
            (Code::HostDiskFull, 4, 120),
            (Code::HostDiskFull, 9, 1800),
            (Code::HostDiskFull, u32::MAX, 1800),
            (Code::HostOom, 2, 600),
            (Code::HostOom, 3, 1200),
            (Code::HostOom, 4, 1800),
            (Code::HostMemoryEcc, 5, 86_400),
        ] {
            let after = Timing::of(code).closes_after(&config, openings);
            assert_eq!(after.as_secs(), seconds, "{code}, opened {openings} times");
        }
    }
}
