//! What the agent may be told to do over its socket, by root and its own user only.

use std::ops::RangeInclusive;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use axum::{Extension, Router};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::failover;
use crate::domain::inventory::Accepted;
use crate::domain::report::{Capacity, Failover};

/// Orders that may wait for the agent; a person gives one at a time.
const WAITING: usize = 4;

/// An order is some 100 bytes.
const LONGEST_ORDER: usize = 4 * 1024;

/// How long maintenance or a drill may last, in seconds: to 30 days.
const LENGTHS_S: RangeInclusive<u64> = 1..=30 * 24 * 3_600;

/// Letters that a reason may have.
const LONGEST_REASON: usize = 200;

/// What the agent is told to do; each is answered when it is done.
#[derive(Debug)]
pub enum Order {
    /// Take the hardware of now for what this node should have.
    AcceptInventory(oneshot::Sender<Accepted>),
    /// Take the node out of service, or rehearse that.
    Failover(failover::Order, oneshot::Sender<Stands>),
    /// Look at what may be done in the sandbox; the answer is a list of checks in its wire form.
    Examine(oneshot::Sender<Value>),
}

/// How a node stands after an order.
#[derive(Debug, Serialize)]
pub struct Stands {
    /// As in the report.
    pub failover: Failover,
    /// As in the report.
    pub capacity: Capacity,
    /// What a person should know of the order, such as that a restart will forget it.
    pub problems: Vec<String>,
}

/// The body of `POST /v1/maintenance`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaintenanceOrder {
    /// Out of service, or back.
    pub(super) on: bool,
    /// For how long, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) for_s: Option<u64>,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

/// The body of `POST /v1/drill`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrillOrder {
    /// For how long, in seconds; 0 ends it.
    pub(super) for_s: u64,
    /// Slots that are offered meanwhile.
    #[serde(default)]
    pub(super) slots: u32,
}

/// How long maintenance lasts where nobody says: nothing is out of service for ever because somebody forgot.
pub const MAINTENANCE_LASTS: Duration = Duration::from_secs(2 * 3_600);

impl MaintenanceOrder {
    fn order(self) -> Result<failover::Order, String> {
        if !self.on {
            return Ok(failover::Order::Resume);
        }
        let reason = self.reason.unwrap_or_else(|| "by hand".to_owned());
        let is_plain = |letter: char| !letter.is_control();
        if reason.chars().count() > LONGEST_REASON || !reason.chars().all(is_plain) {
            return Err(format!(
                "reason must be at most {LONGEST_REASON} letters on one line"
            ));
        }
        let length = length(self.for_s.unwrap_or(MAINTENANCE_LASTS.as_secs()))?;
        Ok(failover::Order::Maintain { length, reason })
    }
}

impl DrillOrder {
    fn order(self) -> Result<failover::Order, String> {
        if self.for_s == 0 {
            return Ok(failover::Order::EndDrill);
        }
        let (length, slots) = (length(self.for_s)?, self.slots);
        Ok(failover::Order::Drill { length, slots })
    }
}

fn length(seconds: u64) -> Result<Duration, String> {
    match LENGTHS_S.contains(&seconds) {
        true => Ok(Duration::from_secs(seconds)),
        false => Err(format!("it must last 1s to 30d, is {seconds} s")),
    }
}

/// The way of the orders to the agent.
#[must_use]
pub fn channel() -> (mpsc::Sender<Order>, mpsc::Receiver<Order>) {
    mpsc::channel(WAITING)
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// As the kernel knows it; `None` where it does not say.
    user: Option<u32>,
}

impl Peer {
    /// Whoever has opened the other end.
    pub(super) fn of(stream: &UnixStream) -> Self {
        let credentials = stream.peer_cred();
        Peer {
            user: credentials.ok().map(|peer| peer.uid()),
        }
    }
}

/// One route an order.
pub(super) fn routes(orders: mpsc::Sender<Order>) -> Router {
    Router::new()
        .route("/v1/inventory/accept", post(accept_inventory))
        .route("/v1/maintenance", post(maintenance))
        .route("/v1/drill", post(drill))
        .route("/v1/examine", post(examine))
        .layer(DefaultBodyLimit::max(LONGEST_ORDER))
        .route_layer(middleware::from_fn(only_the_trusted))
        .with_state(orders)
}

async fn only_the_trusted(
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let own = rustix::process::geteuid().as_raw();
    let order = request.uri().path();
    match peer.user {
        Some(user) if user == 0 || user == own => {
            tracing::info!(user, order, "an order");
            next.run(request).await
        }
        Some(_) | None => {
            tracing::warn!(user = peer.user, order, "an order was refused");
            let own = match own {
                0 => String::new(),
                own => format!(" and user {own}, as which the agent runs,"),
            };
            let why = format!("only root{own} may give it orders\n");
            (StatusCode::FORBIDDEN, why).into_response()
        }
    }
}

async fn accept_inventory(State(orders): State<mpsc::Sender<Order>>) -> Response {
    give(&orders, Order::AcceptInventory).await
}

async fn examine(State(orders): State<mpsc::Sender<Order>>) -> Response {
    give(&orders, Order::Examine).await
}

async fn maintenance(State(orders): State<mpsc::Sender<Order>>, body: Bytes) -> Response {
    match read::<MaintenanceOrder>(&body).and_then(MaintenanceOrder::order) {
        Ok(order) => give(&orders, |answer| Order::Failover(order, answer)).await,
        Err(wrong) => refuse(wrong),
    }
}

async fn drill(State(orders): State<mpsc::Sender<Order>>, body: Bytes) -> Response {
    match read::<DrillOrder>(&body).and_then(DrillOrder::order) {
        Ok(order) => give(&orders, |answer| Order::Failover(order, answer)).await,
        Err(wrong) => refuse(wrong),
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| format!("no order: {error}"))
}

fn refuse(wrong: String) -> Response {
    (StatusCode::BAD_REQUEST, wrong + "\n").into_response()
}

/// Hands an order over and answers when it is carried out.
async fn give<T: Serialize>(
    orders: &mpsc::Sender<Order>,
    order: impl FnOnce(oneshot::Sender<T>) -> Order,
) -> Response {
    let (answer, answered) = oneshot::channel();
    if orders.try_send(order(answer)).is_err() {
        let why = "it has other orders to carry out; try again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    }
    match answered.await {
        Ok(done) => Json(done).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "it stops\n").into_response(),
    }
}
