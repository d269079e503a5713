//! Cameras over MQTT, and the MQTT client itself, against a real mosquitto.

mod servers {
    pub(crate) mod mosquitto;
}

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use servers::mosquitto::Mosquitto;
use sideline::clients::mqtt::{
    Broker, Connection, ConnectionError, Incoming, NotSent, Token, WINDOW, Will, random_client_id,
};
use sideline::clock::Clock;
use sideline::collect::cameras;
use sideline::config::{Fields, Source, SourceKind};
use sideline::domain::reading::Reading;
use sideline::domain::snapshot::{CameraSource, Ingest};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const STATS: [(&str, &str); 5] = [
    ("0.8", include_str!("fixtures/frigate/stats-0.8.json")),
    ("0.12", include_str!("fixtures/frigate/stats-0.12.json")),
    ("0.13", include_str!("fixtures/frigate/stats-0.13.json")),
    ("0.17", include_str!("fixtures/frigate/stats-0.17.json")),
    ("0.18", include_str!("fixtures/frigate/stats-0.18.json")),
];

/// No condition here takes longer; most take milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain: {what}"))
}

/// A running collector and what it publishes.
struct Collector {
    readings: watch::Receiver<Reading<CameraSource>>,
    cancel: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Collector {
    fn start(source: Source) -> Self {
        let (out, readings) = watch::channel(Reading::Pending);
        let cancel = CancellationToken::new();
        let task = cameras::run(source, 4096, out, Clock::start(None), cancel.clone());
        Collector {
            readings,
            cancel,
            task: tokio::spawn(task),
        }
    }

    /// Waits until what is published is so.
    async fn until(&mut self, what: &str, is_so: impl Fn(&CameraSource) -> bool) -> CameraSource {
        let reached = self
            .readings
            .wait_for(|reading| reading.value().is_some_and(&is_so));
        let reading = soon(what, reached).await.expect("the collector lives");
        reading.value().expect("it was just there").clone()
    }

    async fn stop(self) {
        self.cancel.cancel();
        let ended = soon("the collector's end", self.task).await;
        ended.expect("no panic").expect("no error");
    }
}

fn frigate(url: String) -> Source {
    Source {
        kind: SourceKind::Frigate,
        url,
        prefix: None,
        topic: None,
        fields: None,
        ca: None,
    }
}

async fn connect(url: &str) -> Connection {
    connect_with(url, None).await
}

async fn connect_with(url: &str, will: Option<Will>) -> Connection {
    let broker = Broker::parse(url, None, None).expect("a good address");
    let mut connection = Connection::open(&broker, &random_client_id(), will).expect("no files");
    let first = soon("a connection", connection.next()).await;
    assert_eq!(first, Ok(Incoming::Connected));
    connection
}

async fn subscribe(connection: &mut Connection, filter: &str) {
    connection.subscribe([filter]).expect("a good filter");
    let answer = soon("an answer", connection.next()).await;
    assert_eq!(answer, Ok(Incoming::Subscribed { refused: 0 }));
}

/// Publishes, and waits until the broker has it.
async fn publish(
    connection: &mut Connection,
    topic: &str,
    payload: impl Into<Vec<u8>>,
    retain: bool,
) {
    let token = connection.publish(topic, payload, retain).expect("room");
    let answer = soon("an acknowledgement", connection.next()).await;
    assert_eq!(answer, Ok(Incoming::Acked(token)));
}

#[tokio::test]
async fn eighteen_cameras_of_every_frigate() {
    let broker = Mosquitto::start();
    let mut frigate_itself = connect(&broker.url()).await;
    publish(&mut frigate_itself, "frigate/available", "online", true).await;
    for (version, stats) in STATS {
        let mut collector = Collector::start(frigate(broker.url()));
        let online = collector.until("frigate", |source| source.ingest == Ingest::Online);
        assert!(online.await.cameras.is_empty(), "{version}");
        publish(&mut frigate_itself, "frigate/stats", stats, false).await;
        let source = collector
            .until("18 cameras", |source| source.cameras.len() == 18)
            .await;
        assert_eq!(source.cameras["hole07"].fps, Some(0.0), "{version}");
        assert_eq!(source.cameras["hole18"].fps, Some(5.1), "{version}");
        assert_eq!((source.malformed, source.over_limit), (0, 0), "{version}");
        collector.stop().await;
    }
}

#[tokio::test]
async fn a_broker_that_dies_and_comes_back() {
    let mut broker = Mosquitto::start();
    let mut frigate_itself = connect(&broker.url()).await;
    let mut collector = Collector::start(frigate(broker.url()));
    let connected = |source: &CameraSource| source.ingest == Ingest::Unknown;
    collector.until("a connection", connected).await;
    // The subscription may still be on its way: what is retained can't be missed.
    publish(&mut frigate_itself, "frigate/available", "online", true).await;
    collector
        .until("frigate", |source| source.ingest == Ingest::Online)
        .await;
    publish(&mut frigate_itself, "frigate/stats", STATS[3].1, false).await;
    collector
        .until("18 cameras", |source| source.cameras.len() == 18)
        .await;

    broker.kill();
    let offline = |source: &CameraSource| matches!(source.ingest, Ingest::Offline { .. });
    let source = collector.until("offline", offline).await;
    assert_eq!(source.cameras.len(), 18, "they stay, and grow old");
    let refused = format!("{}: connection refused", &broker.url()["mqtt://".len()..]);
    let is_refused = |source: &CameraSource| matches!(&source.ingest, Ingest::Offline { why, .. } if *why == refused);
    collector.until("the reason", is_refused).await;

    broker.restart();
    collector.until("a new connection", connected).await;
    let mut frigate_itself = connect(&broker.url()).await;
    publish(&mut frigate_itself, "frigate/available", "online", true).await;
    collector
        .until("frigate again", |source| source.ingest == Ingest::Online)
        .await;
    let two = r#"{"cameras":{"hole01":{"camera_fps":5},"hole02":{"camera_fps":5}}}"#;
    publish(&mut frigate_itself, "frigate/stats", two, false).await;
    collector
        .until("2 cameras", |source| source.cameras.len() == 2)
        .await;
    collector.stop().await;
}

#[tokio::test]
async fn a_broker_that_is_not_there_and_settings_that_lead_nowhere() {
    let json = |topic: &str| Source {
        kind: SourceKind::Mqtt,
        topic: Some(topic.into()),
        fields: Some(Fields {
            state: Some("/online".into()),
            ..Fields::default()
        }),
        ..frigate("mqtt://127.0.0.1:9".into())
    };
    for (source, words) in [
        (
            frigate("mqtt://127.0.0.1:9".into()),
            "127.0.0.1:9: connection refused",
        ),
        (
            frigate("mqtt://me:s3cret@".into()),
            "the broker's address must name a host",
        ),
        (json("cameras/status"), "topic must have +"),
        (
            Source {
                ca: Some("/nowhere/ca.pem".into()),
                ..frigate("mqtts://127.0.0.1:9".into())
            },
            "127.0.0.1:9: /nowhere/ca.pem: ",
        ),
    ] {
        let mut collector = Collector::start(source);
        let source = collector.until("an answer", |_| true).await;
        let Ingest::Offline { why, .. } = source.ingest else {
            panic!("{:?}", source.ingest);
        };
        assert!(why.starts_with(words), "{why}");
        collector.stop().await;
    }
}

#[tokio::test]
async fn large_retained_junk_is_read_once() {
    let broker = Mosquitto::start();
    let mut somebody = connect(&broker.url()).await;
    let junk = "x".repeat(20 * 1024);
    publish(&mut somebody, "frigate/stats", junk, true).await;
    let large = format!("{}1{}", r#"{"a":"#.repeat(200_000), "}".repeat(200_000));
    publish(&mut somebody, "frigate/available", large, true).await;
    let mut collector = Collector::start(frigate(broker.url()));
    collector.until("a connection", |_| true).await;
    let stats = r#"{"cameras":{"hole01":{"camera_fps":5}}}"#;
    // Sent again until the subscription is there.
    let mut tries = 0;
    while collector
        .readings
        .borrow()
        .value()
        .is_none_or(|source| source.cameras.is_empty())
    {
        tries += 1;
        assert!(tries < 1000, "the connection never settles");
        publish(&mut somebody, "frigate/stats", stats, false).await;
    }
    let source = collector.until("the camera", |_| true).await;
    assert_eq!((source.ingest, source.malformed), (Ingest::Online, 2));
    collector.stop().await;
}

#[tokio::test]
async fn json_of_any_program() {
    let broker = Mosquitto::start();
    let source = Source {
        kind: SourceKind::Mqtt,
        topic: Some("cameras/+/status".into()),
        fields: Some(Fields {
            state: Some("/online".into()),
            fps: Some("/stream/fps".into()),
            ..Fields::default()
        }),
        ..frigate(broker.url())
    };
    let mut program = connect(&broker.url()).await;
    let payload = r#"{"online":true,"stream":{"fps":24.9}}"#;
    publish(&mut program, "cameras/hole01/status", payload, true).await;
    let mut collector = Collector::start(source);
    let hinted = collector.until("the hint", |source| source.cameras.len() == 1);
    assert_eq!(hinted.await.cameras["hole01"].measured, None);
    publish(&mut program, "cameras/hole01/status", payload, false).await;
    let live = collector.until("live data", |source| {
        source.cameras["hole01"].fps == Some(24.9)
    });
    assert_eq!(live.await.ingest, Ingest::Online);
    publish(&mut program, "cameras/hole01/status", "", true).await;
    collector
        .until("its removal", |source| source.cameras.is_empty())
        .await;
    collector.stop().await;
}

#[tokio::test]
async fn every_publish_is_acknowledged_though_its_waiting_is_interrupted() {
    const MESSAGES: usize = 3_000;
    let broker = Mosquitto::start();
    let mut reader = connect(&broker.url()).await;
    subscribe(&mut reader, "load/#").await;
    let mut writer = connect(&broker.url()).await;
    let (mut sent, mut acked) = (Vec::new(), Vec::new());
    while acked.len() < MESSAGES {
        while sent.len() < MESSAGES {
            match writer.publish(&format!("load/{}", sent.len()), vec![b'x'; 20_000], false) {
                Ok(token) => sent.push(token),
                Err(NotSent::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(
            sent.len() - acked.len(),
            (MESSAGES - acked.len()).min(WINDOW)
        );
        // Dropped on its first wait, each time.
        let interrupted = async { biased_next(&mut writer).await };
        if let Some(Incoming::Acked(token)) = soon("an acknowledgement", interrupted).await {
            acked.push(token);
        }
    }
    assert_eq!(acked, sent);
    assert_eq!(writer.unacked(), 0);
    let message = soon("the first message", reader.next()).await;
    let Ok(Incoming::Message(message)) = message else {
        panic!("{message:?}");
    };
    assert_eq!(
        (message.topic(), message.payload().len()),
        ("load/0", 20_000)
    );
    assert!(!message.is_retained());
}

/// What is there at once; the future is dropped if it has to wait.
async fn biased_next(connection: &mut Connection) -> Option<Incoming> {
    tokio::select! {
        biased;
        incoming = connection.next() => Some(incoming.expect("the connection lives")),
        () = tokio::task::yield_now() => None,
    }
}

#[tokio::test]
async fn the_will_is_sent_unless_there_was_a_goodbye() {
    let broker = Mosquitto::start();
    let will = |topic: &str| {
        Some(Will {
            topic: topic.into(),
            payload: b"lost".to_vec(),
            retain: false,
        })
    };
    let mut reader = connect(&broker.url()).await;
    subscribe(&mut reader, "wills/#").await;
    let mut polite = connect_with(&broker.url(), will("wills/polite")).await;
    let rude = connect_with(&broker.url(), will("wills/rude")).await;
    let tokens: Vec<Token> = (0..5)
        .map(|_| polite.publish("wills/last", "words", false).expect("room"))
        .collect();
    assert_eq!(polite.disconnect(PATIENCE).await, tokens);
    drop(rude);
    let mut topics = Vec::new();
    while topics.last().is_none_or(|topic| topic != "wills/rude") {
        if let Ok(Incoming::Message(message)) = soon("a message", reader.next()).await {
            topics.push(message.topic().to_owned());
        }
    }
    assert_eq!(topics.len(), 6, "{topics:?}");
    assert!(!topics.contains(&"wills/polite".to_owned()));
}

#[tokio::test]
async fn a_refused_login_is_told_without_the_password() {
    let broker = Mosquitto::start_with("allow_anonymous false\n");
    let address = broker.url().replace("mqtt://", "mqtt://me:s3cret@");
    let parsed = Broker::parse(&address, None, None).expect("a good address");
    let mut connection = Connection::open(&parsed, &random_client_id(), None).expect("no files");
    let error = soon("a refusal", connection.next())
        .await
        .expect_err("a refusal");
    let ConnectionError { why, rejected, .. } = &error;
    assert!(why.starts_with("not authorized") && *rejected, "{error}");
    assert!(!error.to_string().contains("s3cret"));
    // It stays ended.
    assert_eq!(connection.next().await, Err(error));
}

/// An authority, and certificates that it has signed, as files.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn make() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Named as what it signs, it would look self-signed.
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "authority");
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(authority, key).expect("a certificate");
        let certificates = Certificates { folder };
        certificates.write("ca", &authority.pem());
        for (file, name) in [
            ("broker", "127.0.0.1"),
            ("elsewhere", "broker.example.com"),
            ("node", "node"),
        ] {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            let signed = params.signed_by(&key, &authority).expect("a certificate");
            certificates.write(file, &signed.pem());
            certificates.write(&format!("{file}-key"), &key.serialize_pem());
        }
        certificates
    }

    fn write(&self, name: &str, pem: &str) {
        std::fs::write(self.path(name), pem).expect("a file");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.pem"))
    }

    /// A broker with this certificate.
    fn broker(&self, name: &str, settings: &str) -> Mosquitto {
        Mosquitto::start_with(&format!(
            "allow_anonymous true\ncafile {}\ncertfile {}\nkeyfile {}\n{settings}",
            self.path("ca").display(),
            self.path(name).display(),
            self.path(&format!("{name}-key")).display(),
        ))
    }
}

#[tokio::test]
async fn tls_trusts_its_authority_and_shows_its_certificate() {
    let ours = Certificates::make();
    let theirs = Certificates::make();
    let good = ours.broker("broker", "");
    let misnamed = ours.broker("elsewhere", "");
    let strict = ours.broker("broker", "require_certificate true\n");
    let plain = Mosquitto::start();
    let (our_ca, their_ca) = (ours.path("ca"), theirs.path("ca"));
    let (node, key) = (ours.path("node"), ours.path("node-key"));
    let identity = Some((node.as_path(), key.as_path()));
    for (case, broker, ca, identity, expected) in [
        ("trusted", &good, Some(&our_ca), None, None),
        ("shown", &strict, Some(&our_ca), identity, None),
        (
            "another authority",
            &good,
            Some(&their_ca),
            None,
            Some("TLS: certificate not trusted: "),
        ),
        (
            "the system's authorities",
            &good,
            None,
            None,
            Some("TLS: certificate not trusted: "),
        ),
        (
            "another name",
            &misnamed,
            Some(&our_ca),
            None,
            Some("TLS: certificate not trusted: "),
        ),
        (
            "not shown",
            &strict,
            Some(&our_ca),
            None,
            Some("TLS: the broker refuses: "),
        ),
        ("no TLS there", &plain, Some(&our_ca), None, Some("")),
    ] {
        let url = broker.url().replace("mqtt://", "mqtts://");
        let parsed = Broker::parse(&url, ca.map(PathBuf::as_path), identity).expect("an address");
        let told = match Connection::open(&parsed, &random_client_id(), None) {
            Ok(mut connection) => soon(case, connection.next()).await,
            Err(error) => Err(error),
        };
        match expected {
            None => assert_eq!(told, Ok(Incoming::Connected), "{case}"),
            Some(words) => {
                let error = told.expect_err(case);
                assert!(error.why.starts_with(words), "{case}: {error}");
            }
        }
    }
}
