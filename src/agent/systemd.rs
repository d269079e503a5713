//! What systemd wants to hear: ready, alive, stopping.

use std::time::Duration;

use tokio::time::Instant;

/// systemd's watchdog, fed only when a tick really ran.
#[derive(Debug)]
pub(super) struct Watchdog {
    every: Option<Duration>,
    fed: Instant,
}

impl Watchdog {
    /// Tells that the agent is ready.
    pub(super) fn ready() -> Self {
        notify(sd_notify::NotifyState::Ready);
        Watchdog {
            every: sd_notify::watchdog_enabled(),
            fed: Instant::now(),
        }
    }

    /// A tick has run.
    pub(super) fn feed(&mut self) {
        if self
            .every
            .is_some_and(|every| self.fed.elapsed() >= every / 4)
        {
            self.fed = Instant::now();
            notify(sd_notify::NotifyState::Watchdog);
        }
    }

    /// Tells that the agent stops.
    pub(super) fn stopping(self) {
        notify(sd_notify::NotifyState::Stopping);
    }
}

fn notify(state: sd_notify::NotifyState<'_>) {
    // Without systemd there is nobody to notify.
    let _ = sd_notify::notify(&[state]);
}
