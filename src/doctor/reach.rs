//! Whether a server can be reached at all: its name, then TCP. Told apart, for each is mended elsewhere.

use std::time::Duration;

use futures_util::future::select_ok;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::check::Found;
use super::scene::environment;
use crate::clients::reach::Target;

/// For the name, and for the connection. The second may wait for a packet that was lost.
const PATIENCE: Duration = Duration::from_secs(3);

/// Addresses of a name that are tried.
const ADDRESSES: usize = 8;

/// Looks whether the server of a URL can be reached.
///
/// # Errors
/// The check has failed, with the step that did not work.
pub(super) async fn server(url: &str) -> Result<(), Found> {
    let Some(target) = Target::of_url(url) else {
        return Err(Found::fail(
            format!("{url} is no http or https URL"),
            "systemctl show sideline -p Environment   # AWS_ENDPOINT_URL",
        ));
    };
    // Where a proxy leads to it, neither its name nor its port need be open to us.
    let proxies = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    if url.starts_with("https") && proxies.iter().any(|name| environment(name).is_some()) {
        return Ok(());
    }
    let Target { host, port } = target;
    let addresses = match timeout(PATIENCE, lookup_host((host.as_str(), port))).await {
        Ok(Ok(addresses)) => addresses.take(ADDRESSES).collect::<Vec<_>>(),
        Ok(Err(_)) => Vec::new(),
        Err(_) => {
            return Err(Found::fail(
                format!("the name {host} is not resolved within {PATIENCE:?}"),
                format!("getent hosts {host}; cat /etc/resolv.conf"),
            ));
        }
    };
    if addresses.is_empty() {
        return Err(Found::fail(
            format!("the name {host} can't be resolved"),
            format!("getent hosts {host}; cat /etc/resolv.conf"),
        ));
    }
    let any = select_ok(
        addresses
            .into_iter()
            .map(|at| Box::pin(TcpStream::connect(at))),
    );
    let why = match timeout(PATIENCE, any).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {PATIENCE:?}"),
    };
    Err(Found::fail(
        format!("{host} port {port}: {why}"),
        format!(
            "curl -v --connect-timeout 5 {url}   # let TCP {port} out to it, or: \
             printf '[Service]\\nEnvironment=HTTPS_PROXY=http://PROXY:3128\\n' | sudo systemctl edit --stdin sideline"
        ),
    ))
}
