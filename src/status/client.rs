//! Asks the running agent over its socket.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::UnixStream;

use super::orders::{DrillOrder, MaintenanceOrder};

/// The report of the running agent, in its wire form.
///
/// # Errors
/// No agent answers, or it has no report yet.
pub async fn report(socket: &Path) -> anyhow::Result<Value> {
    json(get(socket, "/v1/report").await?).await
}

/// Tells the running agent to take the hardware of now for what it should be. Returns what it has forgotten, as
/// `domain::inventory::Accepted` in its wire form.
///
/// # Errors
/// No agent answers, or it does not take orders from this user.
pub async fn accept_inventory(socket: &Path) -> anyhow::Result<Value> {
    let answer = ask(socket, Method::POST, "/v1/inventory/accept", Bytes::new()).await;
    json(answer.context("only a running agent knows what is there now")?).await
}

/// Takes the node out of service for so long, or (`None`) back. Returns how it stands then, as `orders::Stands` in its
/// wire form.
///
/// # Errors
/// No agent answers, or it does not take this order from this user.
pub async fn maintain(socket: &Path, order: Option<(Duration, String)>) -> anyhow::Result<Value> {
    let (length, reason) = order.unzip();
    let order = MaintenanceOrder {
        on: length.is_some(),
        for_s: length.map(|length| length.as_secs()),
        reason,
    };
    post(socket, "/v1/maintenance", &order).await
}

/// Rehearses a failure for so long (zero: ends the rehearsal), with so many slots. Returns what [`maintain`] does.
///
/// # Errors
/// As for [`maintain`].
pub async fn drill(socket: &Path, length: Duration, slots: u32) -> anyhow::Result<Value> {
    let for_s = length.as_secs();
    post(socket, "/v1/drill", &DrillOrder { for_s, slots }).await
}

/// Has the running agent look at what it may do in its sandbox. Returns a list of checks, as `doctor::Check` in its wire
/// form.
///
/// # Errors
/// No agent answers, it is too old, or it does not take orders from this user.
pub async fn examine(socket: &Path) -> anyhow::Result<Value> {
    json(ask(socket, Method::POST, "/v1/examine", Bytes::new()).await?).await
}

/// Whether the node may take new work.
///
/// # Errors
/// No agent answers.
pub async fn fit(socket: &Path) -> anyhow::Result<bool> {
    Ok(get(socket, "/v1/fit").await?.status() == StatusCode::OK)
}

/// Calls `show` with every report until the agent goes or `show` says that it is enough.
///
/// # Errors
/// No agent answers, or it has stopped.
pub async fn watch(
    socket: &Path,
    mut show: impl FnMut(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut body = get(socket, "/v1/stream").await?.into_body();
    let mut buffer = Vec::new();
    while let Some(frame) = body.frame().await {
        // An agent that stops or reloads breaks its streams off.
        let Ok(frame) = frame else { break };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        buffer.extend_from_slice(&data);
        // A server-sent event ends with an empty line; the agent writes each in one `data:` line.
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            if let Some(json) = event.strip_prefix(b"data:") {
                show(&serde_json::from_slice(json).context("the agent's answer is no report")?)?;
            }
        }
    }
    bail!("the agent has stopped, or reads its configuration again")
}

/// What an answer holds, where it is a good one.
async fn json(answer: Response<Incoming>) -> anyhow::Result<Value> {
    let status = answer.status();
    let body = answer
        .into_body()
        .collect()
        .await
        .context("the agent's answer broke off")?
        .to_bytes();
    if status != StatusCode::OK {
        bail!("the agent says: {}", String::from_utf8_lossy(&body).trim());
    }
    serde_json::from_slice(&body).context("the agent's answer is no JSON")
}

async fn get(socket: &Path, path: &str) -> anyhow::Result<Response<Incoming>> {
    ask(socket, Method::GET, path, Bytes::new()).await
}

async fn post(socket: &Path, path: &str, order: &impl Serialize) -> anyhow::Result<Value> {
    let body = serde_json::to_vec(order)?;
    json(ask(socket, Method::POST, path, body.into()).await?).await
}

async fn ask(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> anyhow::Result<Response<Incoming>> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| unreachable(socket, &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .context("the agent speaks no HTTP")?;
    // The connection is driven for as long as its answer is read.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "sideline")
        .body(Full::new(body))?;
    sender
        .send_request(request)
        .await
        .context("the agent did not answer")
}

/// Why nobody could be asked, and what would help.
fn unreachable(socket: &Path, error: &std::io::Error) -> anyhow::Error {
    let at = socket.display();
    if error.kind() == ErrorKind::PermissionDenied {
        return anyhow!(
            "the agent at {at} answers root and members of its group alone ({error}); `sudo usermod -aG sideline USER` and \
             a new login make USER a member, `sideline check` needs no agent"
        );
    }
    anyhow!(
        "no agent answers at {at} ({error}); `sideline run` starts one, `systemctl status sideline` shows the service, \
         `sideline check` needs none"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_ask_is_told_of_the_group() {
        for (kind, wanted) in [
            (ErrorKind::PermissionDenied, "usermod -aG sideline"),
            (ErrorKind::NotFound, "no agent answers at /run/s"),
            (ErrorKind::ConnectionRefused, "no agent answers at /run/s"),
        ] {
            let told = unreachable(Path::new("/run/s"), &kind.into()).to_string();
            assert!(told.contains(wanted), "{told}");
        }
    }
}
