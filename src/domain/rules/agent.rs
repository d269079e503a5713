//! Rules for sideline itself: what it keeps and what it has lost.

use super::Look;
use crate::domain::ecs::{Trouble, TroubleKind};
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::moment::Moment;
use crate::domain::report::Outlet;

/// What the rules know of sideline beyond what it says now.
#[derive(Debug, Clone, Default)]
pub struct AgentMemory {
    /// Records that the outlets had lost when it was looked last.
    dropped: u64,
    /// The first and the last time that it had become more.
    losses: Option<(Moment, Moment)>,
}

impl AgentMemory {
    /// Takes in how the outlets do.
    pub fn take_in(&mut self, outlets: &[Outlet], now: Moment) {
        let dropped = outlets.iter().map(|outlet| outlet.dropped).sum();
        if dropped > self.dropped {
            self.losses = Some((self.losses.map_or(now, |(first, _)| first), now));
        }
        self.dropped = dropped;
    }
}

/// All rules for sideline itself. `held_back` is why a drain that should be is not allowed.
pub fn observe(look: Look<'_>, memory: &AgentMemory, held_back: Option<&str>, found: &mut Found) {
    outbox(look, memory, found);
    if let Some(trouble) = &look.around.ecs.trouble {
        found.push(ecs(trouble));
    }
    // `agent.config_rejected`
    if let Some(why) = &look.around.config_rejected {
        let (code, subject) = (Code::AgentConfigRejected, Subject::Agent);
        let (severity, advice) = (Severity::Degraded, Advice::Inspect);
        found.push(Observed::state(
            code,
            subject,
            severity,
            advice,
            why.clone(),
        ));
    }
    // `agent.drain_held`
    if let Some(why) = held_back {
        let (code, subject) = (Code::AgentDrainHeld, Subject::Agent);
        let evidence = format!("this node should be drained and is not: {why}");
        found.push(Observed::state(
            code,
            subject,
            Severity::Info,
            Advice::Inspect,
            evidence,
        ));
    }
}

/// `agent.ecs`: the work could not be moved away. An uplink that is down, or calls that are too many, pass by.
fn ecs(trouble: &Trouble) -> Observed {
    let (severity, advice) = match trouble.kind {
        TroubleKind::NoAgent | TroubleKind::Denied | TroubleKind::Refused => {
            (Severity::Degraded, Advice::Inspect)
        }
        TroubleKind::Throttled | TroubleKind::Unreachable => (Severity::Info, Advice::None),
    };
    let (code, subject) = (Code::AgentEcs, Subject::Agent);
    Observed::state(code, subject, severity, advice, trouble.said.clone())
}

fn outbox(look: Look<'_>, memory: &AgentMemory, found: &mut Found) {
    let finding = |severity, advice, evidence| {
        let (code, subject) = (Code::AgentOutboxLoss, Subject::Agent);
        Observed::state(code, subject, severity, advice, evidence)
    };
    // `agent.outbox_loss`: it would happen at the next restart, or has happened.
    if let Some(why) = &look.around.in_memory {
        let evidence = format!("what waits is kept in memory, where a restart loses it: {why}");
        found.push(finding(Severity::Degraded, Advice::Inspect, evidence));
        return;
    }
    if let Some((first, last)) = memory.losses {
        let lost = look
            .around
            .outlets
            .iter()
            .filter(|outlet| outlet.dropped > 0);
        let lost: Vec<String> = lost
            .map(|outlet| format!("{} of {}", outlet.dropped, outlet.name))
            .collect();
        let evidence = format!(
            "records were lost: {}; `sideline outbox list` says which",
            lost.join(", ")
        );
        let loss = finding(Severity::Info, Advice::None, evidence);
        found.push(loss.events(memory.dropped, first, last));
    }
}
