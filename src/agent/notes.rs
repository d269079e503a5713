//! What must be on disk before anybody is told.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::domain::memory::Memory;
use crate::domain::moment::Now;
use crate::store::{Draft, Keep, Keeping, Store};

/// A healthy disk has written a commit long before. A disk that hangs must not hold up the watching.
const PATIENCE: Duration = Duration::from_secs(2);

/// Events that may wait for a disk that hangs; beyond it the oldest are lost, and counted when it answers.
const MOST: usize = 10_000;

/// The judge's memory and the events that are not kept yet.
#[derive(Debug)]
pub(super) struct Notes {
    pub(super) store: Store,
    pub(super) memory: Memory,
    events: Vec<Draft>,
    /// The disk has not answered yet.
    hanging: Option<oneshot::Receiver<()>>,
    changed: bool,
}

impl Notes {
    pub(super) fn new(store: Store, memory: Memory) -> Self {
        Notes {
            store,
            memory,
            events: Vec::new(),
            hanging: None,
            changed: true,
        }
    }

    /// The memory has changed.
    pub(super) fn has_changed(&mut self) {
        self.changed = true;
    }

    /// Why what was noted is not on disk; `None` where it is.
    pub(super) fn unkept(&self) -> Option<String> {
        match self.store.keeping() {
            Keeping::InMemory { why } => Some(why),
            Keeping::OnDisk if self.hanging.is_some() => Some("it does not answer".to_owned()),
            Keeping::OnDisk => None,
        }
    }

    /// Keeps the memory, where it has changed, and these events; returns when they are kept, or the disk hangs.
    ///
    /// # Errors
    /// The store has ended.
    pub(super) async fn keep(&mut self, events: Vec<Draft>, now: Now) -> anyhow::Result<()> {
        self.events.extend(events);
        let surplus = self.events.len().saturating_sub(MOST);
        self.events.drain(..surplus);
        if let Some(hanging) = &mut self.hanging {
            match hanging.try_recv() {
                Ok(()) => tracing::info!("the disk answers again"),
                Err(oneshot::error::TryRecvError::Empty) => return Ok(()),
                Err(oneshot::error::TryRecvError::Closed) => anyhow::bail!("the store has ended"),
            }
            self.hanging = None;
        }
        if self.events.is_empty() && !self.changed {
            return Ok(());
        }
        self.changed = false;
        let mut kept = self.store.keep(Keep {
            now,
            memory: self.memory.clone(),
            events: std::mem::take(&mut self.events),
        })?;
        match tokio::time::timeout(PATIENCE, &mut kept).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => anyhow::bail!("the store has ended"),
            Err(_) => {
                tracing::error!("the disk does not answer: the watching goes on without it");
                self.hanging = Some(kept);
            }
        }
        Ok(())
    }
}
