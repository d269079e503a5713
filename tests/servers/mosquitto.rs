//! A real mosquitto on a free port of 127.0.0.1, killed when it is dropped.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running broker.
#[derive(Debug)]
pub(crate) struct Mosquitto {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl Mosquitto {
    /// A broker that lets everyone in, and drops nothing for a client that is slow.
    pub(crate) fn start() -> Self {
        Self::start_with("allow_anonymous true\nmax_queued_messages 0\n")
    }

    /// A broker with these lines in its configuration, below the listener's.
    pub(crate) fn start_with(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let mut config = format!("listener {port} 127.0.0.1\npersistence false\n");
        config.write_str(settings).expect("a string takes it");
        std::fs::write(folder.path().join("mosquitto.conf"), config).expect("a configuration file");
        let process = launch(folder.path(), port);
        Mosquitto {
            folder,
            port,
            process,
        }
    }

    /// Its address, `mqtt://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Kills it as a power cut would: SIGKILL, no goodbye.
    pub(crate) fn kill(&mut self) {
        self.process.kill().expect("our own child can be killed");
        self.process
            .wait()
            .expect("our own child can be waited for");
    }

    /// Starts it again on the same port, without anything it had kept.
    pub(crate) fn restart(&mut self) {
        self.process = launch(self.folder.path(), self.port);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts it and waits until it takes connections.
fn launch(folder: &Path, port: u16) -> Child {
    // Debian keeps it in /usr/sbin, which an ordinary user's PATH lacks.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut process = Command::new("mosquitto")
        .env("PATH", format!("{path}:/usr/sbin"))
        .arg("-c")
        .arg(folder.join("mosquitto.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("mosquitto must be installed (apt install mosquitto): {error}")
        });
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        if let Ok(Some(status)) = process.try_wait() {
            panic!("mosquitto ended at once: {status}; run it by hand with such a configuration");
        }
        assert!(Instant::now() < deadline, "mosquitto takes no connections");
        std::thread::sleep(Duration::from_millis(5));
    }
    process
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound address").port()
}
