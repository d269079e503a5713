//! What came of the runs, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::calls::{QUOTAS, Rate};
use crate::losses::{CAUSES, SlotHours};
use crate::plan::Plan;
use crate::run::Outcome;

/// One hour of a g4dn.xlarge on demand in us-east-1, in dollars; the list price as remembered, not looked up.
const INSTANCE_HOUR: f64 = 0.526;

/// A thousand PutMetricData requests, a metric a month, an alarm on two metrics a month, in dollars: list prices of
/// us-east-1 as third-party pages agree on them, not checked against a bill.
const THOUSAND_REQUESTS: f64 = 0.01;
const METRIC: f64 = 0.30;
const ALARM: f64 = 0.10;

/// Hours of the month that metrics and alarms are billed by.
const MONTH_H: f64 = 730.0;

/// All that is printed.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    nodes: u32,
    sites: u32,
    days: f64,
    seed: u64,
    required_slot_hours: f64,
    took_s: f64,
    nobody: Row,
    unguarded: Row,
    guarded: Row,
}

/// One run.
#[derive(Debug, Serialize)]
struct Row {
    lost_slot_hours: f64,
    lost_by_cause: BTreeMap<&'static str, f64>,
    missing_slot_hours: f64,
    lost_by_hour: Vec<f64>,
    right_drains: u32,
    wrong_drains: u32,
    wrong_drains_for: BTreeMap<String, u32>,
    largest_share_of_a_cluster_out: f64,
    nodes_out_at_the_end: u32,
    looks_of_drained_nodes_that_offer_slots: u32,
    looks_due_in_the_past: u32,
    alarms: u32,
    cloud_gpu_hours: f64,
    carried_twice_slot_hours: f64,
    dollars: Dollars,
    calls: BTreeMap<&'static str, Rate>,
    all_calls: Rate,
    looks: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Dollars {
    instances: f64,
    requests: f64,
    metrics: f64,
    alarms: f64,
}

impl Dollars {
    fn sum(self) -> f64 {
        self.instances + self.requests + self.metrics + self.alarms
    }
}

impl Table {
    /// Of the three runs, in the order of the table.
    pub(crate) fn of(
        plan: Plan,
        [nobody, unguarded, guarded]: &[Outcome; 3],
        took: Duration,
    ) -> Self {
        let hours = plan.lasts.as_secs_f64() / 3_600.0;
        Table {
            nodes: plan.nodes,
            sites: plan.sites(),
            days: hours / 24.0,
            seed: plan.seed,
            required_slot_hours: f64::from(plan.nodes * plan.slots) * hours,
            took_s: took.as_secs_f64(),
            nobody: Row::of(plan, nobody),
            unguarded: Row::of(plan, unguarded),
            guarded: Row::of(plan, guarded),
        }
    }

    fn rows(&self) -> [&Row; 3] {
        [&self.nobody, &self.unguarded, &self.guarded]
    }
}

impl Row {
    fn of(plan: Plan, run: &Outcome) -> Self {
        let (rates, all_calls) = run.calls.rates();
        let months = plan.lasts.as_secs_f64() / 3_600.0 / MONTH_H;
        let by_cause = |hours: SlotHours| {
            CAUSES
                .iter()
                .map(move |(cause, name)| (*name, hours.of(*cause)))
        };
        let acts = run.looks > 0;
        let nodes = f64::from(if acts { plan.nodes } else { 0 });
        let sites = f64::from(if acts { plan.sites() } else { 0 });
        Row {
            lost_slot_hours: run.losses.lost.sum(),
            lost_by_cause: by_cause(run.losses.lost).collect(),
            missing_slot_hours: run.losses.missing.sum(),
            lost_by_hour: run.losses.hourly.clone(),
            right_drains: run.right,
            wrong_drains: run.wrong.values().sum(),
            wrong_drains_for: run.wrong.clone(),
            largest_share_of_a_cluster_out: run.worst_share,
            nodes_out_at_the_end: run.left_out,
            looks_of_drained_nodes_that_offer_slots: run.counted_twice,
            looks_due_in_the_past: run.overdue,
            alarms: run.alarms,
            cloud_gpu_hours: run.instance_h,
            carried_twice_slot_hours: run.losses.twice_h,
            dollars: Dollars {
                instances: run.instance_h * INSTANCE_HOUR,
                requests: rates[0].total as f64 / 1_000.0 * THOUSAND_REQUESTS,
                // The profile `capacity`: one metric a site, one a node.
                metrics: (nodes + sites) * METRIC * months,
                // Two a site: one takes the work to the cloud, one takes it back.
                alarms: 2.0 * sites * ALARM * months,
            },
            calls: QUOTAS.iter().map(|quota| quota.name).zip(rates).collect(),
            all_calls,
            looks: run.looks,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} nodes, {} sites, {} days, seed {}; {:.1} million slot-hours to carry; {:.0} s",
            self.nodes,
            self.sites,
            self.days,
            self.seed,
            self.required_slot_hours / 1e6,
            self.took_s
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "{:36}{:>13}{:>15}{:>14}",
            "", "nobody acts", "without guards", "with guards"
        )?;
        self.line(f, "slot-hours lost", |row| row.lost_slot_hours)?;
        for (_, cause) in CAUSES {
            self.line(f, &format!("  {cause}"), |row| row.lost_by_cause[cause])?;
        }
        let required = self.required_slot_hours;
        self.percent(f, "  of all that was to carry", 3, |row| {
            row.lost_slot_hours / required
        })?;
        self.over_time(f)?;
        self.line(f, "nodes drained rightly", |row| row.right_drains.into())?;
        self.line(f, "nodes drained wrongly", |row| row.wrong_drains.into())?;
        let mut causes: Vec<&String> = self
            .rows()
            .iter()
            .flat_map(|row| row.wrong_drains_for.keys())
            .collect();
        causes.sort_unstable();
        causes.dedup();
        for cause in causes {
            let of = |row: &Row| f64::from(row.wrong_drains_for.get(cause).copied().unwrap_or(0));
            self.line(f, &format!("  for {cause}"), of)?;
        }
        self.percent(f, "most of a cluster drained at once", 1, |row| {
            row.largest_share_of_a_cluster_out
        })?;
        self.line(f, "alarms", |row| row.alarms.into())?;
        self.line(f, "cloud GPU hours", |row| row.cloud_gpu_hours)?;
        self.line(f, "  slot-hours carried twice", |row| {
            row.carried_twice_slot_hours
        })?;
        self.line(f, "dollars", |row| row.dollars.sum())?;
        self.line(f, "  GPU instances", |row| row.dollars.instances)?;
        self.line(f, "  requests, metrics, alarms", |row| {
            row.dollars.sum() - row.dollars.instances
        })?;
        for (title, row) in [
            ("without guards", &self.unguarded),
            ("with guards", &self.guarded),
        ] {
            writeln!(f)?;
            row.calls(f, title)?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "Without a phase of its own for each node, {} PutMetricData in one second.",
            grouped(self.nodes.into())
        )?;
        writeln!(
            f,
            "UpdateService is Application Auto Scaling's, at most once a minute and site."
        )?;
        writeln!(
            f,
            "Sources and assumptions stand beside the figures in examples/fleet."
        )?;
        writeln!(
            f,
            "The dollars are without the price of ECS Anywhere itself."
        )
    }
}

impl Table {
    /// In at most so many parts: hour by hour, day by day, or more at once.
    fn over_time(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PARTS: usize = 14;
        let hours = self.nobody.lost_by_hour.len();
        let part = if hours <= PARTS {
            1
        } else {
            24 * hours.div_ceil(24 * PARTS)
        };
        for from in (0..hours).step_by(part) {
            let to = hours.min(from + part);
            let of = |row: &Row| row.lost_by_hour[from..to].iter().sum();
            self.line(f, &format!("  hours {from} to {to}"), of)?;
        }
        Ok(())
    }

    fn line(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        of: impl Fn(&Row) -> f64,
    ) -> fmt::Result {
        let [nobody, unguarded, guarded] = self.rows().map(|row| grouped(of(row)));
        writeln!(f, "{name:36}{nobody:>13}{unguarded:>15}{guarded:>14}")
    }

    fn percent(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        digits: usize,
        of: impl Fn(&Row) -> f64,
    ) -> fmt::Result {
        let [nobody, unguarded, guarded] = self
            .rows()
            .map(|row| format!("{:.*} %", digits, of(row) * 100.0));
        writeln!(f, "{name:36}{nobody:>13}{unguarded:>15}{guarded:>14}")
    }
}

impl Row {
    fn calls(&self, f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
        writeln!(
            f,
            "{:18}{:>8}{:>6}{:>9}{:>8}{:>9}{:>9}{:>11}",
            "calls a second", "mean", "p99", "busiest", "half", "busiest", "half", "throttled"
        )?;
        writeln!(
            f,
            "{title:18}{:>8}{:>6}{:>9}{:>8}{:>9}{:>9}",
            "", "", "second", "burst", "minute", "refill"
        )?;
        for quota in QUOTAS {
            let Some(rate) = self.calls.get(quota.name) else {
                continue;
            };
            writeln!(
                f,
                "{:18}{:>8.2}{:>6}{:>9}{:>8}{:>9.1}{:>9.1}{:>11}",
                quota.name,
                rate.mean,
                rate.p99,
                rate.most,
                quota.burst / 2,
                rate.minute,
                f64::from(quota.sustained) / 2.0,
                grouped(rate.throttled as f64)
            )?;
        }
        let all = &self.all_calls;
        let burst = f64::from(all.most) / all.mean;
        writeln!(
            f,
            "{:18}{:>8.2}{:>6}{:>9}  {burst:.1} times the mean",
            "all", all.mean, all.p99, all.most
        )
    }
}

/// `1,234,567`.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
