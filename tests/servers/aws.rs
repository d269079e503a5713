//! A small AWS on loopback: CloudWatch with its limits, SSM, ECS and the ECS agent's own page, to
//! be scripted with faults.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use serve::Shared;

#[path = "aws/ecs.rs"]
pub mod ecs;
#[path = "aws/limits.rs"]
pub mod limits;
#[path = "aws/serve.rs"]
mod serve;
#[path = "aws/ssm.rs"]
pub mod ssm;
#[path = "aws/wire.rs"]
mod wire;

/// The longest [`Aws::until`] waits, in real time.
const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 400 `ThrottlingException`.
    Throttle,
    /// 500 `InternalServiceFault`.
    InternalError,
    /// 503 `ServiceUnavailableException`.
    Unavailable,
    /// 403 `AccessDeniedException`.
    AccessDenied,
    /// 403 `ExpiredTokenException`, whatever the key.
    ExpiredToken,
    /// Reads the request and never answers; [`Aws::clear_faults`] cuts the connection.
    Hang,
    /// Resets the connection with the body unread.
    ResetBeforeReading,
    /// Takes the request, stores it, then resets the connection: the sender cannot know.
    ResetAfterStoring,
    /// An HTML page with this status, as a captive portal or a broken proxy sends it.
    Garbage(u16),
    /// The server's clock is off by this much: its `Date` header and the age it sees in data.
    Skew(SignedDuration),
    /// As [`Fault::Skew`], and it also refuses signatures that its clock finds too old or new.
    SkewRefusing(SignedDuration),
    /// Takes and stores the request, but answers only after [`Aws::release`].
    Slow,
}

/// For how many requests a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// This many requests.
    Next(u32),
    /// All requests until [`Aws::clear_faults`].
    UntilCleared,
}

/// An accepted PutMetricData.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its head arrived, by the true clock.
    pub at: Timestamp,
    /// Who signed it.
    pub access_key: String,
    /// All its headers.
    pub headers: HeaderMap,
    /// Whether the body was zipped.
    pub gzip: bool,
    /// The body's size on the wire.
    pub body_bytes: usize,
    /// The body's size unzipped.
    pub decoded_bytes: usize,
    /// `Namespace`.
    pub namespace: String,
    /// `MetricData`, in its order.
    pub data: Vec<Datum>,
    /// `StrictEntityValidation`.
    pub strict: bool,
}

/// One `MetricDatum`.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    /// `MetricName`.
    pub name: String,
    /// `Dimensions`, value by name.
    pub dimensions: BTreeMap<String, String>,
    /// `Timestamp`; where none was sent, the server's time, as in CloudWatch.
    pub timestamp: Timestamp,
    /// Whether a `Timestamp` was sent.
    pub stamped: bool,
    /// `Value`.
    pub value: Option<f64>,
    /// `Values`.
    pub values: Vec<f64>,
    /// `Counts`: as long as `values`, or empty.
    pub counts: Vec<f64>,
    /// `StatisticValues`.
    pub statistic_values: Option<Statistics>,
    /// `Unit`.
    pub unit: Option<String>,
    /// `StorageResolution`, seconds.
    pub storage_resolution: Option<i64>,
}

/// A `StatisticSet`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// `SampleCount`.
    pub sample_count: f64,
    /// `Sum`.
    pub sum: f64,
    /// `Minimum`.
    pub minimum: f64,
    /// `Maximum`.
    pub maximum: f64,
}

/// A request that was not accepted.
#[derive(Clone, Debug)]
pub struct Refused {
    /// When its head arrived, by the true clock.
    pub at: Timestamp,
    /// The HTTP status of the answer; 0 where there was none.
    pub status: u16,
    /// The error's shape (`InvalidParameterValueException`), or the [`Fault`]'s name.
    pub reason: String,
    /// The message of the answer.
    pub message: String,
}

/// An answered JSON-1.1 call.
#[derive(Clone, Debug)]
pub struct Call {
    /// When its head arrived, by the true clock.
    pub at: Timestamp,
    /// Who signed it.
    pub access_key: String,
    /// `X-Amz-Target`, such as `AmazonSSM.GetParameters`.
    pub target: String,
    /// The body.
    pub body: Value,
}

/// All that the server has seen since it started or [`Aws::clear`] was called.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// Accepted PutMetricData requests; shared, because a log is copied often.
    pub requests: Vec<Arc<Request>>,
    /// Answered JSON-1.1 calls.
    pub calls: Vec<Call>,
    /// Requests and calls that got an error, or no answer.
    pub refused: Vec<Refused>,
    /// Requests that wait for their answer just now, by [`Fault::Hang`] or [`Fault::Slow`].
    pub held: usize,
    /// TCP connections accepted.
    pub connections: usize,
    /// TLS handshakes that failed.
    pub broken_handshakes: usize,
    /// How often the ECS agent's page was read.
    pub metadata_reads: usize,
}

impl Log {
    /// All accepted data, in order of arrival.
    pub fn data(&self) -> impl Iterator<Item = &Datum> {
        self.requests.iter().flat_map(|request| &request.data)
    }

    /// How many requests were refused for this reason.
    pub fn refused_for(&self, reason: &str) -> usize {
        self.refused
            .iter()
            .filter(|one| one.reason == reason)
            .count()
    }
}

/// The running server. Dropping it stops it.
pub struct Aws {
    shared: Arc<Shared>,
    address: SocketAddr,
    tls: Option<Arc<rustls::ServerConfig>>,
    accepting: Option<JoinHandle<()>>,
    /// Holds the port while the server is offline, without listening, so that nobody else gets it.
    closed: Option<TcpSocket>,
    /// Ends the thread that keeps `until` from waiting for ever.
    _ticker: mpsc::Sender<Infallible>,
}

impl Aws {
    /// Serves plain HTTP on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        Self::launch(None).await
    }

    /// Serves HTTPS, with an authority of its own whose PEM it writes to `ca`.
    pub async fn start_tls(ca: &Path) -> Self {
        let config = wire::tls(ca).expect("a certificate can be made and written");
        Self::launch(Some(config)).await
    }

    async fn launch(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = listen(reserve(SocketAddr::from(([127, 0, 0, 1], 0))));
        let shared = Arc::new(Shared::new());
        let mut aws = Self {
            address: listener.local_addr().expect("the listener is bound"),
            _ticker: tick(Arc::downgrade(&shared)),
            shared,
            tls,
            accepting: None,
            closed: None,
        };
        aws.accept(listener);
        aws
    }

    fn accept(&mut self, listener: TcpListener) {
        let accepting = serve::accept(listener, self.tls.clone(), Arc::clone(&self.shared));
        self.accepting = Some(tokio::spawn(accepting));
    }

    /// `http://127.0.0.1:PORT`, or `https://…`.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections and refuses new ones.
    pub async fn go_offline(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            // Before it is closed: a moment later somebody else may have the port.
            self.closed = Some(reserve(self.address));
            accepting.abort();
            // Connections are refused only once the task is gone; that it was aborted is no news.
            let _ = accepting.await;
        }
    }

    /// Listens again, on the same port.
    pub async fn go_online(&mut self) {
        if let Some(closed) = self.closed.take() {
            self.accept(listen(closed));
        }
    }

    /// Lets this happen to requests, after the faults that were asked for before.
    pub fn fault(&self, fault: Fault, times: Times) {
        self.shared
            .change(|s| s.faults.push_back((None, fault, times)));
    }

    /// As [`Aws::fault`], for calls of one JSON-1.1 operation alone, such as `PutAttributes`.
    pub fn fault_on(&self, operation: &'static str, fault: Fault, times: Times) {
        self.shared
            .change(|s| s.faults.push_back((Some(operation), fault, times)));
    }

    /// Forgets all faults and cuts the connections that hang.
    pub fn clear_faults(&self) {
        self.shared.change(|s| {
            s.faults.clear();
            s.clearings += 1;
        });
    }

    /// Lets all answers go that [`Fault::Slow`] holds back now.
    pub fn release(&self) {
        self.shared.change(|s| s.releases += 1);
    }

    /// Accepts only these keys from now on. One that was good before is now expired, others are
    /// unknown.
    pub fn accept_keys<'a>(&self, keys: impl IntoIterator<Item = &'a str>) {
        let keys: BTreeSet<String> = keys.into_iter().map(str::to_owned).collect();
        self.shared.change(|s| {
            s.once_good.extend(keys.iter().cloned());
            s.revoked.retain(|key| !keys.contains(key));
            s.keys = Some(keys);
        });
    }

    /// Accepts any key that is not revoked, as at the start.
    pub fn accept_any_key(&self) {
        self.shared.change(|s| s.keys = None);
    }

    /// Treats this key as expired until [`Aws::accept_keys`] names it.
    pub fn revoke_key(&self, key: &str) {
        self.shared.change(|s| {
            s.once_good.insert(key.to_owned());
            s.revoked.insert(key.to_owned());
        });
    }

    /// Whether errors from before CloudWatch proper (keys, throttling, access) carry the older code
    /// as well (`ExpiredToken`), which the SDK then reports in place of `ExpiredTokenException`.
    pub fn send_query_codes(&self, send: bool) {
        self.shared.change(|s| s.query_codes = send);
    }

    /// Answers this JSON-1.1 target (`AmazonSSM.GetParameters`) with this body from now on, whatever is asked.
    pub fn answer(&self, target: &str, body: Value) {
        self.answer_status(target, 200, body);
    }

    /// Answers this JSON-1.1 target with an error of this type.
    pub fn answer_error(&self, target: &str, status: u16, error: &str, message: &str) {
        self.answer_status(target, status, json!({"__type": error, "message": message}));
    }

    fn answer_status(&self, target: &str, status: u16, body: Value) {
        self.shared.change(|s| {
            s.answers.insert(target.to_owned(), (status, body));
        });
    }

    /// What `GET /v1/metadata` answers, as the ECS agent would.
    pub fn metadata(&self, metadata: Value) {
        self.shared.change(|s| s.metadata = metadata);
    }

    /// Plays ECS from now on with this cluster, and the ECS agent of its container instance `arn`.
    pub fn serve_cluster(&self, cluster: ecs::Cluster, arn: &str) {
        let metadata = json!({
            "Cluster": cluster.name,
            "ContainerInstanceArn": arn,
            "Version": "Amazon ECS Agent - v1.105.1",
        });
        self.shared.change(|s| {
            s.metadata = metadata;
            s.cluster = Some(cluster);
        });
    }

    /// Changes the cluster, or looks at it.
    ///
    /// # Panics
    ///
    /// Where none is served.
    pub fn cluster<T>(&self, change: impl FnOnce(&mut ecs::Cluster) -> T) -> T {
        self.shared
            .change(|s| change(s.cluster.as_mut().expect("a cluster is served")))
    }

    /// Changes SSM's parameters, or looks at what it was told.
    pub fn ssm<T>(&self, change: impl FnOnce(&mut ssm::Ssm) -> T) -> T {
        self.shared.change(|s| change(&mut s.ssm))
    }

    /// All that was seen.
    pub fn log(&self) -> Log {
        self.shared.lock().log.clone()
    }

    /// The accepted requests.
    pub fn requests(&self) -> Vec<Arc<Request>> {
        self.shared.lock().log.requests.clone()
    }

    /// Forgets what was seen; faults, keys and answers stay.
    pub fn clear(&self) {
        self.shared.change(|s| {
            s.log = Log {
                held: s.log.held,
                ..Log::default()
            };
        });
    }

    /// Waits until the log is as `wanted` says, and returns it as it was then.
    ///
    /// # Panics
    ///
    /// After 30 s of real time, saying what was seen instead.
    pub async fn until(&self, wanted: impl Fn(&Log) -> bool) -> Log {
        let asked = Instant::now();
        let mut changes = self.shared.changed.subscribe();
        loop {
            changes.borrow_and_update();
            let log = self.log();
            if wanted(&log) {
                return log;
            }
            assert!(
                asked.elapsed() < PATIENCE,
                "waited {PATIENCE:?} in vain; seen: {} accepted with {} data, {} calls, {} held, \
                 {} connections, refused: {:#?}",
                log.requests.len(),
                log.data().count(),
                log.calls.len(),
                log.held,
                log.connections,
                log.refused,
            );
            changes.changed().await.expect("self holds the sender");
        }
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

fn reserve(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    let bound = socket
        .set_reuseaddr(true)
        .and_then(|()| socket.set_reuseport(true))
        .and_then(|()| socket.bind(address));
    bound.expect("the port on loopback is free");
    socket
}

fn listen(socket: TcpSocket) -> TcpListener {
    socket.listen(BACKLOG).expect("the port is reserved")
}

/// Wakes those who wait every second of real time, even where a test has stopped tokio's clock.
fn tick(shared: Weak<Shared>) -> mpsc::Sender<Infallible> {
    let (alive, watched) = mpsc::channel();
    std::thread::spawn(move || {
        while watched.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout) {
            if let Some(shared) = shared.upgrade() {
                shared.change(|_| ());
            }
        }
    });
    alive
}
