//! Verdict → slots: how many pieces of work the node can carry now.

use std::collections::BTreeSet;

use super::finding::{Finding, Severity};
use super::report::{Because, Capacity, State};

/// What a node offers.
///
/// Healthy and degraded nodes carry everything. A failing node carries the share of its healthy GPUs if the
/// faults can be pinned on single GPUs, else nothing. An unknown node is taken for what it last was (`last`).
#[must_use]
pub fn capacity<'a>(
    state: State,
    slots: u32,
    gpus: usize,
    open: impl Iterator<Item = &'a Finding>,
    last: Option<u32>,
) -> Capacity {
    let available = match state {
        State::Healthy | State::Degraded => slots,
        State::Unknown => last.unwrap_or(0).min(slots),
        State::Failing => {
            let failing: Vec<&Finding> = open.filter(|f| f.severity == Severity::Failing).collect();
            if failing.is_empty() {
                // The faults are gone and the verdict waits for proof: nothing is given back before.
                last.unwrap_or(0).min(slots)
            } else {
                share_of_healthy_gpus(slots, gpus, &failing)
            }
        }
    };
    Capacity {
        slots,
        available,
        because: (available < slots).then_some(Because::Verdict),
    }
}

fn share_of_healthy_gpus(slots: u32, gpus: usize, failing: &[&Finding]) -> u32 {
    let sick: Option<BTreeSet<&str>> = failing
        .iter()
        .map(|finding| finding.subject.gpu())
        .collect();
    let Some(sick) = sick else { return 0 };
    let (gpus, sick) = (gpus as u64, sick.len() as u64);
    let share = u64::from(slots) * gpus.saturating_sub(sick) / gpus.max(1);
    u32::try_from(share).unwrap_or(slots)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::finding::{Code, Subject};

    fn failing(subject: Subject) -> Finding {
        Finding::seen_once(Code::GpuLost, subject, Severity::Failing)
    }

    #[test]
    fn what_a_node_offers() {
        let gpu = |id: &str| failing(Subject::Gpu(id.into()));
        for (state, slots, gpus, open, last, expected) in [
            (State::Healthy, 18, 2, vec![], None, 18),
            (State::Degraded, 18, 2, vec![], Some(9), 18),
            (State::Unknown, 18, 2, vec![], None, 0),
            (State::Unknown, 18, 2, vec![], Some(9), 9),
            (State::Unknown, 4, 2, vec![], Some(9), 4),
            (State::Failing, 18, 2, vec![gpu("a")], Some(18), 9),
            (State::Failing, 18, 2, vec![gpu("a"), gpu("a")], Some(18), 9),
            (State::Failing, 18, 2, vec![gpu("a"), gpu("b")], Some(18), 0),
            (State::Failing, 18, 1, vec![gpu("a")], Some(18), 0),
            (State::Failing, 18, 0, vec![gpu("0000:01:00")], Some(18), 0),
            (
                State::Failing,
                18,
                4,
                vec![gpu("a"), failing(Subject::Host)],
                Some(18),
                0,
            ),
            (
                State::Failing,
                18,
                4,
                vec![failing(Subject::Gpus)],
                Some(18),
                0,
            ),
            (State::Failing, 18, 2, vec![], Some(9), 9),
        ] {
            let offered = capacity(state, slots, gpus, open.iter(), last);
            assert_eq!(
                offered.available, expected,
                "{state:?} {slots} {gpus} {open:?} {last:?}"
            );
            assert_eq!(offered.because.is_some(), expected < slots);
        }
    }
}
