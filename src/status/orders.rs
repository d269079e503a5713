//! What the agent may be told to do over its socket, by root and its own user only.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use axum::{Extension, Router};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::domain::inventory::Accepted;

/// Orders that may wait for the agent; a person gives one at a time.
const WAITING: usize = 4;

/// What the agent is told to do; each is answered when it is done.
#[derive(Debug)]
pub enum Order {
    /// Take the hardware of now for what this node should have.
    AcceptInventory(oneshot::Sender<Accepted>),
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
    let (answer, answered) = oneshot::channel();
    if orders.try_send(Order::AcceptInventory(answer)).is_err() {
        let why = "it has other orders to carry out; try again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    }
    match answered.await {
        Ok(accepted) => Json(accepted).into_response(),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "it stops\n").into_response(),
    }
}
