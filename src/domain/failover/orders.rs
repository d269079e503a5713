//! What a person may order: maintenance, and a rehearsal of a failure.

use std::time::Duration;

use super::Failover;
use super::kept::{Drill, Maintenance};
use super::span::Span;
use crate::domain::moment::Now;
use crate::domain::report::FailoverState;

/// What a person, or SSM for one, may order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Out of service for so long, whatever the guards say; replaces an earlier order.
    Maintain {
        /// How long.
        length: Duration,
        /// Why, for people.
        reason: String,
    },
    /// Back into service.
    Resume,
    /// A rehearsal: no more than so many slots are offered for so long.
    Drill {
        /// How long.
        length: Duration,
        /// Slots.
        slots: u32,
    },
    /// The end of it.
    EndDrill,
}

impl Failover {
    /// Takes an order; the next look acts on it. What is ordered already, or is not there to be ended, changes nothing.
    pub fn obey(&mut self, order: Order, now: Now) {
        let kept = &mut self.kept;
        match order {
            Order::Maintain { length, reason } => {
                if kept.state == FailoverState::Maintenance {
                    kept.why = Some(reason.clone());
                }
                kept.maintenance = Some(Maintenance {
                    reason,
                    span: Some(Span::of(length, now)),
                });
            }
            // Who has drained the node in ECS ends it there.
            Order::Resume => {
                kept.maintenance.take_if(|order| order.span.is_some());
            }
            Order::Drill { length, slots } => {
                kept.drill = Some(Drill {
                    slots,
                    span: Span::of(length, now),
                    told: false,
                });
            }
            Order::EndDrill => kept.drill_ended |= kept.drill.take().is_some(),
        }
    }
}
