//! A node and its site, and the time line of what their operator sees: a line for every change, by the seconds since
//! the last thing that happened.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sideline::status::client;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::field::Field;
use crate::mqtt::Client;
use crate::plan::{Plan, all_is_well};
use crate::site::Site;

/// The node with the agent. A node sends at its own second of each period: this one early in it, so that fakecloud, which
/// counts the period that has only begun, never misses more than that one.
const NODE: &str = "mi-0shed1";

/// The others are registered and well, and run no agent.
const OTHERS: [&str; 2] = ["mi-0shed2", "mi-0shed3"];

/// What the node carries, and all that the site has to.
const SLOTS: u32 = 18;

/// Of so many periods all but one have to be whole for the twin to go home; the template has ten minutes.
const PERIODS_BACK: u32 = 4;

/// No step of a story takes longer.
const PATIENCE: Duration = Duration::from_secs(90);

/// How often everybody is asked how things stand.
const LOOK: Duration = Duration::from_millis(250);

/// A node, its site, and what was seen of both.
pub(crate) struct Story {
    pub(crate) field: Field,
    pub(crate) seen: Seen,
    site: Site,
    relay: Client,
    /// When the last thing happened.
    began: Timestamp,
    /// The node's container instance.
    own: String,
    /// How many calls and messages are told already.
    told: (usize, usize),
    /// The last that the relay's `health` said: it repeats itself.
    health: String,
}

/// How things stand.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Seen {
    /// What the agent says of itself; null while there is none.
    pub(crate) report: Value,
    /// The container instance's status at ECS.
    pub(crate) instance: String,
    /// And its attribute `sideline.claim`.
    pub(crate) claim: Option<String>,
    /// The node's newest `Health` at CloudWatch.
    pub(crate) health: Option<u32>,
    /// The sums of `Capacity`, newest first, of the period that has begun and the two before, as far as there are.
    pub(crate) capacity: Vec<u32>,
    /// The state of the alarm on a shortage.
    pub(crate) alarm: String,
    /// How many tasks of the twin service are wanted.
    pub(crate) desired: u32,
}

/// What the gate answers.
#[derive(Deserialize)]
pub(crate) struct Gate {
    url: String,
    /// Access key, secret and token, as the node's role has them.
    keys: [String; 3],
    /// The node's own.
    pub(crate) container_instance: String,
}

/// A call that the node has made.
#[derive(Deserialize)]
struct Call {
    at: Timestamp,
    action: String,
    /// ARNs of what it acts on.
    on: Vec<String>,
    allowed: bool,
}

impl Story {
    /// Makes the site, starts the agent, and sets the alarms when it has spoken: a site from which nothing has come yet
    /// is short of everything. Then waits until all is well: the node has just sent its period, so that what happens next
    /// does so at the worst moment.
    pub(crate) async fn begin() -> Self {
        let (site, gate) = site().await;
        let field = Field::without_agent(plan(&gate)).await;
        let [key, secret, token] = &gate.keys;
        // As the SSM agent writes them.
        let keys = format!(
            "[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\naws_session_token = {token}\n"
        );
        field.write("credentials", keys);
        field.stats(all_is_well());
        let mut story = Story {
            relay: field.cloud().await,
            field,
            seen: Seen::default(),
            site,
            began: Timestamp::now(),
            own: gate.container_instance.clone(),
            told: (0, 0),
            health: String::new(),
        };
        story.now("three external instances of a cluster; the agent starts on one");
        story.field.start_agent().await;
        let speaks = |seen: &Seen| seen.capacity.starts_with(&[SLOTS, SLOTS]);
        story.until("two periods", speaks).await;
        let set = json!({"do": "plain_alarms", "back": PERIODS_BACK});
        let alarms: Vec<String> = story.site.ask(&set).await;
        for alarm in alarms {
            println!("  {alarm}");
        }
        story.until("all to be well", Seen::is_well).await;
        story
    }

    /// Something happens now: what follows is told by the seconds since.
    pub(crate) fn now(&mut self, what: &str) {
        println!("--- {what}");
        self.began = Timestamp::now();
    }

    /// Looks on, and tells what changes, until things stand so. Returns how long after what happened last that was.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Seen) -> bool) -> Duration {
        let watch = async {
            let mut beat = interval(LOOK);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beat.tick().await;
                let at = self.look().await;
                if is_so(&self.seen) {
                    return at;
                }
            }
        };
        let reached = timeout(PATIENCE, watch).await.ok();
        reached.unwrap_or_else(|| {
            let (seen, log) = (&self.seen, self.field.log());
            let lines = seen.lines().join("\n");
            panic!(
                "waited in vain for {what}:\n{lines}\n{:#}\nthe log:\n{log}",
                seen.report
            )
        })
    }

    /// How often the node has called what so far.
    ///
    /// # Panics
    /// Where a call was refused, or changed anything but the node's own container instance.
    pub(crate) async fn calls(&mut self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for call in self.site.ask::<Vec<Call>>(&json!({"do": "calls"})).await {
            assert!(call.allowed, "{} was refused", call.action);
            let own = call.on == [self.own.as_str()];
            assert!(own || !call.changes(), "{} on {:?}", call.action, call.on);
            *counts.entry(call.action).or_default() += 1;
        }
        counts
    }

    /// Looks at everything, and tells what has changed since the last time. Returns when, after what happened last.
    async fn look(&mut self) -> Duration {
        let look = json!({"do": "look", "site": "north", "node": NODE});
        let mut seen: Seen = self.site.ask(&look).await;
        seen.report = client::report(&self.field.socket())
            .await
            .unwrap_or_default();
        let at = Timestamp::now();
        let was = self.seen.lines().into_iter();
        let changed = was.zip(seen.lines()).filter(|(was, is)| was != is);
        let mut lines: Vec<_> = changed.map(|(_, is)| (at, is)).collect();
        self.seen = seen;

        let calls: Vec<Call> = self.site.ask(&json!({"do": "calls"})).await;
        let messages = self.relay.messages();
        let steps = calls.iter().skip(self.told.0).filter(|call| call.changes());
        lines.extend(steps.map(|call| (call.at, format!("node calls  {}", call.action))));
        for message in messages.iter().skip(self.told.1) {
            let said = relayed(&message.topic, &message.json());
            if let Some(said) = said.filter(|said| *said != self.health) {
                if message.topic.ends_with("/health") {
                    self.health.clone_from(&said);
                }
                lines.push((message.at, said));
            }
        }
        self.told = (calls.len(), messages.len());

        lines.sort();
        for (at, line) in lines {
            println!("{:6.1} s  {line}", self.since(at).as_secs_f64());
        }
        self.since(at)
    }

    fn since(&self, at: Timestamp) -> Duration {
        at.duration_since(self.began).try_into().unwrap_or_default()
    }
}

impl Seen {
    /// The site carries all that it has to, and the cloud nothing.
    pub(crate) fn is_well(&self) -> bool {
        self.report["verdict"]["state"] == "healthy"
            && self.report["failover"]["state"] == "in_service"
            && self.instance == "ACTIVE"
            && self.claim.is_none()
            && self.capacity.starts_with(&[SLOTS])
            && self.alarm == "OK"
            && self.desired == 0
    }

    /// The work is in the cloud.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.alarm == "ALARM" && self.desired == 1
    }

    /// A line about each that can change.
    fn lines(&self) -> [String; 6] {
        let known = |value: Option<&u32>| value.map_or("–".into(), |value| value.to_string());
        [
            format!("node        {}", told(&self.report)),
            format!(
                "ECS         {}, {}",
                self.instance,
                self.claim.as_deref().unwrap_or("no claim")
            ),
            format!("CloudWatch  Health {}", known(self.health.as_ref())),
            format!("CloudWatch  Capacity {}", known(self.capacity.first())),
            format!("alarm       {}", self.alarm),
            format!("twin        {} wanted", self.desired),
        ]
    }
}

impl Call {
    /// Those that only look, or come every period, are no news.
    fn changes(&self) -> bool {
        ["ecs:Put", "ecs:Delete", "ecs:Update"]
            .iter()
            .any(|name| self.action.starts_with(name))
    }
}

/// A report in a line.
fn told(report: &Value) -> String {
    if report.is_null() {
        return "silent".into();
    }
    let word = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let capacity = &report["capacity"];
    let because = capacity["because"].as_str();
    format!(
        "{}, {}, {} of {} slots{}",
        word(&report["verdict"]["state"]),
        word(&report["failover"]["state"]),
        capacity["available"],
        capacity["slots"],
        because.map_or(String::new(), |why| format!(" ({why})")),
    )
}

/// A relay's message in a line; `None` where it is no news here.
fn relayed(topic: &str, message: &Value) -> Option<String> {
    let word = |key: &str| message[key].as_str();
    let said = match topic.rsplit_once('/')?.1 {
        "status" => word("status")?.to_owned(),
        "health" => format!(
            "{}, {} of {} slots",
            word("state")?,
            message["available"],
            message["slots"]
        ),
        "event" if message["kind"] == "failover" => match (word("what")?, word("until")) {
            ("state", _) => format!("{} → {}", word("was")?, word("state")?),
            (what, Some(until)) => format!("{what}, until {until}"),
            (what, None) => what.to_owned(),
        },
        _ => return None,
    };
    Some(format!("relay       {said}"))
}

/// A site from the template, and the gate through which its node calls.
pub(crate) async fn site() -> (Site, Gate) {
    let mut site = Site::start().await;
    let nodes: Vec<&str> = [NODE].into_iter().chain(OTHERS).collect();
    let parameters = json!({
        "Site": "north", "RequiredSlots": SLOTS, "SlotsPerTask": SLOTS, "FastDetection": "true",
    });
    let deploy =
        json!({"do": "deploy", "stack": "north", "nodes": nodes, "parameters": parameters});
    let instances: Vec<String> = site.ask(&deploy).await;
    let gate = json!({"do": "gate", "container_instance": instances[0]});
    let gate = site.ask(&gate).await;
    (site, gate)
}

/// A node with one card, which drains itself.
fn plan(gate: &Gate) -> Plan {
    let mut plan = Plan::new()
        .without_keys_in_the_environment()
        .set("node.id", NODE)
        .set("aws.ecs_agent", gate.url.as_str())
        .set("cloudwatch.period", "10s")
        .set("failover.mode", "drain")
        .set("failover.probation", "5s");
    plan.gpus = json!({"gpus": [{"preset": "l4"}]});
    plan.environment
        .push(("AWS_ENDPOINT_URL".into(), gate.url.clone()));
    plan
}
