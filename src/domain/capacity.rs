//! Verdict → slots: how many pieces of work the node can carry now.

use std::collections::BTreeSet;

use super::finding::{Finding, Severity};
use super::report::{Because, Capacity, State};

/// What a node offers.
///
/// Healthy and degraded nodes carry everything. A failing node carries the share of its healthy GPUs if the
/// faults can be pinned on single GPUs, else nothing. An unknown node is taken for what it last was (`last`), and so is
/// one of which nobody has said yet how many GPUs it has.
#[must_use]
pub fn capacity<'a>(
    state: State,
    slots: u32,
    gpus: Option<usize>,
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
                let share = share_of_healthy_gpus(slots, gpus, &failing);
                share.unwrap_or(last.unwrap_or(0)).min(slots)
            }
        }
    };
    Capacity {
        slots,
        available,
        because: (available < slots).then_some(Because::Verdict),
    }
}

/// `None`: single GPUs are to blame, of nobody knows how many.
fn share_of_healthy_gpus(slots: u32, gpus: Option<usize>, failing: &[&Finding]) -> Option<u32> {
    let sick: Option<BTreeSet<&str>> = failing
        .iter()
        .map(|finding| finding.subject.gpu())
        .collect();
    let Some(sick) = sick else { return Some(0) };
    let (gpus, sick) = (gpus? as u64, sick.len() as u64);
    let share = u64::from(slots) * gpus.saturating_sub(sick) / gpus.max(1);
    Some(u32::try_from(share).unwrap_or(slots))
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
            let offered = capacity(state, slots, Some(gpus), open.iter(), last);
            assert_eq!(
                offered.available, expected,
                "{state:?} {slots} {gpus} {open:?} {last:?}"
            );
            assert_eq!(offered.because.is_some(), expected < slots);
        }
        // Before the cards are counted, one that is lost says nothing of the others; the host's faults do.
        for (open, last, expected) in [
            (vec![gpu("a")], Some(18), 18),
            (vec![gpu("a")], None, 0),
            (vec![gpu("a"), failing(Subject::Host)], Some(18), 0),
        ] {
            let offered = capacity(State::Failing, 18, None, open.iter(), last);
            assert_eq!(offered.available, expected, "{open:?} {last:?}");
        }
    }
}
