//! HTTP/1.1 on the unix socket (and Prometheus text over TCP, if asked for).

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Extension, Router};
use futures_util::stream::{self, Stream};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::orders::{self, Order, Peer};
use super::{connections, prometheus};
use crate::domain::report::Report;

/// The latest report; `None` before the first tick.
pub type Latest = watch::Receiver<Option<Arc<Report>>>;

/// Opens the socket. The service's is for root and the group that it runs as (`sideline`), an ordinary user's agent is
/// for that user alone. What answers nobody any more is taken away.
///
/// # Errors
/// The folder can't be written, or another agent answers there.
pub fn open(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| {
            format!(
                "can't make {}; run as root, or set paths.run to a folder of your own",
                folder.display()
            )
        })?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        anyhow::bail!("another agent answers at {}; stop it first", path.display());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't replace {}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("can't listen at {}", path.display()))?;
    let mode = match rustix::process::geteuid().is_root() {
        true => 0o660,
        false => 0o600,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("can't set who may ask at {}", path.display()))?;
    Ok(listener)
}

/// Serves the socket until it is cancelled, and takes it away then.
///
/// # Errors
/// None in use.
pub async fn run(
    listener: UnixListener,
    path: PathBuf,
    latest: Latest,
    orders: mpsc::Sender<Order>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let app = Router::new()
        .route("/v1/report", get(report))
        .route("/v1/stream", get(stream))
        .route("/v1/fit", get(fit))
        .route("/metrics", get(metrics))
        .with_state(latest)
        .merge(orders::routes(orders));
    let of_peer = |stream: &UnixStream| app.clone().layer(Extension(Peer::of(stream)));
    cancel
        .run_until_cancelled(connections::serve(listener, of_peer))
        .await;
    // Gone already is fine: the folder is wiped when the service stops.
    let _ = fs::remove_file(path);
    Ok(())
}

/// Serves Prometheus text over TCP until it is cancelled.
///
/// # Errors
/// None in use: an address that can't be listened on is logged.
pub async fn run_metrics(
    address: String,
    latest: Latest,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let listener = match TcpListener::bind(&address).await {
        Ok(listener) => listener,
        Err(error) => {
            // Not worth the agent's life: it goes on watching.
            tracing::error!(address, %error, "status.metrics_listen can't be listened on");
            return Ok(());
        }
    };
    let app = Router::new()
        .route("/metrics", get(metrics))
        .with_state(latest);
    cancel
        .run_until_cancelled(connections::serve(listener, |_| app.clone()))
        .await;
    Ok(())
}

fn not_yet() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "no report yet\n").into_response()
}

async fn report(State(latest): State<Latest>) -> Response {
    let report = latest.borrow().clone();
    report.map_or_else(not_yet, |report| Json(&*report).into_response())
}

async fn fit(State(latest): State<Latest>) -> Response {
    let report = latest.borrow().clone();
    match report {
        Some(report) if report.is_fit() => (StatusCode::OK, "fit\n").into_response(),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "not fit\n").into_response(),
        None => not_yet(),
    }
}

async fn metrics(State(latest): State<Latest>) -> Response {
    let report = latest.borrow().clone();
    report.map_or_else(not_yet, |report| {
        (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            prometheus::text(&report),
        )
            .into_response()
    })
}

async fn stream(
    State(mut latest): State<Latest>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    latest.mark_changed();
    let reports = stream::unfold(latest, |mut latest| async {
        loop {
            latest.changed().await.ok()?;
            let report = latest.borrow_and_update().clone();
            if let Some(report) = report {
                let event = Event::default().json_data(&*report).unwrap_or_default();
                return Some((Ok(event), latest));
            }
        }
    });
    Sse::new(reports).keep_alive(KeepAlive::default())
}
