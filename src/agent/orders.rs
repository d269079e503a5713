//! What the agent does when it is told to.

use super::House;
use crate::status::orders::Order;

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
        }
        Ok(())
    }
}
