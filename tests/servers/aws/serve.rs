//! What the double does with a connection and with each request on it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::wire::{self, Protocol, Refusal, Signature};
use super::{Call, Fault, Log, Refused, Request, Times, ecs, limits, ssm};

/// Where CloudWatch's SDK posts metric data.
const PUT_METRIC_DATA: &str = "/service/GraniteServiceVersion20100801/operation/PutMetricData";
/// What `X-Amz-Target` may begin with; the operation follows after the dot.
const JSON_SERVICES: [&str; 2] = [ssm::TARGET, ecs::TARGET];
/// A longer body is not even read, zipped or not.
const RAW_BYTES: usize = 4 * limits::BODY_BYTES;

type Answer = Response<Full<Bytes>>;

/// A connection that ends without an answer.
#[derive(Debug)]
struct Severed;

impl std::fmt::Display for Severed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection was cut on purpose")
    }
}

impl std::error::Error for Severed {}

/// What every connection and the test's handle share.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) changed: watch::Sender<()>,
}

/// What was seen, and what is to happen.
pub(super) struct State {
    pub(super) log: Log,
    /// With the operation that each is for, where it is for one alone.
    pub(super) faults: VecDeque<(Option<&'static str>, Fault, Times)>,
    pub(super) clearings: u64,
    pub(super) releases: u64,
    /// `None` accepts any.
    pub(super) keys: Option<BTreeSet<String>>,
    pub(super) once_good: BTreeSet<String>,
    pub(super) revoked: BTreeSet<String>,
    pub(super) query_codes: bool,
    pub(super) answers: HashMap<String, (u16, Value)>,
    pub(super) metadata: Value,
    pub(super) cluster: Option<ecs::Cluster>,
    pub(super) ssm: ssm::Ssm,
    pub(super) answered: u64,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State::new()),
            changed: watch::Sender::new(()),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole by itself, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.lock());
        self.changed.send_replace(());
        changed
    }

    /// Holds a request until the state is as `wanted` says, and counts it as held meanwhile, also
    /// where the client goes away and this future is dropped.
    async fn hold(&self, wanted: impl Fn(&State) -> bool) {
        struct Held<'a>(&'a Shared);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                self.0.change(|s| s.log.held -= 1);
            }
        }
        self.change(|s| s.log.held += 1);
        let _held = Held(self);
        let mut changes = self.changed.subscribe();
        loop {
            changes.borrow_and_update();
            if wanted(&self.lock()) || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Takes connections until it is dropped, and then cuts them all.
pub(super) async fn accept(
    listener: TcpListener,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: Arc<Shared>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_ended) = connections.join_next() => {}
            accepted = listener.accept() => {
                // An error concerns one client that went away before it was taken.
                if let Ok((stream, _peer)) = accepted {
                    shared.change(|s| s.log.connections += 1);
                    connections.spawn(connection(stream, tls.clone(), Arc::clone(&shared)));
                }
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    shared: Arc<Shared>,
) {
    // A second handle on the socket: the first disappears into the HTTP and TLS layers, yet a
    // reset has to be asked for at the bottom.
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else {
        return;
    };
    match tls {
        None => exchange(stream, socket, shared).await,
        Some(config) => match tokio_rustls::TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => exchange(stream, socket, shared).await,
            Err(_) => shared.change(|s| s.log.broken_handshakes += 1),
        },
    }
}

async fn exchange<S>(stream: S, socket: OwnedFd, shared: Arc<Shared>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request| {
        let shared = &shared;
        let socket = &socket;
        async move {
            let answered = answer(request, shared).await;
            if answered.is_err() {
                // With no time to linger, closing sends RST. Where it fails the client sees FIN,
                // which for it is as much of an end.
                let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
            }
            answered
        }
    });
    // How a connection ends is the client's affair, or was asked for.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A request as far as it is known before its body is judged.
struct Arrival {
    at: Timestamp,
    /// The server's clock then.
    now: Timestamp,
    head: hyper::http::request::Parts,
    protocol: Protocol,
    fault: Option<Fault>,
}

async fn answer(request: hyper::Request<Incoming>, shared: &Shared) -> Result<Answer, Severed> {
    let (head, body) = request.into_parts();
    let at = Timestamp::now();
    if head.method == Method::GET && head.uri.path() == "/v1/metadata" {
        let metadata = shared.change(|s| {
            s.log.metadata_reads += 1;
            s.metadata.to_string()
        });
        return Ok(page(200, "application/json", metadata));
    }
    if head.method == Method::GET && head.uri.path() == "/v1/tasks" {
        let tasks = shared.lock().tasks().to_string();
        return Ok(page(200, "application/json", tasks));
    }
    let cbor = wire::text(&head.headers, "smithy-protocol") == Some("rpc-v2-cbor");
    let target = wire::text(&head.headers, "x-amz-target").unwrap_or_default();
    let operation = target.rsplit('.').next().unwrap_or_default();
    let fault = shared.change(|s| s.next_fault(operation));
    let ahead = match fault {
        Some(Fault::Skew(ahead) | Fault::SkewRefusing(ahead)) => ahead,
        Some(_) | None => SignedDuration::ZERO,
    };
    let arrival = Arrival {
        at,
        now: at.checked_add(ahead).unwrap_or(at),
        head,
        protocol: if cbor { Protocol::Cbor } else { Protocol::Json },
        fault,
    };
    if fault == Some(Fault::ResetBeforeReading) {
        return Err(arrival.cut(shared));
    }
    let body = match Limited::new(body, RAW_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => {
            return Ok(arrival.refuse(&Refusal::too_large(RAW_BYTES), shared));
        }
        Err(_) => return Err(arrival.cut(shared)),
    };
    if fault == Some(Fault::Hang) {
        let clearings = shared.lock().clearings;
        let cut = arrival.cut(shared);
        shared.hold(|s| clearings < s.clearings).await;
        return Err(cut);
    }
    if let Some(Fault::Garbage(status)) = fault {
        arrival.note_refused(status, "Garbage", "", shared);
        let html = "<html><body>Please sign in to use this network</body></html>";
        let mut answer = page(status, "text/html", html.to_owned());
        wire::date(&mut answer, arrival.now);
        return Ok(answer);
    }
    let releases = shared.lock().releases;
    let mut answer = match arrival.take(&body, shared) {
        Ok(answer) => answer,
        Err(refusal) => return Ok(arrival.refuse(&refusal, shared)),
    };
    if fault == Some(Fault::ResetAfterStoring) {
        return Err(Severed);
    }
    if fault == Some(Fault::Slow) {
        shared.hold(|s| releases < s.releases).await;
    }
    arrival.finish(&mut answer, shared);
    Ok(answer)
}

impl Arrival {
    /// Judges, stores and answers.
    fn take(&self, body: &Bytes, shared: &Shared) -> Result<Answer, Refusal> {
        let signature = Signature::of(&self.head.headers)?;
        shared.lock().check_key(&signature.access_key)?;
        if matches!(self.fault, Some(Fault::SkewRefusing(_))) {
            signature.check_age(self.now)?;
        }
        if let Some(refusal) = self.fault.and_then(refusal_for) {
            return Err(refusal);
        }
        if self.head.method != Method::POST {
            return Err(Refusal::unknown_operation());
        }
        match self.protocol {
            Protocol::Cbor if self.head.uri.path() == PUT_METRIC_DATA => {
                self.put_metric_data(signature.access_key, body, shared)
            }
            Protocol::Cbor => Err(Refusal::unknown_operation()),
            Protocol::Json => self.call(signature.access_key, body, shared),
        }
    }

    fn put_metric_data(
        &self,
        access_key: String,
        body: &Bytes,
        shared: &Shared,
    ) -> Result<Answer, Refusal> {
        let content_type = wire::text(&self.head.headers, CONTENT_TYPE.as_str());
        if content_type != Some("application/cbor") {
            return Err(Refusal::malformed(&format!(
                "Content-Type must be application/cbor, is {content_type:?}"
            )));
        }
        let (gzip, decoded) = wire::plain(&self.head.headers, body)?;
        let accepted = limits::check(&decoded, self.now)?;
        let request = Request {
            at: self.at,
            access_key,
            headers: self.head.headers.clone(),
            gzip,
            body_bytes: body.len(),
            decoded_bytes: decoded.len(),
            namespace: accepted.namespace,
            data: accepted.data,
            strict: accepted.strict,
        };
        shared.change(|s| s.log.requests.push(Arc::new(request)));
        Ok(wire::answer(200, Protocol::Cbor, Vec::new()))
    }

    fn call(&self, access_key: String, body: &Bytes, shared: &Shared) -> Result<Answer, Refusal> {
        let target = wire::text(&self.head.headers, "x-amz-target").unwrap_or_default();
        let known = JSON_SERVICES.iter().any(|service| {
            target
                .strip_prefix(service)
                .is_some_and(|op| !op.is_empty())
        });
        if !known {
            return Err(Refusal::unknown_operation());
        }
        let (_, decoded) = wire::plain(&self.head.headers, body)?;
        let body: Value = serde_json::from_slice(&decoded)
            .map_err(|e| Refusal::malformed(&format!("body: {e}")))?;
        let (status, answer) = shared.change(|s| {
            let answered = s.answer(target, &body)?;
            s.log.calls.push(Call {
                at: self.at,
                access_key,
                target: target.to_owned(),
                body,
            });
            Ok(answered)
        })?;
        let bytes = answer.to_string().into_bytes();
        Ok(wire::answer(status, Protocol::Json, bytes))
    }

    fn refuse(&self, refusal: &Refusal, shared: &Shared) -> Answer {
        let query_codes = shared.lock().query_codes;
        let mut answer = refusal.answer(self.protocol, query_codes);
        self.note_refused(refusal.status, refusal.shape, &refusal.message, shared);
        self.finish(&mut answer, shared);
        answer
    }

    /// Notes that the request gets no answer.
    fn cut(&self, shared: &Shared) -> Severed {
        let reason = match self.fault {
            Some(fault) => format!("{fault:?}"),
            None => "broken off".to_owned(),
        };
        self.note_refused(0, &reason, "", shared);
        Severed
    }

    fn note_refused(&self, status: u16, reason: &str, message: &str, shared: &Shared) {
        let refused = Refused {
            at: self.at,
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        shared.change(|s| s.log.refused.push(refused));
    }

    fn finish(&self, answer: &mut Answer, shared: &Shared) {
        let number = shared.change(|s| {
            s.answered += 1;
            s.answered
        });
        let id = format!("00000000-0000-4000-8000-{number:012x}");
        if let Ok(id) = HeaderValue::from_str(&id) {
            answer.headers_mut().insert("x-amzn-requestid", id);
        }
        wire::date(answer, self.now);
    }
}

fn refusal_for(fault: Fault) -> Option<Refusal> {
    match fault {
        Fault::Throttle => Some(Refusal::throttled()),
        Fault::InternalError => Some(Refusal::internal()),
        Fault::Unavailable => Some(Refusal::unavailable()),
        Fault::AccessDenied => Some(Refusal::denied()),
        Fault::ExpiredToken => Some(Refusal::expired()),
        Fault::Hang
        | Fault::ResetBeforeReading
        | Fault::ResetAfterStoring
        | Fault::Garbage(_)
        | Fault::Skew(_)
        | Fault::SkewRefusing(_)
        | Fault::Slow => None,
    }
}

fn page(status: u16, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    let content_type = HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

impl State {
    fn new() -> Self {
        Self {
            log: Log::default(),
            faults: VecDeque::new(),
            clearings: 0,
            releases: 0,
            keys: None,
            once_good: BTreeSet::new(),
            revoked: BTreeSet::new(),
            query_codes: false,
            answers: HashMap::new(),
            metadata: json!({
                "Cluster": "field",
                "ContainerInstanceArn": "arn:aws:ecs:eu-west-1:123456789012:container-instance/field/0123456789abcdef0",
                "Version": "Amazon ECS Agent - v1.105.1",
            }),
            cluster: None,
            ssm: ssm::Ssm::default(),
            answered: 0,
        }
    }

    fn next_fault(&mut self, operation: &str) -> Option<Fault> {
        self.faults.retain(|(_, _, times)| *times != Times::Next(0));
        let mut faults = self.faults.iter_mut();
        let (_, fault, times) =
            faults.find(|(only, ..)| only.is_none_or(|only| only == operation))?;
        if let Times::Next(left) = times {
            *left -= 1;
        }
        Some(*fault)
    }

    fn tasks(&self) -> Value {
        let arn = self.metadata["ContainerInstanceArn"].as_str();
        match (&self.cluster, arn) {
            (Some(cluster), Some(arn)) => cluster.tasks(arn),
            (_, _) => json!({ "Tasks": [] }),
        }
    }

    /// What a JSON-1.1 call is answered: as was scripted, else as SSM or the cluster does; `{}` where there is no cluster.
    fn answer(&mut self, target: &str, body: &Value) -> Result<(u16, Value), Refusal> {
        if let Some(scripted) = self.answers.get(target) {
            return Ok(scripted.clone());
        }
        if let Some(operation) = target.strip_prefix(ssm::TARGET) {
            return Ok((200, self.ssm.call(operation, body)?));
        }
        match (&mut self.cluster, target.strip_prefix(ecs::TARGET)) {
            (Some(cluster), Some(operation)) => Ok((200, cluster.call(operation, body)?)),
            (_, _) => Ok((200, json!({}))),
        }
    }

    fn check_key(&mut self, key: &str) -> Result<(), Refusal> {
        let known = self.keys.as_ref().is_none_or(|keys| keys.contains(key));
        let good = known && !self.revoked.contains(key);
        if good {
            self.once_good.insert(key.to_owned());
            Ok(())
        } else if self.once_good.contains(key) {
            Err(Refusal::expired())
        } else {
            Err(Refusal::unknown_key())
        }
    }
}
