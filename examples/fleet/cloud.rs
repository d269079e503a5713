//! The cloud's half of one site: CloudWatch's alarm, step scaling, the twin service's tasks and their instances, as
//! `packaging/aws/sideline.yaml` sets them up.

use std::collections::VecDeque;
use std::time::Duration;

/// Evaluation of a period comes so long after its end. An assumption: CloudWatch names no figure.
pub(crate) const EVALUATED_AFTER: Duration = Duration::from_secs(15);

/// From the desired count to a task that carries, with a new instance: capacity provider, boot, image. An assumption
/// between the two and five minutes that are told of GPU instances.
const COLD_START: Duration = Duration::from_secs(240);

/// The same on an instance that is still there. An assumption.
const WARM_START: Duration = Duration::from_secs(45);

/// An empty instance goes after so long: capacity providers scale in after 15 minutes
/// (<https://github.com/aws/containers-roadmap/issues/1220>).
pub(crate) const INSTANCE_LEAVES: Duration = Duration::from_secs(900);

/// From nothing, a capacity provider starts so many instances at least
/// (<https://github.com/aws/containers-roadmap/issues/1716>).
const FEWEST: u32 = 2;

/// After a change, fewer tasks are not set for so long; more are. The stack's cooldown.
const COOLDOWN: Duration = Duration::from_secs(180);

/// What the site's stack is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stack {
    /// What the site has to carry.
    pub(crate) required: u32,
    /// What one task carries.
    pub(crate) slots_per_task: u32,
    /// At most so many tasks; 20 is the default quota of steps in a policy.
    pub(crate) most_tasks: u32,
}

/// One site's alarms, tasks and instances.
#[derive(Debug, Clone, Default)]
pub(crate) struct Site {
    /// Tasks that were missing in the latest minutes, the newest last; at most [`WHOLE_OF`].
    missing: VecDeque<u32>,
    alarm: bool,
    desired: u32,
    scaled: Duration,
    /// When each task carries.
    tasks: Vec<Duration>,
    instances: u32,
    billed_since: Duration,
    /// Hours of instances.
    pub(crate) instance_h: f64,
    /// How often the alarm has gone off.
    pub(crate) alarms: u32,
}

/// The alarm goes off when tasks are missing in so many of the latest minutes.
const SHORT: usize = 2;
const SHORT_OF: usize = 3;

/// The work goes back when none is missing in so many of the latest minutes.
const WHOLE: usize = 9;
const WHOLE_OF: usize = 10;

/// What an evaluation has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scaled {
    /// Tasks that are wanted now.
    pub(crate) desired: u32,
    /// When more of them will carry.
    pub(crate) ready: [Duration; 2],
}

impl Site {
    /// One minute is over: this is its sum of Capacity, 0 where nobody sent (`FILL`). Both alarms are evaluated, on the
    /// number of tasks that are missing: two of three minutes set the count to their average, again each minute as long
    /// as it lasts; nine of ten without a missing task set it to nothing.
    pub(crate) fn minute(&mut self, stack: Stack, sum: u32, at: Duration) -> Option<Scaled> {
        let missing = stack
            .required
            .saturating_sub(sum)
            .div_ceil(stack.slots_per_task);
        self.missing.push_back(missing);
        if WHOLE_OF < self.missing.len() {
            self.missing.pop_front();
        }
        let latest: Vec<u32> = self.missing.iter().rev().take(SHORT_OF).copied().collect();
        let was = self.alarm;
        self.alarm = SHORT <= latest.iter().filter(|missing| 0 < **missing).count();
        self.alarms += u32::from(self.alarm && !was);
        let whole = self.missing.iter().filter(|missing| **missing == 0).count();
        let wanted = if self.alarm {
            // The lowest step has no lower end: in alarm one task is the least.
            let average = latest.iter().sum::<u32>() / SHORT_OF as u32;
            let tasks = average.max(1).min(stack.most_tasks);
            let may_fall = self.scaled + COOLDOWN <= at;
            if may_fall {
                tasks
            } else {
                tasks.max(self.desired)
            }
        } else if WHOLE <= whole {
            0
        } else {
            self.desired
        };
        (wanted != self.desired).then(|| self.scale(wanted, at))
    }

    fn scale(&mut self, desired: u32, at: Duration) -> Scaled {
        self.bill(at);
        self.scaled = at;
        let needed = if desired == 0 { 0 } else { desired.max(FEWEST) };
        let there = self.instances;
        for task in self.desired..desired {
            let start = if task < there { WARM_START } else { COLD_START };
            self.tasks.push(at + start);
        }
        self.tasks.truncate(desired as usize);
        self.desired = desired;
        self.instances = self.instances.max(needed);
        Scaled {
            desired,
            ready: [at + WARM_START, at + COLD_START],
        }
    }

    /// Instances that have been empty for long go.
    pub(crate) fn shrink(&mut self, at: Duration) {
        self.bill(at);
        let needed = if self.desired == 0 {
            0
        } else {
            self.desired.max(FEWEST)
        };
        self.instances = self.instances.min(needed);
    }

    /// Writes down what the instances have cost until `at`.
    pub(crate) fn bill(&mut self, at: Duration) {
        let hours = at.saturating_sub(self.billed_since).as_secs_f64() / 3_600.0;
        self.instance_h += f64::from(self.instances) * hours;
        self.billed_since = at;
    }

    /// Slots that the cloud carries.
    pub(crate) fn carries(&self, stack: Stack, at: Duration) -> u32 {
        let running = self.tasks.iter().filter(|ready| **ready <= at).count();
        (running as u32 * stack.slots_per_task).min(stack.required)
    }

    /// Whether nothing is to be seen here as long as all nodes carry everything.
    pub(crate) fn rests(&self) -> bool {
        self.desired == 0 && !self.alarm && self.missing.iter().all(|missing| *missing == 0)
    }
}
