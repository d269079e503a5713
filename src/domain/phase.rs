//! When within a period a node sends: each at its own time, so that ten thousand do not call in the same second.

use std::time::Duration;

/// The last part of a period is left free: what is sent then comes too late for who looks at the period's end.
const SPREAD_OVER: f64 = 0.9;

/// The node's place in the period, by the checksum of its id: always the same, and spread evenly over many nodes.
#[must_use]
pub fn of(node: &str, period: Duration) -> Duration {
    let share = f64::from(crc32fast::hash(node.as_bytes())) / (f64::from(u32::MAX) + 1.0);
    period.mul_f64(SPREAD_OVER * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_spread_evenly_and_stay_where_they_are() {
        let minute = Duration::from_secs(60);
        let mut seconds = [0_u32; 60];
        for number in 0..10_000 {
            let node = format!("mi-{number:017x}");
            let phase = of(&node, minute);
            assert!(phase < Duration::from_secs(54), "{node} at {phase:?}");
            assert_eq!(phase, of(&node, minute));
            seconds[phase.as_secs() as usize] += 1;
        }
        let most = seconds.iter().max().unwrap();
        assert!(*most <= 250, "{most} of 10,000 nodes in one second");
    }
}
