//! The MQTT client: a broker, one life of a connection to it, and how long to wait between two lives.
//!
//! rumqttc loses queued messages around a reconnect, can livelock after a lost session, waits for ever on some
//! half-open connections and has no backoff. So a connection here lives once: any error ends it, nothing of it
//! survives, and the caller opens a fresh one after [`Patience::next`] and sends again what was not acknowledged.

mod broker;
mod trouble;

use std::collections::VecDeque;
use std::time::Duration;

use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, Publish, QoS,
    SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::ReusableBoxFuture;

use super::backoff::Backoff;

pub use broker::Broker;
pub use trouble::ConnectionError;

/// Messages that may wait for their acknowledgement. AWS IoT Core allows 100.
pub const WINDOW: usize = 20;

/// Longest packet taken or sent. rumqttc's own 10 KiB is less than one stats message of 18 cameras.
pub const MAX_PACKET: usize = 4 * 1024 * 1024;

/// A ping is sent this often.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A healthy connection has pinged and been answered within this; rumqttc alone can wait for ever.
const WATCHDOG: Duration = Duration::from_secs(2 * 30 + 5);

/// TCP, TLS and CONNECT together, and each later write: keys in a TPM are slow.
const CONNECT_TIMEOUT_S: u64 = 20;

/// Packet ids that rumqttc cycles through. Far above the window, so that none is reused while it waits.
const PACKET_IDS: u16 = 500;

/// Requests other than publishes that may wait in the channel.
const OTHER_REQUESTS: usize = 4;

/// Bytes of a publish that are not payload: header, packet id and a topic of the greatest length.
const PACKET_OVERHEAD: usize = 9 + u16::MAX as usize;

/// How long a broker may take to close a connection that we have said goodbye on.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the broker tells others when this connection dies without a goodbye.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Topic.
    pub topic: String,
    /// Payload; sent with QoS 1.
    pub payload: Vec<u8>,
    /// Kept by the broker for later subscribers.
    pub retain: bool,
}

/// Names one publish of one connection; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// What a connection brings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// The broker let us in. Always the first, and only once; subscribe now.
    Connected,
    /// The broker answered the subscription.
    Subscribed {
        /// How many of its filters the broker refuses.
        refused: usize,
    },
    /// A message of a subscribed topic.
    Message(Message),
    /// The broker has taken over the publish of this token.
    Acked(Token),
}

/// A message of a subscribed topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(Publish);

impl Message {
    /// Its topic.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.0.topic
    }

    /// Its content.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0.payload
    }

    /// Whether the broker had kept it, so that its age is not known.
    #[must_use]
    pub fn is_retained(&self) -> bool {
        self.0.retain
    }
}

/// Why something was not sent. Nothing of it has reached the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The window is full; publish again after the next [`Incoming::Acked`].
    #[error("the window of unacknowledged messages is full")]
    Full,
    /// The topic or filter can't be sent, now or later.
    #[error("no valid topic")]
    Topic,
    /// The payload can't be sent, now or later.
    #[error("the payload must be under 4 MiB")]
    Size,
}

/// One life of a connection. Dropping it closes it without a goodbye, so that the broker sends the will.
#[derive(Debug)]
pub struct Connection {
    broker: String,
    client: AsyncClient,
    polling: ReusableBoxFuture<'static, Polled>,
    /// By then the event loop has stirred, or the connection is dead.
    deadline: Instant,
    /// The end of this life.
    ended: Option<ConnectionError>,
    connected: bool,
    published: u64,
    /// Publishes that rumqttc has given a packet id. It takes them in order, so this pairs ids with tokens.
    numbered: u64,
    acked: u64,
    in_flight: VecDeque<(u16, Token)>,
}

type Polled = (EventLoop, Result<Event, rumqttc::ConnectionError>);

impl Connection {
    /// Prepares a connection with a clean session; [`Connection::next`] makes it. Reads the certificate files
    /// afresh, so that renewed ones are taken up.
    ///
    /// # Errors
    /// A certificate or key file that can't be used.
    pub fn open(
        broker: &Broker,
        client_id: &str,
        will: Option<Will>,
    ) -> Result<Connection, ConnectionError> {
        let mut options = MqttOptions::new(client_id, broker.host(), broker.port());
        options
            .set_clean_session(true)
            .set_keep_alive(KEEP_ALIVE)
            .set_inflight(PACKET_IDS)
            .set_max_packet_size(MAX_PACKET, MAX_PACKET);
        if let Some((user, password)) = broker.login() {
            options.set_credentials(user, password);
        }
        if let Some(tls) = broker
            .client_config()
            .map_err(|why| ConnectionError::local(broker, why))?
        {
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
        }
        if let Some(will) = will {
            let Will {
                topic,
                payload,
                retain,
            } = will;
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, retain));
        }
        let (client, mut event_loop) = AsyncClient::new(options, WINDOW + OTHER_REQUESTS);
        let mut network = event_loop.network_options();
        network.set_connection_timeout(CONNECT_TIMEOUT_S);
        network.set_tcp_nodelay(true);
        event_loop.set_network_options(network);
        Ok(Connection {
            broker: broker.to_string(),
            client,
            polling: ReusableBoxFuture::new(poll(event_loop)),
            deadline: Instant::now() + WATCHDOG,
            ended: None,
            connected: false,
            published: 0,
            numbered: 0,
            acked: 0,
            in_flight: VecDeque::new(),
        })
    }

    /// What the connection brings next. Nothing is lost when this future is dropped before it is done.
    ///
    /// # Errors
    /// The connection has ended. Drop it and open another after [`Patience::next`].
    pub async fn next(&mut self) -> Result<Incoming, ConnectionError> {
        loop {
            let event = self.poll().await?;
            if let Some(incoming) = self.understand(event) {
                return Ok(incoming);
            }
        }
    }

    /// Sends with QoS 1; [`Incoming::Acked`] brings the token back. It goes out while [`Connection::next`] is
    /// waited on.
    ///
    /// # Errors
    /// Says whether it may be tried again.
    pub fn publish(
        &mut self,
        topic: &str,
        payload: impl Into<Vec<u8>>,
        retain: bool,
    ) -> Result<Token, NotSent> {
        let payload = payload.into();
        if topic.is_empty() || topic.len() > u16::MAX.into() || topic.contains('\0') {
            return Err(NotSent::Topic);
        }
        if !rumqttc::valid_topic(topic) {
            return Err(NotSent::Topic);
        }
        if payload.len() > MAX_PACKET - PACKET_OVERHEAD {
            return Err(NotSent::Size);
        }
        if self.unacked() >= WINDOW as u64 {
            return Err(NotSent::Full);
        }
        self.client
            .try_publish(topic, QoS::AtLeastOnce, retain, payload)
            .map_err(|_| NotSent::Full)?;
        let token = Token(self.published);
        self.published += 1;
        Ok(token)
    }

    /// Subscribes with QoS 0, all filters in one packet. To be called after [`Incoming::Connected`].
    ///
    /// # Errors
    /// A filter that is no MQTT filter.
    pub fn subscribe(
        &mut self,
        filters: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<(), NotSent> {
        let filters: Vec<_> = filters
            .into_iter()
            .map(|filter| SubscribeFilter::new(filter.into(), QoS::AtMostOnce))
            .collect();
        let valid = |filter: &SubscribeFilter| {
            rumqttc::valid_filter(&filter.path)
                && filter.path.len() <= u16::MAX.into()
                && !filter.path.contains('\0')
        };
        if filters.is_empty() || !filters.iter().all(valid) {
            return Err(NotSent::Topic);
        }
        self.client
            .try_subscribe_many(filters)
            .map_err(|_| NotSent::Full)
    }

    /// How many publishes wait for their acknowledgement.
    #[must_use]
    pub fn unacked(&self) -> u64 {
        self.published - self.acked
    }

    /// Waits for outstanding acknowledgements, at most `within`, then says goodbye, so that the broker does
    /// not send the will. Returns the tokens that were acknowledged meanwhile.
    pub async fn disconnect(mut self, within: Duration) -> Vec<Token> {
        let deadline = Instant::now() + within;
        let mut acked = Vec::new();
        while self.connected && self.unacked() > 0 {
            match timeout_at(deadline, self.next()).await {
                Ok(Ok(Incoming::Acked(token))) => acked.push(token),
                Ok(Ok(
                    Incoming::Connected | Incoming::Subscribed { .. } | Incoming::Message(_),
                )) => {}
                Ok(Err(_)) => return acked,
                Err(_) => break,
            }
        }
        if self.connected && self.client.try_disconnect().is_ok() {
            // Closed by us with bytes unread, the socket would send a reset that can overtake the goodbye:
            // the broker closes it when it has read that.
            let goodbye = async { while self.next().await.is_ok() {} };
            // A broker that does not close in time changes nothing for us.
            let _ = timeout_at(Instant::now() + GOODBYE, goodbye).await;
        }
        acked
    }

    /// One event of the event loop. The future that polls it is kept when the caller drops ours: dropped in the
    /// middle of a write, rumqttc forgets a packet that it counts as sent.
    async fn poll(&mut self) -> Result<Event, ConnectionError> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        let error = match timeout_at(self.deadline, &mut self.polling).await {
            Ok((event_loop, Ok(event))) => {
                self.polling.set(poll(event_loop));
                self.deadline = Instant::now() + WATCHDOG;
                return Ok(event);
            }
            Ok((_, Err(error))) => ConnectionError::new(&self.broker, &error, self.connected),
            Err(_) => ConnectionError::silent(&self.broker),
        };
        self.ended = Some(error.clone());
        Err(error)
    }

    /// What an event means to the caller, if anything.
    fn understand(&mut self, event: Event) -> Option<Incoming> {
        match event {
            Event::Incoming(Packet::ConnAck(_)) => {
                self.connected = true;
                Some(Incoming::Connected)
            }
            Event::Incoming(Packet::Publish(publish)) => Some(Incoming::Message(Message(publish))),
            Event::Incoming(Packet::SubAck(answer)) => {
                let refused = answer
                    .return_codes
                    .iter()
                    .filter(|code| **code == SubscribeReasonCode::Failure)
                    .count();
                Some(Incoming::Subscribed { refused })
            }
            Event::Incoming(Packet::PubAck(ack)) => self.acknowledged(ack.pkid),
            Event::Outgoing(Outgoing::Publish(id)) => {
                self.in_flight.push_back((id, Token(self.numbered)));
                self.numbered += 1;
                None
            }
            Event::Incoming(_) | Event::Outgoing(_) => None,
        }
    }

    fn acknowledged(&mut self, id: u16) -> Option<Incoming> {
        let place = self.in_flight.iter().position(|(waits, _)| *waits == id)?;
        let (_, token) = self.in_flight.remove(place)?;
        self.acked += 1;
        Some(Incoming::Acked(token))
    }
}

async fn poll(mut event_loop: EventLoop) -> Polled {
    let outcome = event_loop.poll().await;
    (event_loop, outcome)
}

/// How long to wait before the next connection: up to five minutes, up to 15 s for a broker on this machine, which
/// nobody else calls.
#[derive(Debug)]
pub struct Patience(Backoff);

impl Patience {
    /// A connection that lasted so long starts the waiting anew.
    const STABLE: Duration = Duration::from_secs(60);

    /// The waiting between connections to this broker.
    #[must_use]
    pub fn towards(broker: &Broker) -> Self {
        let longest = if broker.is_local() { 15 } else { 300 };
        Patience(Backoff::up_to(Duration::from_secs(longest)))
    }

    /// How long to wait after a connection that had been up for `lasted` (zero: it never was).
    pub fn next(&mut self, lasted: Duration) -> Duration {
        if lasted >= Self::STABLE {
            self.0.reset();
        }
        self.0.pause()
    }
}

/// A client id that no other client has: `sideline-` and eight hexadecimal digits. Brokers must take 23 characters.
#[must_use]
pub fn random_client_id() -> String {
    format!("sideline-{:08x}", fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stable_connection_starts_the_waiting_anew() {
        let far = Broker::parse("mqtt://broker.example.com", None, None).unwrap();
        let near = Broker::parse("mqtt://127.0.0.1", None, None).unwrap();
        for (broker, longest) in [(far, 300), (near, 15)] {
            let mut patience = Patience::towards(&broker);
            let last = (0..20)
                .map(|_| patience.next(Duration::from_secs(59)))
                .last();
            let (last, longest) = (last.unwrap(), Duration::from_secs(longest));
            assert!(last >= longest / 2 && last <= longest, "{broker}: {last:?}");
            assert!(patience.next(Duration::from_secs(60)) <= Duration::from_secs(2));
        }
    }

    #[tokio::test]
    async fn what_can_never_be_sent_is_refused_at_once_and_the_window_is_bounded() {
        let broker = Broker::parse("mqtt://127.0.0.1", None, None).unwrap();
        let mut connection = Connection::open(&broker, &random_client_id(), None).unwrap();
        let long = "t".repeat(65_536);
        for topic in ["", "a/+/b", "a/#", "a\0b", &long] {
            assert_eq!(connection.publish(topic, "", false), Err(NotSent::Topic));
        }
        let large = vec![0; MAX_PACKET];
        assert_eq!(connection.publish("t", large, false), Err(NotSent::Size));
        assert_eq!(connection.subscribe([""]), Err(NotSent::Topic));
        assert_eq!(connection.subscribe(["a/#/b"]), Err(NotSent::Topic));
        for n in 0..WINDOW as u64 {
            assert_eq!(connection.publish("t", "x", false), Ok(Token(n)));
        }
        assert_eq!(connection.publish("t", "x", false), Err(NotSent::Full));
    }

    #[tokio::test]
    async fn a_refused_filter_is_told() {
        use rumqttc::SubAck;
        let broker = Broker::parse("mqtt://127.0.0.1", None, None).unwrap();
        let mut connection = Connection::open(&broker, &random_client_id(), None).unwrap();
        let codes = vec![
            SubscribeReasonCode::Success(QoS::AtMostOnce),
            SubscribeReasonCode::Failure,
        ];
        let answer = Event::Incoming(Packet::SubAck(SubAck::new(1, codes)));
        let told = connection.understand(answer);
        assert_eq!(told, Some(Incoming::Subscribed { refused: 1 }));
    }

    #[tokio::test]
    async fn acknowledgements_find_their_tokens_in_any_order() {
        use rumqttc::PubAck;
        let broker = Broker::parse("mqtt://127.0.0.1", None, None).unwrap();
        let mut connection = Connection::open(&broker, &random_client_id(), None).unwrap();
        let tokens = [(); 3].map(|()| connection.publish("t", "x", false).unwrap());
        for id in [7, 8, 9] {
            connection.understand(Event::Outgoing(Outgoing::Publish(id)));
        }
        for (id, token, waiting) in [(9, tokens[2], 2), (7, tokens[0], 1), (8, tokens[1], 0)] {
            let told = connection.understand(Event::Incoming(Packet::PubAck(PubAck::new(id))));
            assert_eq!(
                (told, connection.unacked()),
                (Some(Incoming::Acked(token)), waiting)
            );
        }
    }

    #[tokio::test]
    async fn a_broker_that_falls_silent_is_noticed() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("mqtt://{}", listener.local_addr().unwrap());
        let broker = Broker::parse(&address, None, None).unwrap();
        let mut connection = Connection::open(&broker, &random_client_id(), None).unwrap();
        let accept = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_u8().await.unwrap();
            const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
            socket.write_all(&CONNACK).await.unwrap();
            socket
        };
        let (first, _silent) = tokio::join!(connection.next(), accept);
        assert_eq!(first, Ok(Incoming::Connected));
        tokio::time::pause();
        let since = Instant::now();
        let error = connection.next().await.unwrap_err();
        assert_eq!(
            (error.why.as_str(), error.rejected),
            ("no answer to pings", false)
        );
        assert!(since.elapsed() <= WATCHDOG);
    }

    #[test]
    fn client_ids_fit_every_broker_and_differ() {
        let (one, other) = (random_client_id(), random_client_id());
        assert_eq!(one.len(), 17);
        assert_ne!(one, other);
    }
}
