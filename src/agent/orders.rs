//! What the agent does when it is told to.

use std::sync::Arc;

use super::House;
use crate::doctor;
use crate::status::orders::{Order, Stands};

impl House {
    /// Carries out an order, and answers when what came of it is kept.
    pub(super) async fn carry_out(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::AcceptInventory(answer) => {
                let now = self.clock.moment();
                let mut accepted = self.sources.accept_inventory(&mut self.judge, now);
                for forgotten in &accepted.forgotten {
                    let (kind, id) = (forgotten.kind, &forgotten.id);
                    tracing::info!(?kind, id, name = forgotten.name, "forgotten");
                }
                self.announce("inventory accepted").await?;
                let unkept = self.notes.unkept();
                accepted.problems.extend(unkept.map(|why| {
                    format!("it may come back with a restart, as the disk can't be used ({why})")
                }));
                // Who has asked may have gone.
                let _ = answer.send(accepted);
            }
            Order::Failover(order, answer) => {
                let now = self.clock.now();
                self.judge.failover().obey(order, now);
                let judgement = self.look();
                let report = Arc::clone(&judgement.report);
                self.tell(judgement).await?;
                let unkept = self.notes.unkept();
                let forgets =
                    |why| format!("a restart will forget it, as the disk can't be used ({why})");
                let _ = answer.send(Stands {
                    failover: report.failover.clone(),
                    capacity: report.capacity,
                    problems: unkept.map(forgets).into_iter().collect(),
                });
            }
            Order::Examine(answer) => {
                let config = self.judge.config().clone();
                // Not waited for: a disk that hangs is a check that fails, not an agent that stands still.
                tokio::spawn(async move {
                    let checks = doctor::inside(config).await;
                    let _ = answer.send(serde_json::to_value(checks).unwrap_or_default());
                });
            }
        }
        Ok(())
    }
}
