//! `cameras.group`: cameras that went together are one trouble with one cause, not one each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Look;
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::moment::Moment;
use crate::domain::report::{Camera, CameraReason, CameraState};
use crate::domain::timing::Timing;

/// Names in the evidence at most.
const NAMED: usize = 6;

/// Cameras that went together, by the kind of their source; each group lasts until all of it are back.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    open: BTreeMap<&'static str, Group>,
}

#[derive(Debug, Clone)]
struct Group {
    members: BTreeSet<Arc<str>>,
    /// When the latest of them went.
    latest: Moment,
    cause: Option<Cause>,
}

/// What went at the same time.
#[derive(Debug, Clone)]
struct Cause {
    words: String,
    advice: Advice,
}

impl Groups {
    /// Takes in how the cameras do: who is back leaves its group, who went with others joins one.
    pub fn take_in(&mut self, look: Look<'_>, cameras: &[Camera]) {
        let limit = Timing::window(Code::CamerasGroup);
        let mut gone: BTreeMap<&'static str, Vec<&Camera>> = BTreeMap::new();
        for camera in cameras.iter().filter(|camera| is_gone(look, camera)) {
            gone.entry(camera.source).or_default().push(camera);
        }
        self.open.retain(|source, group| {
            let gone = gone.get(source).map_or(&[][..], Vec::as_slice);
            group
                .members
                .retain(|id| gone.iter().any(|camera| camera.id == *id));
            !group.members.is_empty()
        });
        for (source, mut gone) in gone {
            gone.sort_unstable_by_key(|camera| camera.changed);
            let count = usize::try_from(limit.count).unwrap_or(usize::MAX);
            for (from, first) in gone.iter().enumerate() {
                let together = gone[from..]
                    .iter()
                    .take_while(|camera| camera.changed - first.changed <= limit.within);
                let joins = self
                    .open
                    .get(source)
                    .is_some_and(|group| first.changed <= group.latest + limit.within);
                if joins || count <= together.clone().count() {
                    let group = self.open.entry(source).or_insert_with(|| Group {
                        members: BTreeSet::new(),
                        latest: first.changed,
                        cause: None,
                    });
                    for camera in together {
                        if group.members.insert(Arc::clone(&camera.id)) {
                            group.latest = group.latest.max(camera.changed);
                        }
                    }
                }
            }
        }
    }

    /// Whether a camera's own trouble is part of a group's.
    #[must_use]
    pub fn holds(&self, camera: &Camera) -> bool {
        self.open
            .get(camera.source)
            .is_some_and(|group| group.members.contains(&camera.id))
    }

    /// One finding a group, with what else went wrong: `found` holds what all other rules have found.
    /// `lost_gpus`: the programs of this node have let go of its GPUs, which are well.
    pub fn observe(&mut self, lost_gpus: bool, found: &mut Found) {
        for (source, group) in &mut self.open {
            if group.cause.is_none() {
                group.cause = cause(lost_gpus, &found.observed);
            }
            let names: Vec<&str> = group.members.iter().take(NAMED).map(|id| &**id).collect();
            let more = match group.members.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let (words, advice) = match &group.cause {
                Some(cause) => (cause.words.as_str(), cause.advice),
                None => (
                    "nothing here explains it: a switch, its power, or the network",
                    Advice::Inspect,
                ),
            };
            let evidence = format!(
                "{} cameras went together ({}{more}); {words}",
                group.members.len(),
                names.join(", ")
            );
            found.push(Observed::state(
                Code::CamerasGroup,
                Subject::Cameras((*source).to_owned()),
                Severity::Degraded,
                advice,
                evidence,
            ));
        }
    }
}

/// Frames do not arrive, or their source has been away for a while; not: has never been heard of.
fn is_gone(look: Look<'_>, camera: &Camera) -> bool {
    match (camera.state, camera.reason) {
        (CameraState::Down, _) => true,
        (CameraState::Unknown, Some(CameraReason::IngestDown)) => {
            look.config.cameras.down_after <= look.now.moment - camera.changed
        }
        (CameraState::Unknown, Some(CameraReason::Stale)) => true,
        (CameraState::Unknown, _) => false,
        (
            CameraState::Up | CameraState::Degraded | CameraState::Disabled | CameraState::Idle,
            _,
        ) => false,
    }
}

/// The likeliest of what is wrong besides.
fn cause(lost_gpus: bool, others: &[Observed]) -> Option<Cause> {
    let likeliest = others
        .iter()
        .filter(|seen| seen.severity != Severity::Info)
        .filter_map(|seen| Some((rank(seen.code)?, seen)))
        .min_by_key(|(rank, _)| *rank);
    if let Some((_, seen)) = likeliest {
        return Some(Cause {
            words: format!(
                "so did {} of {}: {}",
                seen.code, seen.subject, seen.evidence
            ),
            advice: seen.advice,
        });
    }
    lost_gpus.then(|| Cause {
        words: "their programs have lost the GPUs, which are well: recreate the containers".into(),
        advice: Advice::RestartTask,
    })
}

/// What takes cameras with it, likeliest first; `None` for what does not.
fn rank(code: Code) -> Option<usize> {
    const LIKELY: [Code; 16] = [
        Code::HostNic,
        Code::HostPower,
        Code::IngestDown,
        Code::GpuDriver,
        Code::GpuMissing,
        Code::GpuLost,
        Code::GpuHung,
        Code::GpuProbeCrashed,
        Code::GpuRecoveryAction,
        Code::GpuEccUncorrectable,
        Code::HostFsReadonly,
        Code::HostDiskFull,
        Code::HostDiskIo,
        Code::HostDiskMissing,
        Code::HostOom,
        Code::HostHungTask,
    ];
    if let Code::GpuXid(_) = code {
        return Some(3);
    }
    LIKELY.iter().position(|likely| *likely == code)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::config::Config;
    use crate::domain::judge::Surroundings;
    use crate::domain::moment::Now;
    use crate::domain::reading::Reading;
    use crate::domain::snapshot::Snapshot;

    fn camera(number: u8, gone_at: Option<u64>) -> Camera {
        Camera {
            id: format!("hole{number:02}").into(),
            source: "frigate",
            state: match gone_at {
                Some(_) => CameraState::Down,
                None => CameraState::Up,
            },
            fps: None,
            expected_fps: None,
            usual_fps: None,
            last_frame_age_s: None,
            since: Timestamp::UNIX_EPOCH,
            changed: Moment::after_boot(Duration::from_secs(gone_at.unwrap_or_default())),
            reason: None,
        }
    }

    /// For each look, when each camera went (`.`: it is up); below, how many are in the group.
    fn check(looks: &[&[Option<u64>]], expected: &[usize]) {
        let mut groups = Groups::default();
        for (look, expected) in looks.iter().zip(expected) {
            let cameras: Vec<Camera> = (1..)
                .zip(*look)
                .map(|(number, at)| camera(number, *at))
                .collect();
            let look = Look {
                seen: Snapshot {
                    host: &Reading::Off,
                    gpus: &Reading::Off,
                    kernel: &Reading::Off,
                    drives: &Reading::Off,
                    ups: &Reading::Off,
                    checks: &Reading::Off,
                    cameras: &[],
                },
                config: &Config::default(),
                around: &Surroundings::default(),
                now: Now {
                    moment: Moment::BOOT,
                    wall: Timestamp::UNIX_EPOCH,
                    sure: true,
                },
            };
            groups.take_in(look, &cameras);
            let held = cameras.iter().filter(|camera| groups.holds(camera)).count();
            assert_eq!(held, *expected, "{look:?}");
        }
    }

    #[test]
    fn who_goes_together_is_one_group_until_all_are_back() {
        let at = Some;
        check(&[&[at(5), at(6), None, None]], &[0]);
        check(&[&[at(5), at(6), at(18), None]], &[3]);
        check(&[&[at(5), at(15), at(25), None]], &[0]);
        check(
            &[
                &[at(5), at(6), at(7), None],
                &[at(5), at(6), at(7), at(19)],
                &[None, None, at(7), at(19)],
                &[at(99), None, at(7), at(19)],
                &[None, None, None, at(19)],
                &[None, None, None, None],
                &[at(200), None, None, None],
            ],
            &[3, 4, 2, 2, 1, 0, 0],
        );
    }

    #[test]
    fn the_likeliest_cause_is_named() {
        let seen = |code, severity, advice| {
            Observed::state(code, Subject::Host, severity, advice, "so".into())
        };
        let oom = seen(Code::HostOom, Severity::Degraded, Advice::RestartApp);
        let ingest = seen(Code::IngestDown, Severity::Degraded, Advice::RestartApp);
        let nic = seen(Code::HostNic, Severity::Degraded, Advice::Inspect);
        let xid = seen(Code::GpuXid(79), Severity::Failing, Advice::Reboot);
        let quiet = seen(Code::GpuXid(31), Severity::Info, Advice::RestartApp);
        let hot = seen(Code::GpuHot, Severity::Degraded, Advice::Inspect);
        for (lost_gpus, others, advice) in [
            (false, vec![oom.clone(), xid.clone()], Some(Advice::Reboot)),
            (false, vec![oom, ingest, nic, xid], Some(Advice::Inspect)),
            (false, vec![quiet.clone(), hot], None),
            (true, vec![quiet], Some(Advice::RestartTask)),
        ] {
            let cause = cause(lost_gpus, &others);
            assert_eq!(cause.map(|cause| cause.advice), advice, "{others:?}");
        }
    }
}
