//! MQTT as others speak it to the broker: a Frigate with its rhythm, and a client that keeps what it hears.

use std::time::Duration;

use jiff::Timestamp;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

/// No condition here takes longer; most take milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Messages that a failure shows: the latest.
const SHOWN: usize = 100;

/// Larger than anything that a test publishes.
const LARGEST: usize = 4 << 20;

/// A message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    #[allow(dead_code, reason = "only the latency benchmark asks when")]
    pub(crate) at: Timestamp,
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    /// It was there before we subscribed.
    pub(crate) retained: bool,
}

impl Message {
    /// Its content; null where it is no JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Seen {
    messages: Vec<Message>,
    /// Of publishes and subscriptions.
    acks: usize,
    ended: Option<String>,
}

/// A client that keeps all it hears until the connection breaks.
pub(crate) struct Client {
    client: AsyncClient,
    seen: watch::Receiver<Seen>,
    poller: JoinHandle<()>,
}

impl Client {
    /// Connects, under a name of its own.
    pub(crate) fn new(port: u16, name: &str) -> Self {
        let (client, events) = connect(port, name);
        let (sender, seen) = watch::channel(Seen::default());
        Client {
            client,
            seen,
            poller: tokio::spawn(listen(events, sender)),
        }
    }

    /// Connects and subscribes.
    pub(crate) async fn subscribed(port: u16, name: &str, filter: &str) -> Self {
        let client = Client::new(port, name);
        let subscribed = client.client.subscribe(filter, QoS::AtLeastOnce);
        subscribed.await.expect("the client lives");
        client.acknowledged(1).await;
        client
    }

    /// Publishes with QoS 1, and waits until the broker has it.
    pub(crate) async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>, retain: bool) {
        let acks = self.seen.borrow().acks;
        let published = self
            .client
            .publish(topic, QoS::AtLeastOnce, retain, payload.into());
        published.await.expect("the client lives");
        self.acknowledged(acks + 1).await;
    }

    async fn acknowledged(&self, acks: usize) {
        self.wait("an acknowledgement", |seen| seen.acks >= acks)
            .await;
    }

    /// What was heard so far.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.seen.borrow().messages.clone()
    }

    /// Waits until what was heard is so.
    pub(crate) async fn until(
        &self,
        what: &str,
        is_so: impl Fn(&[Message]) -> bool,
    ) -> Vec<Message> {
        self.wait(what, |seen| is_so(&seen.messages)).await;
        self.messages()
    }

    /// Waits for a message whose topic ends so and whose content is so.
    pub(crate) async fn message(
        &self,
        what: &str,
        topic: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let find = |messages: &[Message]| {
            let mut of_topic = messages.iter().filter(|one| one.topic.ends_with(topic));
            of_topic.find_map(|one| Some(one.json()).filter(|json| is_so(json)))
        };
        let messages = self.until(what, |messages| find(messages).is_some()).await;
        find(&messages).expect("it was just there")
    }

    /// Events so far, in the order in which they came.
    pub(crate) fn events(&self) -> Vec<Value> {
        let mut messages = self.messages();
        messages.retain(|message| message.topic.ends_with("/event"));
        messages.iter().map(Message::json).collect()
    }

    async fn wait(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        let mut seen = self.seen.clone();
        let reached = seen.wait_for(|seen| is_so(seen) || seen.ended.is_some());
        let in_time = tokio::time::timeout(PATIENCE, reached).await.is_ok();
        let seen = self.seen.borrow();
        assert!(
            is_so(&seen),
            "waited in vain for {what} ({}, {:?}); heard: {}",
            if in_time { "it broke" } else { "30 s" },
            seen.ended,
            shown(&seen.messages)
        );
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

fn shown(messages: &[Message]) -> String {
    let line = |message: &Message| {
        let payload = String::from_utf8_lossy(&message.payload);
        let payload: String = payload.chars().take(300).collect();
        format!("\n  {} {payload}", message.topic)
    };
    let left_out = messages.len().saturating_sub(SHOWN);
    let latest: String = messages[left_out..].iter().map(line).collect();
    format!("{left_out} and then{latest}")
}

fn connect(port: u16, name: &str) -> (AsyncClient, EventLoop) {
    let mut options = MqttOptions::new(name, "127.0.0.1", port);
    options.set_max_packet_size(LARGEST, LARGEST);
    AsyncClient::new(options, 64)
}

async fn listen(mut events: EventLoop, seen: watch::Sender<Seen>) {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Publish(message))) => {
                let message = Message {
                    at: Timestamp::now(),
                    topic: message.topic,
                    payload: message.payload.to_vec(),
                    retained: message.retain,
                };
                seen.send_modify(|seen| seen.messages.push(message));
            }
            Ok(Event::Incoming(Packet::PubAck(_) | Packet::SubAck(_))) => {
                seen.send_modify(|seen| seen.acks += 1);
            }
            Ok(_) => {}
            Err(error) => return seen.send_modify(|seen| seen.ended = Some(error.to_string())),
        }
    }
}

/// What the Frigate says: `available` (retained; none clears it), and its stats every second instead of every minute.
#[derive(Clone, Debug, Default)]
pub(crate) struct Says {
    pub(crate) available: Option<&'static str>,
    pub(crate) stats: Option<String>,
}

/// Plays the Frigate until it is aborted, across restarts of the broker.
pub(crate) async fn frigate(port: u16, mut says: watch::Receiver<Says>) {
    let (client, mut events) = connect(port, "frigate");
    let rhythm = || {
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        second
    };
    let (connected, mut connections) = watch::channel(());
    let poll = async move {
        let mut second = rhythm();
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => {
                    connected.send_replace(());
                }
                Ok(_) => {}
                Err(_) => {
                    second.tick().await;
                }
            }
        }
    };
    let speak = async move {
        let mut second = rhythm();
        loop {
            // Full while there is no connection: what is said is said again.
            let now = says.borrow_and_update().clone();
            let available = now.available.unwrap_or_default();
            let _ = client.try_publish("frigate/available", QoS::AtLeastOnce, true, available);
            if let Some(stats) = now.stats {
                let _ = client.try_publish("frigate/stats", QoS::AtMostOnce, false, stats);
            }
            tokio::select! {
                _ = second.tick() => {}
                _ = says.changed() => {}
                _ = connections.changed() => {}
            }
        }
    };
    tokio::join!(poll, speak);
}
