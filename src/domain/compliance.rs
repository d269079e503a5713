//! What SSM Compliance is told: one item a finding, on change and once a day, never in a storm.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::explain::explain;
use super::finding::{Finding, Severity};
use super::moment::Moment;
use super::phase;
use super::report::{Report, State};

/// What flaps has settled when it has been the same for so long.
const SETTLED: Duration = Duration::from_secs(30);

/// At the start nobody can say for a while; only this long is worth telling.
const UNKNOWN_SETTLED: Duration = Duration::from_secs(180);

/// What never settles is told all the same.
const AT_LATEST: Duration = Duration::from_secs(300);

/// Least time between two calls; also the time over which nodes that start together are spread.
const BETWEEN: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_secs(86_400);

/// The worst so many are listed, the others counted: SSM takes 10,000, which nobody reads.
const MOST_ITEMS: usize = 200;

/// SSM keeps no longer id for sure.
const LONGEST_ID: usize = 100;

/// SSM takes 4,096 characters.
const LONGEST_DETAIL: usize = 1_024;

/// One `ComplianceItemEntry` of SSM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Item {
    /// Code and subject of the finding.
    pub id: String,
    /// What the code means.
    pub title: String,
    /// SSM's word for the severity.
    pub severity: &'static str,
    /// `COMPLIANT` or `NON_COMPLIANT`.
    pub status: &'static str,
    /// Evidence and the like.
    pub details: BTreeMap<&'static str, String>,
}

/// What makes two accounts different; evidence, which changes all the time, does not.
type Gist = Vec<(String, &'static str)>;

/// When to tell what.
#[derive(Debug, Clone)]
pub struct Compliance {
    now: Option<Account>,
    told: Option<Gist>,
    /// The first change that was not told.
    behind: Option<Moment>,
    /// No call before this.
    not_before: Moment,
    daily: Moment,
}

/// How the node does.
#[derive(Debug, Clone)]
struct Account {
    items: Vec<Item>,
    gist: Gist,
    since: Moment,
    settles: Duration,
}

impl Compliance {
    /// Nothing is known yet, nor what was told last; `node` spreads the calls of many.
    #[must_use]
    pub fn new(node: &str, now: Moment) -> Self {
        Compliance {
            now: None,
            told: None,
            behind: None,
            not_before: now + phase::of(node, BETWEEN),
            daily: now + phase::of(node, DAY),
        }
    }

    /// Takes in how the node does.
    pub fn take_in(&mut self, report: &Report, now: Moment) {
        let items = items(report);
        let gist: Gist = items
            .iter()
            .map(|item| (item.id.clone(), item.severity))
            .collect();
        let unknown = report.verdict.state == State::Unknown && report.findings.is_empty();
        let since = match &self.now {
            Some(account) if account.gist == gist => account.since,
            Some(_) | None => now,
        };
        self.behind = match self.told.as_ref() == Some(&gist) {
            true => None,
            false => self.behind.or(Some(now)),
        };
        self.now = Some(Account {
            items,
            gist,
            since,
            settles: if unknown { UNKNOWN_SETTLED } else { SETTLED },
        });
    }

    /// When there is something to tell; `None`: not before something changes.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        let account = self.now.as_ref()?;
        let settled = account.since + account.settles;
        let news = self
            .behind
            .map(|behind| settled.min(behind + AT_LATEST.max(account.settles)));
        let due = news.map_or(self.daily, |news| news.min(self.daily));
        Some(due.max(self.not_before))
    }

    /// What is to be told.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        self.now.as_ref().map_or(&[], |account| &account.items)
    }

    /// SSM has what [`items`](Self::items) gave at `asked`; something may have changed since.
    pub fn told(&mut self, items: &[Item], asked: Moment) {
        let gist: Gist = items
            .iter()
            .map(|item| (item.id.clone(), item.severity))
            .collect();
        if self
            .now
            .as_ref()
            .is_some_and(|account| account.gist == gist)
        {
            self.behind = None;
        }
        self.told = Some(gist);
        self.not_before = asked + BETWEEN;
        while self.daily <= asked {
            self.daily = self.daily + DAY;
        }
    }

    /// SSM has not taken it: no sooner than this again.
    pub fn failed(&mut self, until: Moment) {
        self.not_before = until;
    }
}

/// One item a finding, the worst first; a node without findings has one all the same.
fn items(report: &Report) -> Vec<Item> {
    let mut findings: Vec<&Finding> = report.findings.iter().collect();
    findings.sort_by(|one, other| {
        let key = |finding: &Finding| (finding.code, finding.subject.clone());
        let worst_first = other.severity.cmp(&one.severity);
        worst_first.then_with(|| key(one).cmp(&key(other)))
    });
    if findings.is_empty() {
        return vec![node(report)];
    }
    let left_out = findings.len().saturating_sub(MOST_ITEMS);
    let mut items: Vec<Item> = findings.into_iter().take(MOST_ITEMS).map(item).collect();
    if left_out > 0 {
        items.push(Item {
            id: "sideline.more".to_owned(),
            title: format!("{left_out} more; `sideline status` lists them"),
            severity: "INFORMATIONAL",
            status: "NON_COMPLIANT",
            details: BTreeMap::new(),
        });
    }
    items
}

/// What stands for a node without findings.
fn node(report: &Report) -> Item {
    let state = report.verdict.state;
    let (severity, status, title) = match state {
        State::Healthy | State::Degraded | State::Failing => {
            ("INFORMATIONAL", "COMPLIANT", "no open finding")
        }
        State::Unknown => ("UNSPECIFIED", "NON_COMPLIANT", "nobody can say how it does"),
    };
    let details = [
        ("State", state.name().to_owned()),
        ("Agent", report.node.agent.clone()),
    ];
    Item {
        id: "sideline".to_owned(),
        title: title.to_owned(),
        severity,
        status,
        details: details.into(),
    }
}

fn item(finding: &Finding) -> Item {
    let (severity, status) = match finding.severity {
        Severity::Failing => ("CRITICAL", "NON_COMPLIANT"),
        Severity::Degraded => ("HIGH", "NON_COMPLIANT"),
        Severity::Info => ("INFORMATIONAL", "COMPLIANT"),
    };
    let evidence = finding.evidence.chars().take(LONGEST_DETAIL).collect();
    let details = [
        ("Advice", finding.advice.name().to_owned()),
        ("Evidence", evidence),
        ("Since", finding.since.to_string()),
    ];
    let code = finding.code.to_string();
    let explained = explain(&code);
    Item {
        id: id(&format!("{code} {}", finding.subject)),
        title: explained.map_or(code, |explained| explained.title),
        severity,
        status,
        details: details.into(),
    }
}

/// Names of cameras can be long; a checksum keeps two of them apart that begin alike.
fn id(whole: &str) -> String {
    if whole.chars().count() <= LONGEST_ID {
        return whole.to_owned();
    }
    let start: String = whole.chars().take(LONGEST_ID - 9).collect();
    format!("{start}~{:08x}", crc32fast::hash(whole.as_bytes()))
}

#[cfg(test)]
mod tests;
