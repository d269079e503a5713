//! Whether this node can still show who it is: its registration, its credentials, and the SSM agent that renews them.
//!
//! The SSM agent renews at half of the credentials' life. When it could not, it tries again ever more rarely, and can
//! sleep on long after the uplink is back: <https://github.com/aws/amazon-ssm-agent/issues/616>.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::finding::{Advice, Code, Severity, Subject};
use super::findings::{Found, Observed};
use super::moment::{Moment, Now};

/// An SSM agent that is awake renews within this time of when it should.
const RENEWS_WITHIN: SignedDuration = SignedDuration::from_mins(10);

/// How long AWS must have been answering before an SSM agent that has not renewed is asleep.
const NOTICES_WITHIN: Duration = Duration::from_secs(600);

/// AWS answers as long as its answers come no further apart.
const BETWEEN_ANSWERS: Duration = Duration::from_secs(900);

/// The SSM agent is restarted no more often.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(3_600);

/// What was seen of this node's identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The managed instance that the agent started as.
    pub started_as: Option<String>,
    /// The AWS Region.
    pub region: Option<String>,
    /// What the registration names now.
    pub registered: Registered,
    /// What the agent signs with.
    pub credentials: Credentials,
    /// What the SSM agent says of what it renews; `None` where it says nothing.
    pub renewal: Option<Renewal>,
    /// How often the SSM agent was restarted since the agent started.
    pub restarts: u64,
    /// Why it could not be, when that was tried last.
    pub restart_trouble: Option<String>,
}

/// What a registration names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Registered {
    /// There is none.
    #[default]
    No,
    /// A managed instance.
    As(String),
    /// It can't be read, or names none: why.
    Unreadable(String),
}

/// What the SSM agent has written down when it renewed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// When that was.
    pub at: Option<Timestamp>,
    /// Until when it lasts.
    pub expires_at: Timestamp,
}

/// What the agent signs with; never any part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// Where they come from; `None` while nobody has looked.
    pub source: Option<Source>,
    /// The file, where they come from one.
    pub file: Option<String>,
    /// When they expire, where the SSM agent says.
    pub expires_at: Option<Timestamp>,
    /// Whether they are a user's own keys, which never expire.
    pub long_lived: Option<bool>,
    /// Why there are none that could be used.
    pub problem: Option<String>,
    /// What AWS said when it refused them last; `None` once it has taken them again.
    pub refused: Option<String>,
}

/// Where credentials come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A file, read for every request.
    File,
    /// The environment of the agent.
    Environment,
    /// There are none.
    None,
}

/// How the SSM agent does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SsmAgent {
    /// It renews the credentials in time.
    Renews,
    /// It does not, though AWS answers.
    Asleep,
    /// Nobody can say: it has renewed nothing, but AWS does not answer either, or it says nothing of that.
    #[default]
    Unknown,
    /// This machine is no managed instance.
    None,
}

/// The wire form, in the report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Identity {
    /// The managed instance that the agent started as.
    pub managed_instance: Option<String>,
    /// The AWS Region.
    pub region: Option<String>,
    /// What the agent signs with.
    pub credentials: CredentialsReport,
    /// How the SSM agent does.
    pub ssm_agent: SsmAgent,
}

/// The wire form of [`Credentials`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct CredentialsReport {
    /// Where they come from.
    pub source: Option<Source>,
    /// The file, where they come from one.
    pub file: Option<String>,
    /// When they expire, where the SSM agent says.
    pub expires_at: Option<Timestamp>,
    /// The time left until then; negative afterwards.
    pub expires_in_s: Option<i64>,
    /// Whether they are a user's own keys, which never expire.
    pub long_lived: Option<bool>,
}

/// What the watchdog remembers between two looks.
#[derive(Debug, Clone, Default)]
pub struct Watchdog {
    /// AWS's latest answer, and the first of the row that it belongs to.
    answers: Option<(Moment, Moment)>,
    ssm_agent: SsmAgent,
    /// When a restart was wanted last.
    restarted: Option<Moment>,
    restarts_wanted: u64,
}

impl Watchdog {
    /// Takes in what was seen; `heard` is when AWS last answered anything, and `may_restart` whether an SSM agent that
    /// sleeps is to be restarted.
    pub fn take_in(&mut self, seen: &Seen, heard: Option<Moment>, may_restart: bool, now: Now) {
        self.answers = heard.map(|heard| match self.answers {
            Some((last, first)) if heard - last <= BETWEEN_ANSWERS => (heard, first),
            Some(_) | None => (heard, heard),
        });
        self.ssm_agent = self.ssm_agent(seen, now);
        let again = |at: Moment| BETWEEN_RESTARTS <= now.moment - at;
        let asleep = self.ssm_agent == SsmAgent::Asleep;
        if asleep && may_restart && self.restarted.is_none_or(again) {
            self.restarted = Some(now.moment);
            self.restarts_wanted += 1;
        }
    }

    /// How often a restart of the SSM agent was wanted since the agent started.
    #[must_use]
    pub fn restarts_wanted(&self) -> u64 {
        self.restarts_wanted
    }

    fn ssm_agent(&self, seen: &Seen, now: Now) -> SsmAgent {
        if seen.started_as.is_none() {
            return SsmAgent::None;
        }
        match &seen.renewal {
            None => SsmAgent::Unknown,
            Some(renewal) if now.wall < renewal.late() => SsmAgent::Renews,
            Some(_) if self.answers_for(NOTICES_WITHIN, now) => SsmAgent::Asleep,
            Some(_) => SsmAgent::Unknown,
        }
    }

    /// Whether AWS answers, and has for so long.
    fn answers_for(&self, long: Duration, now: Now) -> bool {
        self.answers.is_some_and(|(last, first)| {
            now.moment - last <= BETWEEN_ANSWERS && long <= now.moment - first
        })
    }

    /// `agent.credentials` and `agent.identity`; `needed`: something is to be told or asked in AWS.
    pub fn observe(&self, seen: &Seen, needed: bool, now: Now, found: &mut Found) {
        let online = self.answers_for(Duration::ZERO, now);
        if seen.credentials.source.is_none() {
            found.unsure(Code::AgentCredentials, Subject::Agent);
        }
        if needed && let Some(evidence) = seen.credentials.trouble(now) {
            // While the uplink is down nobody can renew them.
            let (severity, advice) = match online || seen.credentials.expires_at.is_none() {
                true => (Severity::Degraded, Advice::Inspect),
                false => (Severity::Info, Advice::None),
            };
            let (code, subject) = (Code::AgentCredentials, Subject::Agent);
            found.push(Observed::state(code, subject, severity, advice, evidence));
        }
        if let Some((severity, advice, evidence)) = self.identity(seen) {
            let (code, subject) = (Code::AgentIdentity, Subject::Agent);
            found.push(Observed::state(code, subject, severity, advice, evidence));
        } else if self.ssm_agent == SsmAgent::Unknown && seen.renewal.is_some() {
            // It may sleep on behind an uplink that is down.
            found.unsure(Code::AgentIdentity, Subject::Agent);
        }
    }

    fn identity(&self, seen: &Seen) -> Option<(Severity, Advice, String)> {
        let inspect = |evidence| Some((Severity::Degraded, Advice::Inspect, evidence));
        match (&seen.started_as, &seen.registered) {
            (Some(_), Registered::Unreadable(why)) => inspect(why.clone()),
            // It costs only the name that it would have given.
            (None, Registered::Unreadable(why)) => {
                Some((Severity::Info, Advice::Inspect, why.clone()))
            }
            (Some(was), Registered::No) => inspect(format!(
                "the SSM registration is gone; this machine was {was}"
            )),
            (Some(was), Registered::As(is)) if was != is => inspect(format!(
                "this machine is registered as {is} now, and was {was}: `systemctl restart sideline` goes on as that"
            )),
            (None, Registered::As(is)) => Some((
                Severity::Info,
                Advice::None,
                format!(
                    "this machine is registered as {is} now: `systemctl restart sideline` goes on as that"
                ),
            )),
            (Some(_), Registered::As(_)) | (None, Registered::No) => {
                let renewal = seen
                    .renewal
                    .filter(|_| self.ssm_agent == SsmAgent::Asleep)?;
                let trouble = seen.restart_trouble.as_ref();
                let trouble = trouble.map_or(String::new(), |why| {
                    format!("; it could not be restarted: {why}")
                });
                let evidence = format!(
                    "the SSM agent sleeps: AWS answers, but the credentials are those that expire at {}; \
                     `systemctl restart amazon-ssm-agent` wakes it{trouble}",
                    renewal.expires_at
                );
                Some((Severity::Degraded, Advice::RestartApp, evidence))
            }
        }
    }

    /// The wire form.
    #[must_use]
    pub fn report(&self, seen: &Seen, now: Now) -> Identity {
        let credentials = &seen.credentials;
        let left = |at: Timestamp| at.duration_since(now.wall).as_secs();
        Identity {
            managed_instance: seen.started_as.clone(),
            region: seen.region.clone(),
            credentials: CredentialsReport {
                source: credentials.source,
                file: credentials.file.clone(),
                expires_at: credentials.expires_at,
                expires_in_s: credentials.expires_at.map(left),
                long_lived: credentials.long_lived,
            },
            ssm_agent: self.ssm_agent,
        }
    }
}

impl Renewal {
    /// When an SSM agent that is awake has renewed them for certain.
    fn late(&self) -> Timestamp {
        let life = self.at.map_or(SignedDuration::ZERO, |at| {
            self.expires_at.duration_since(at).max(SignedDuration::ZERO)
        });
        let half = self.expires_at.checked_sub(life / 2);
        let late = half.and_then(|half| half.checked_add(RENEWS_WITHIN));
        late.unwrap_or(self.expires_at)
    }
}

impl Credentials {
    /// Why AWS can't be spoken to with them.
    fn trouble(&self, now: Now) -> Option<String> {
        if let Some(problem) = &self.problem {
            return Some(problem.clone());
        }
        if let Some(expired) = self.expires_at.filter(|at| *at <= now.wall) {
            return Some(format!("the credentials expired at {expired}"));
        }
        let refused = self.refused.as_ref()?;
        let of = self.file.as_deref().unwrap_or("the environment");
        Some(format!("AWS refuses the credentials of {of}: {refused}"))
    }
}

#[cfg(test)]
mod tests;
