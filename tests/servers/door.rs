//! A door before a server: a port that refuses connections until it is opened, and cuts them when it is shut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A port that leads to a server while it is open.
pub(crate) struct Door {
    address: SocketAddr,
    server: SocketAddr,
    open: Option<JoinHandle<()>>,
}

impl Door {
    /// A door that is shut, on a free port of 127.0.0.1, before a server at `mqtt://host:port`.
    pub(crate) async fn before(url: &str) -> Door {
        let server = url.trim_start_matches("mqtt://").parse();
        let free = TcpListener::bind(("127.0.0.1", 0)).await;
        let free = free.expect("a free port");
        Door {
            address: free.local_addr().expect("it is bound"),
            server: server.expect("an address and a port"),
            open: None,
        }
    }

    /// `mqtt://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Lets connections through.
    pub(crate) async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await;
        let listener = listener.expect("the port is free");
        let server = self.server;
        self.open = Some(tokio::spawn(async move {
            let mut guests = JoinSet::new();
            while let Ok((mut guest, _)) = listener.accept().await {
                guests.spawn(async move {
                    let mut host = TcpStream::connect(server).await?;
                    tokio::io::copy_bidirectional(&mut guest, &mut host).await
                });
            }
        }));
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            open.abort();
        }
    }
}
