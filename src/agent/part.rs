//! A part of the agent that runs as long as its settings stay the same.

use tokio::sync::watch;

use crate::supervisor::Supervisor;

/// Tasks that were started with `key`, and the end of theirs that the agent holds.
#[derive(Debug)]
pub(super) struct Part<K, V> {
    key: K,
    pub(super) value: V,
    pub(super) tasks: Supervisor,
}

impl<K: PartialEq, V> Part<K, V> {
    /// Starts a part.
    pub(super) fn start(key: K, start: impl FnOnce(&K, &mut Supervisor) -> V) -> Self {
        let mut tasks = Supervisor::default();
        let value = start(&key, &mut tasks);
        Part { key, value, tasks }
    }

    /// Whether it was started with these settings.
    pub(super) fn is(&self, key: &K) -> bool {
        self.key == *key
    }

    /// Keeps the part in `slot` if its settings are still the same, else stops it and starts another.
    pub(super) async fn renew(
        slot: &mut Option<Self>,
        key: K,
        start: impl FnOnce(&K, &mut Supervisor) -> V,
    ) {
        if slot.as_ref().is_some_and(|part| part.is(&key)) {
            return;
        }
        Part::remove(slot).await;
        *slot = Some(Part::start(key, start));
    }

    /// Stops the part in `slot`, if there is one.
    pub(super) async fn remove(slot: &mut Option<Self>) {
        if let Some(part) = slot.take() {
            part.stop().await;
        }
    }

    /// Stops it. The agent's end of its channels goes first, so that its tasks see the end of the journal.
    pub(super) async fn stop(self) {
        let Part { value, tasks, .. } = self;
        drop(value);
        tasks.stop().await;
    }

    /// Waits until one of its tasks ends badly.
    pub(super) async fn failure(&mut self) -> anyhow::Result<()> {
        Err(self.tasks.failure().await)
    }
}

impl<K: PartialEq, T> Part<K, watch::Receiver<T>> {
    /// Waits until it says something new, or one of its tasks ends badly.
    pub(super) async fn stir(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            biased;
            changed = self.value.changed() => match changed {
                Ok(()) => {
                    // It stays news until somebody looks at it.
                    self.value.mark_changed();
                    Ok(())
                }
                // Its task has ended: badly, or it says nothing any more.
                Err(_) => Err(self.tasks.failure().await),
            },
            error = self.tasks.failure() => Err(error),
        }
    }
}
