//! Calls to AWS by the second, and what its quotas allow.

use std::time::Duration;

use serde::Serialize;

/// Calls that share a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// `PutMetricData`.
    Metrics,
    /// `ListContainerInstances`, `DescribeContainerInstances`.
    EcsRead,
    /// `PutAttributes`, `DeleteAttributes`, `UpdateContainerInstancesState`.
    EcsModify,
    /// `UpdateService`, which Application Auto Scaling calls.
    Service,
}

/// A quota of an account and Region.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quota {
    /// Calls.
    pub(crate) family: Family,
    /// Their names, for people.
    pub(crate) name: &'static str,
    /// So many at once.
    pub(crate) burst: u32,
    /// So many a second for as long as one likes.
    pub(crate) sustained: u32,
}

/// ECS: "Request throttling for the Amazon ECS API", cluster resource read, cluster resource modify and service modify
/// actions, token buckets: <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html>.
/// CloudWatch: "Rate of PutMetricData requests",
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html>.
pub(crate) const QUOTAS: [Quota; 4] = [
    Quota {
        family: Family::Metrics,
        name: "PutMetricData",
        burst: 500,
        sustained: 500,
    },
    Quota {
        family: Family::EcsRead,
        name: "ECS read",
        burst: 100,
        sustained: 20,
    },
    Quota {
        family: Family::EcsModify,
        name: "ECS modify",
        burst: 100,
        sustained: 40,
    },
    Quota {
        family: Family::Service,
        name: "UpdateService",
        burst: 50,
        sustained: 5,
    },
];

/// All calls of a run.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    seconds: [Vec<u32>; QUOTAS.len()],
    buckets: [Bucket; QUOTAS.len()],
    throttled: [u64; QUOTAS.len()],
    /// Nodes that send their metrics in this second of each minute.
    rhythm: [u32; 60],
    /// Up to here the rhythm is written down.
    written: usize,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

impl Calls {
    /// Of so long a run.
    pub(crate) fn new(lasts: Duration) -> Self {
        let seconds = lasts.as_secs() as usize;
        Calls {
            seconds: QUOTAS.map(|_| vec![0; seconds]),
            buckets: QUOTAS.map(|quota| Bucket {
                tokens: quota.burst.into(),
                at: Duration::ZERO,
            }),
            throttled: QUOTAS.map(|_| 0),
            rhythm: [0; 60],
            written: 0,
        }
    }

    /// One call. Returns whether AWS takes it; it counts either way.
    pub(crate) fn call(&mut self, family: Family, at: Duration) -> bool {
        self.many(family, 1, at)
    }

    /// So many calls.
    pub(crate) fn many(&mut self, family: Family, count: u32, at: Duration) -> bool {
        let index = family as usize;
        let quota = QUOTAS[index];
        if let Some(second) = self.seconds[index].get_mut(at.as_secs() as usize) {
            *second += count;
        }
        let bucket = &mut self.buckets[index];
        let refill = at.saturating_sub(bucket.at).as_secs_f64() * f64::from(quota.sustained);
        bucket.tokens = (bucket.tokens + refill).min(quota.burst.into());
        bucket.at = bucket.at.max(at);
        let taken = f64::from(count) <= bucket.tokens;
        if taken {
            bucket.tokens -= f64::from(count);
        } else {
            self.throttled[index] += u64::from(count);
        }
        taken
    }

    /// A node begins or ends to send its metrics in this second of each minute.
    pub(crate) fn rhythm(&mut self, phase: Duration, sends: bool, at: Duration) {
        self.write(at);
        let second = &mut self.rhythm[phase.as_secs() as usize % 60];
        *second = if sends { *second + 1 } else { *second - 1 };
    }

    /// Writes down what the rhythm was until `at`.
    pub(crate) fn write(&mut self, at: Duration) {
        let metrics = &mut self.seconds[Family::Metrics as usize];
        let upto = metrics.len().min(at.as_secs() as usize);
        let unwritten = metrics.iter_mut().enumerate().take(upto);
        for (second, count) in unwritten.skip(self.written) {
            *count += self.rhythm[second % 60];
        }
        self.written = self.written.max(upto);
    }

    /// What came of it: one family after the other, and all together.
    pub(crate) fn rates(&self) -> (Vec<Rate>, Rate) {
        let each = QUOTAS
            .iter()
            .map(|quota| {
                Rate::of(
                    &self.seconds[quota.family as usize],
                    self.throttled[quota.family as usize],
                )
            })
            .collect();
        let [first, rest @ ..] = &self.seconds;
        let mut all = first.clone();
        for family in rest {
            for (sum, count) in all.iter_mut().zip(family) {
                *sum += count;
            }
        }
        (each, Rate::of(&all, self.throttled.iter().sum()))
    }
}

/// Calls a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Rate {
    /// Calls.
    pub(crate) total: u64,
    /// Those that AWS refused.
    pub(crate) throttled: u64,
    /// A second, on average.
    pub(crate) mean: f64,
    /// 99 of 100 seconds have no more.
    pub(crate) p99: u32,
    /// The busiest second.
    pub(crate) most: u32,
    /// A second, on average of the busiest minute.
    pub(crate) minute: f64,
    /// When that was, in hours since the start.
    pub(crate) minute_at_h: f64,
}

impl Rate {
    fn of(seconds: &[u32], throttled: u64) -> Self {
        let total: u64 = seconds.iter().copied().map(u64::from).sum();
        let mut sorted = seconds.to_vec();
        sorted.sort_unstable();
        let minutes = seconds.chunks(60).map(|minute| minute.iter().sum::<u32>());
        let busiest = minutes.enumerate().max_by_key(|(_, calls)| *calls);
        let (minute, calls) = busiest.unwrap_or_default();
        Rate {
            total,
            throttled,
            mean: total as f64 / seconds.len().max(1) as f64,
            p99: sorted.get(sorted.len() * 99 / 100).copied().unwrap_or(0),
            most: sorted.last().copied().unwrap_or(0),
            minute: f64::from(calls) / 60.0,
            minute_at_h: minute as f64 / 60.0,
        }
    }
}
