//! The servers that other tests rely on: a receiver that finds what is missing, a proxy that fails as it is told.

mod servers {
    pub(crate) mod proxy;
    pub(crate) mod receiver;
}

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use servers::proxy::{Fault, Proxy};
use servers::receiver::{Receiver, Summary, Violation};

/// No condition here takes longer; most take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

const NODE: &str = "sideline/1/north/mi-0field";

fn heard(messages: &[(&str, Value)]) -> Receiver {
    let mut receiver = Receiver::default();
    for (rest, payload) in messages {
        receiver.take_in(&format!("{NODE}/{rest}"), payload.to_string().as_bytes());
    }
    receiver
}

/// With these keys in place of those that are there; null takes a key away.
fn with(mut message: Value, changes: Value) -> Value {
    if let (Value::Object(message), Value::Object(changes)) = (&mut message, changes) {
        message.extend(changes);
        message.retain(|_, value| !value.is_null());
    }
    message
}

fn event(seq: u64) -> Value {
    json!({"v": 1, "ts": "2026-11-22T19:36:12.41Z", "seq": seq, "boot": "b", "kind": "agent", "what": "started"})
}

fn health(seq: u64) -> Value {
    json!({"v": 1, "ts": "2026-11-22T19:36:12.41Z", "seq": seq, "boot": "b", "state": "healthy"})
}

fn status(status: &str, session: u64) -> Value {
    json!({"v": 1, "status": status, "boot": "b", "session": session})
}

fn lost(from: u64, to: u64, cause: &str) -> Value {
    json!({"v": 1, "from": from, "to": to, "cause": cause})
}

#[test]
fn a_whole_journal_is_summed_up() {
    let receiver = heard(&[
        ("status", status("online", 3)),
        ("health", health(4)),
        ("event", event(5)),
        ("event", event(4)),
        ("event", with(event(5), json!({"hist": true}))),
        ("lost", lost(6, 8, "full")),
        ("lost", lost(8, 9, "expired")),
        ("event", event(7)),
        ("event", event(10)),
        ("health", health(10)),
        ("status", status("online", 4)),
        // The will of the session before.
        ("status", status("lost", 3)),
        (
            "cam/hole07/state",
            with(event(10), json!({"cam": "hole07"})),
        ),
    ]);
    let summary = Summary {
        first: 4,
        last: 10,
        events: 4,
        repeated: 1,
        lost: 3,
        ranges: 2,
    };
    assert_eq!(receiver.proof(), Ok(summary));
    let accounted: Vec<u64> = (0..=12).filter(|seq| receiver.accounts_for(*seq)).collect();
    assert_eq!(accounted, [4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn each_broken_promise_is_found() {
    let reordered = json!({"what": "started", "kind": "agent", "boot": "b", "seq": 1, "ts": "2026-11-22T19:36:12.41Z", "v": 1});
    for (messages, found) in [
        (vec![], "no event came"),
        (vec![("health", health(0))], "no event came"),
        (vec![("event", event(1)), ("event", reordered)], ""),
        (
            vec![("event", event(1)), ("event", event(3))],
            "2 is missing",
        ),
        (
            vec![("event", event(9)), ("event", event(3))],
            "4 to 8 are missing",
        ),
        (
            vec![
                ("event", event(1)),
                ("lost", lost(3, 4, "full")),
                ("event", event(7)),
            ],
            "2 is missing, 5 to 6 are missing",
        ),
        (
            vec![
                ("lost", lost(1, 9, "corrupt")),
                ("lost", lost(2, 3, "full")),
                ("event", event(10)),
            ],
            "",
        ),
        (
            vec![
                ("event", event(1)),
                ("event", with(event(1), json!({"what": "stopped"}))),
            ],
            "1 came twice, with different content",
        ),
        (
            vec![
                ("event", event(1)),
                ("health", health(1)),
                ("health", health(0)),
            ],
            "health went back from 1 to 0",
        ),
        (
            vec![("event", event(1)), ("health", health(2))],
            "health is of 2, but the last event is 1",
        ),
        (
            vec![
                ("event", event(1)),
                ("status", status("online", 2)),
                ("status", status("lost", 2)),
            ],
            "status calls the live session 2 lost",
        ),
        (
            vec![
                ("event", event(1)),
                ("status", status("lost", 2)),
                ("status", status("stopped", 2)),
            ],
            "",
        ),
    ] {
        let proof = heard(&messages).proof();
        let violations = proof.err().unwrap_or_default();
        let violations: Vec<String> = violations.iter().map(Violation::to_string).collect();
        assert_eq!(violations.join(", "), found, "{messages:?}");
    }
}

#[test]
fn each_wrong_shape_is_found() {
    for (rest, message, why) in [
        (
            "event",
            with(event(1), json!({"v": 2})),
            "v must be 1, is 2",
        ),
        (
            "event",
            with(event(1), json!({"v": null})),
            "v must be a whole number, is null",
        ),
        (
            "event",
            with(event(1), json!({"ts": "now"})),
            "ts must be a time, is now",
        ),
        (
            "event",
            with(event(1), json!({"seq": "1"})),
            "seq must be a whole number, is \"1\"",
        ),
        (
            "event",
            with(event(1), json!({"boot": ""})),
            "boot must be a text, is \"\"",
        ),
        (
            "event",
            with(event(1), json!({"kind": "news"})),
            "no such kind is promised: news",
        ),
        (
            "health",
            with(health(1), json!({"seq": null})),
            "seq must be a whole number, is null",
        ),
        (
            "health",
            with(health(1), json!({"state": null})),
            "state must be a text, is null",
        ),
        ("lost", lost(3, 2, "full"), "3 to 2 is no range of numbers"),
        ("lost", lost(0, 2, "full"), "0 to 2 is no range of numbers"),
        (
            "lost",
            lost(1, 2, "mislaid"),
            "no such cause is promised: mislaid",
        ),
        (
            "status",
            status("away", 1),
            "no such status is promised: away",
        ),
        (
            "cam/hole07/state",
            json!({"v": 1}),
            "ts must be a text, is null",
        ),
        ("cam/hole07", event(1), "no such topic is promised"),
    ] {
        // The message before it is right, so that nothing else is wrong.
        let proof = heard(&[("event", event(1)), (rest, message)]).proof();
        let shape = Violation::Shape {
            topic: format!("{NODE}/{rest}"),
            why: why.to_owned(),
        };
        assert_eq!(proof, Err(vec![shape]));
    }
}

#[test]
fn what_is_no_message_of_the_node_is_found() {
    let valid = event(1).to_string();
    for (topic, payload, why) in [
        (
            "sideline/1/north/mi-0other/event",
            valid.as_str(),
            "the message is another node's",
        ),
        (
            "sideline/2/north/mi-0field/event",
            &valid,
            "the topic's version must be 1, is 2",
        ),
        (
            "sideline/1/north",
            &valid,
            "a topic has at least five levels",
        ),
        (
            "sideline/1/north/mi-0field/event",
            "",
            "the payload is no JSON: EOF while parsing a value at line 1 column 0",
        ),
    ] {
        let mut receiver = heard(&[("event", event(1))]);
        receiver.take_in(topic, payload.as_bytes());
        let shape = Violation::Shape {
            topic: topic.to_owned(),
            why: why.to_owned(),
        };
        assert_eq!(receiver.proof(), Err(vec![shape]));
    }
    let mut receiver = heard(&[("event", event(1))]);
    receiver.take_in(&format!("{NODE}/cam/hole07/state"), b"");
    assert!(receiver.proof().is_ok(), "a camera that is taken away");
}

/// An upstream that sends back all it gets, and the proxy before it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    Proxy::start(port)
}

async fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await;
    stream.expect("the proxy accepts")
}

/// Sends this and waits for it to come back; the error tells how the connection ended.
async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), ErrorKind> {
    let there_and_back = async {
        stream.write_all(bytes).await?;
        let mut back = vec![0; bytes.len()];
        stream.read_exact(&mut back).await?;
        assert_eq!(back, bytes);
        std::io::Result::Ok(())
    };
    let done = timeout(PATIENCE, there_and_back).await;
    done.expect("it comes or the connection ends")
        .map_err(|error| error.kind())
}

/// Exchanges single bytes until the fault has come to the connection, and returns how it ended.
async fn until_it_ends(stream: &mut TcpStream) -> ErrorKind {
    let ended = async {
        loop {
            if let Err(kind) = exchange(stream, b".").await {
                return kind;
            }
        }
    };
    timeout(PATIENCE, ended).await.expect("it ends")
}

/// Connects and exchanges a byte.
async fn visit(proxy: &Proxy) -> Result<(), ErrorKind> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await;
    exchange(&mut stream.map_err(|error| error.kind())?, b".").await
}

#[tokio::test]
async fn a_proxy_refuses_resets_and_carries_again() {
    let proxy = echo().await;
    // A reset may meet the write or the read.
    let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
    let refused = [ErrorKind::ConnectionRefused; 2];
    for (fault, kinds) in [(Fault::Refuse, refused), (Fault::AcceptThenReset, reset)] {
        let mut open = connect(&proxy).await;
        exchange(&mut open, b"before").await.unwrap();
        proxy.fault(fault);
        until_it_ends(&mut open).await;
        // Those who come until the fault is noticed are only closed.
        let fails = async { while !kinds.contains(&visit(&proxy).await.unwrap_err()) {} };
        timeout(PATIENCE, fails).await.expect("the fault holds");
        proxy.clear();
        let carries = async { while visit(&proxy).await.is_err() {} };
        timeout(PATIENCE, carries).await.expect("it carries again");
    }
}

#[tokio::test]
async fn a_proxy_resets_after_so_many_bytes() {
    let proxy = echo().await;
    let mut old = connect(&proxy).await;
    exchange(&mut old, b"before").await.unwrap();
    proxy.fault(Fault::ResetMidStream(20));
    for stream in [&mut old, &mut connect(&proxy).await] {
        // Ten bytes come back, as twenty pass both ways together.
        exchange(stream, b"0123456789").await.unwrap();
        let kind = exchange(stream, b"x").await.unwrap_err();
        assert!(
            [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&kind),
            "{kind:?}"
        );
    }
}

#[tokio::test]
async fn a_proxy_hangs_until_it_is_cleared() {
    let proxy = echo().await;
    proxy.fault(Fault::Hang);
    let mut stream = connect(&proxy).await;
    stream.write_all(b"anybody there?").await.unwrap();
    let answer = timeout(Duration::from_millis(50), stream.read_u8()).await;
    assert!(answer.is_err(), "{answer:?}");
    proxy.clear();
    let end = timeout(PATIENCE, stream.read_u8())
        .await
        .expect("it is reset");
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
    exchange(&mut connect(&proxy).await, b"after")
        .await
        .unwrap();
}

#[tokio::test]
async fn a_proxy_drips() {
    let proxy = echo().await;
    proxy.fault(Fault::SlowDrip);
    let mut stream = connect(&proxy).await;
    let started = std::time::Instant::now();
    exchange(&mut stream, b"0123456789").await.unwrap();
    // Twenty bytes of 2 ms each, but for the last one.
    assert!(
        started.elapsed() >= Duration::from_millis(38),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_proxy_that_is_dropped_is_gone() {
    let proxy = echo().await;
    let port = proxy.port();
    let mut open = connect(&proxy).await;
    exchange(&mut open, b"before").await.unwrap();
    drop(proxy);
    until_it_ends(&mut open).await;
    let gone = async {
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_ok()
        {}
    };
    timeout(PATIENCE, gone).await.expect("nobody listens");
}
