//! Connections to the agent: HTTP/1.1 alone, so many at a time, and none that takes for ever to ask.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::task::JoinSet;

/// Who comes when so many are open waits. Prometheus, a few people with `--watch`, worker scripts.
const MOST: usize = 64;

/// A request's headers have to come within this time.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a request's headers may take, in bytes.
const HEADERS: usize = 16 * 1024;

/// Serves every connection with what `app` makes of it, until it is dropped.
pub(super) async fn serve<L: Listener>(
    mut listener: L,
    app: impl Fn(&L::Io) -> Router,
) -> Infallible {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEADERS);
    let mut open = JoinSet::new();
    loop {
        while MOST <= open.len() {
            // How a connection ends is its own affair.
            let _ = open.join_next().await;
        }
        while open.try_join_next().is_some() {}
        let (stream, _) = listener.accept().await;
        let service = TowerToHyperService::new(app(&stream));
        open.spawn(http.serve_connection(TokioIo::new(stream), service));
    }
}
