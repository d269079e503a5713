//! A TCP proxy on 127.0.0.1 that fails when it is told to.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// Bytes that are carried at once.
const CHUNK: usize = 4096;

/// Between two bytes of [`Fault::SlowDrip`]: about 500 bytes a second, both ways together.
const DRIP: Duration = Duration::from_millis(2);

/// What goes wrong, with the connections that are there and with new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens at the port; what is open is closed.
    Refuse,
    /// Each connection is reset.
    AcceptThenReset,
    /// Each connection is accepted, and nothing is carried; [`Proxy::clear`] resets it.
    Hang,
    /// Each connection is reset after this many more bytes, both ways together.
    ResetMidStream(usize),
    /// Every byte takes its time.
    SlowDrip,
}

/// The running proxy. Dropping it stops it.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    fault: watch::Sender<Option<Fault>>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Carries between a free port and `upstream`, a port of 127.0.0.1.
    pub fn start(upstream: u16) -> Self {
        let listener = reserve(0).and_then(|socket| socket.listen(BACKLOG));
        let listener = listener.expect("a free port on loopback");
        let port = listener.local_addr().expect("it is bound").port();
        let (fault, faults) = watch::channel(None);
        Proxy {
            port,
            fault,
            serving: tokio::spawn(serve(listener, port, upstream, faults)),
        }
    }

    /// The port it listens at.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets this go wrong from now on, in place of what went wrong before.
    pub fn fault(&self, fault: Fault) {
        self.fault.send_replace(Some(fault));
    }

    /// Carries again.
    pub fn clear(&self) {
        self.fault.send_replace(None);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A socket that holds the port without listening there, so that nobody else gets it.
fn reserve(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind((Ipv4Addr::LOCALHOST, port).into())?;
    Ok(socket)
}

async fn serve(
    mut listener: TcpListener,
    port: u16,
    upstream: u16,
    mut faults: watch::Receiver<Option<Fault>>,
) {
    let refuses = |fault: &Option<Fault>| *fault == Some(Fault::Refuse);
    loop {
        // Before the listener closes: a moment later somebody else may have the port.
        let closed = reserve(port).expect("it is ours");
        admit(listener, upstream, faults.clone()).await;
        if faults.wait_for(|fault| !refuses(fault)).await.is_err() {
            return;
        }
        listener = closed.listen(BACKLOG).expect("the port is reserved");
    }
}

/// Takes connections until they are to be refused; then all of them end.
async fn admit(listener: TcpListener, upstream: u16, mut faults: watch::Receiver<Option<Fault>>) {
    let mut connections = JoinSet::new();
    let told = faults.clone();
    loop {
        tokio::select! {
            _ = faults.wait_for(|fault| *fault == Some(Fault::Refuse)) => return,
            Some(_ended) = connections.join_next() => {}
            // An error concerns one client that went away before it was taken.
            accepted = listener.accept() => if let Ok((near, _peer)) = accepted {
                connections.spawn(carry(near, upstream, told.clone()));
            }
        }
    }
}

/// Carries one connection to its end.
async fn carry(mut near: TcpStream, upstream: u16, faults: watch::Receiver<Option<Fault>>) {
    if exchange(&mut near, upstream, faults).await == End::Reset {
        // Where it fails the client sees FIN, which is as much of an end for it.
        let _ = near.set_zero_linger();
    }
}

/// How the client sees the end.
#[derive(PartialEq, Eq)]
enum End {
    Closed,
    Reset,
}

async fn exchange(
    near: &mut TcpStream,
    upstream: u16,
    mut faults: watch::Receiver<Option<Fault>>,
) -> End {
    let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, upstream));
    let mut far: Option<TcpStream> = None;
    let mut fault = None;
    let mut budget = usize::MAX;
    let (mut up, mut down) = ([0; CHUNK], [0; CHUNK]);
    loop {
        let now = *faults.borrow_and_update();
        if now != fault {
            if fault == Some(Fault::Hang) || now == Some(Fault::AcceptThenReset) {
                return End::Reset;
            }
            fault = now;
            budget = match now {
                Some(Fault::ResetMidStream(bytes)) => bytes,
                Some(_) | None => usize::MAX,
            };
        }
        if budget == 0 {
            return End::Reset;
        }
        if fault == Some(Fault::Hang) {
            match faults.changed().await {
                Ok(()) => continue,
                Err(_) => return End::Closed,
            }
        }
        let far = match &mut far {
            Some(far) => far,
            None => match TcpStream::connect(upstream).await {
                Ok(stream) => far.insert(stream),
                Err(_) => return End::Reset,
            },
        };
        let drips = fault == Some(Fault::SlowDrip);
        let most = if drips { 1 } else { budget.min(CHUNK) };
        let passed = tokio::select! {
            changed = faults.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return End::Closed,
            },
            read = near.read(&mut up[..most]) => pass(read, &up, far).await,
            read = far.read(&mut down[..most]) => pass(read, &down, near).await,
        };
        match passed {
            Ok(0) | Err(_) => return End::Closed,
            Ok(bytes) => budget = budget.saturating_sub(bytes),
        }
        if drips {
            tokio::time::sleep(DRIP).await;
        }
    }
}

/// Writes on what was read; 0 is the end.
async fn pass(read: io::Result<usize>, from: &[u8], to: &mut TcpStream) -> io::Result<usize> {
    let bytes = read?;
    to.write_all(&from[..bytes]).await?;
    Ok(bytes)
}
