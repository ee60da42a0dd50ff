//! `pod`: the real server that every pod of the lab runs.
//!
//! Each TCP port speaks two protocols, told apart by the first line: HTTP/1.1
//! (body: an [`Identity`] as JSON) for curl and people, and an echo of lines (each
//! answered with an [`Identity`] that counts them) for long-lived flows. UDP
//! ports answer each datagram with an [`Identity`]. SCTP ports speak as TCP ports do, each
//! association as one stream. Sockets are dual stack.
//!
//! On SIGTERM it goes on accepting for a while, as a well-kept workload does with a
//! `preStop` sleep, because proxies learn of the end later than the pod; then it
//! ends when its last connection has.

mod http;
mod lines;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::sctp;

/// Longest first line, header or echo line: nothing real comes near.
const MAX_LINE: u64 = 16 << 10;

/// Arguments of `pod`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The pod's name, told in answers.
    #[arg(long)]
    name: String,
    /// The node's name, told in answers.
    #[arg(long)]
    node: String,
    /// TCP port; may be repeated.
    #[arg(long)]
    port: Vec<u16>,
    /// UDP port; may be repeated.
    #[arg(long)]
    udp_port: Vec<u16>,
    /// SCTP port (one-to-one associations); may be repeated.
    #[arg(long)]
    sctp_port: Vec<u16>,
    /// Milliseconds in which connections are still accepted after SIGTERM.
    #[arg(long, default_value_t = 2000)]
    linger_ms: u64,
}

/// What a server says of itself and of the client it sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The node that the pod runs on.
    pub(crate) node: String,
    /// The pod.
    pub(crate) pod: String,
    /// The peer's address and port, as the pod's socket saw it.
    pub(crate) client: SocketAddr,
    /// `http`, `lines` or `udp`.
    pub(crate) proto: String,
    /// How many lines of this connection were answered, this one included; 0 elsewhere.
    #[serde(default)]
    pub(crate) seq: u64,
}

/// The server's own half of an [`Identity`].
#[derive(Debug)]
struct Server {
    node: String,
    pod: String,
}

impl Server {
    fn identity(&self, client: SocketAddr, proto: &str, seq: u64) -> Identity {
        Identity {
            node: self.node.clone(),
            pod: self.pod.clone(),
            client: SocketAddr::new(client.ip().to_canonical(), client.port()),
            proto: proto.to_owned(),
            seq,
        }
    }

    /// An [`Identity`] as one line of JSON.
    fn line(&self, client: SocketAddr, proto: &str, seq: u64) -> Vec<u8> {
        let mut line = serde_json::to_vec(&self.identity(client, proto, seq)).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Serves until SIGTERM.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(serve(args))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &Args) -> Result<()> {
    let mut ended = signal(SignalKind::terminate())?;
    let server = Arc::new(Server {
        node: args.node.clone(),
        pod: args.name.clone(),
    });
    // Each connection holds a clone: when all are gone, `open` ends.
    let (connection, mut open) = mpsc::channel::<()>(1);
    let mut listeners = JoinSet::new();
    for &port in &args.port {
        let listener = listen(port).await?;
        listeners.spawn(accept(listener, Arc::clone(&server), connection.clone()));
    }
    for &port in &args.sctp_port {
        let listener = sctp::listen(port)?;
        listeners.spawn(accept(listener, Arc::clone(&server), connection.clone()));
    }
    for &port in &args.udp_port {
        let socket = datagrams(port).await?;
        listeners.spawn(udp::serve(socket, Arc::clone(&server)));
    }
    drop(connection);
    ended.recv().await;
    tokio::time::sleep(Duration::from_millis(args.linger_ms)).await;
    listeners.shutdown().await;
    while open.recv().await.is_some() {}
    Ok(())
}

async fn accept(listener: TcpListener, server: Arc<Server>, connection: mpsc::Sender<()>) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let server = Arc::clone(&server);
                let connection = connection.clone();
                tokio::spawn(async move {
                    // A client that breaks off is its own business.
                    let _ = converse(stream, client, &server).await;
                    drop(connection);
                });
            }
            Err(error) => {
                // Out of descriptors: a pause lets some connections end.
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Finds out by the first line which protocol the client speaks.
async fn converse(stream: TcpStream, client: SocketAddr, server: &Server) -> io::Result<()> {
    // An SCTP association does not know this option.
    let _ = stream.set_nodelay(true);
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let Some(first) = next_line(&mut read).await? else {
        return Ok(());
    };
    if http::is_request_line(&first) {
        http::serve(first, &mut read, &mut write, client, server).await
    } else {
        lines::serve(&mut read, &mut write, client, server).await
    }
}

/// The next line without its end; `None` when the peer has closed.
async fn next_line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = from.take(MAX_LINE).read_line(&mut line).await?;
    if length == 0 {
        return Ok(None);
    }
    if !line.ends_with('\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
    }
    line.truncate(line.trim_end().len());
    Ok(Some(line))
}

/// Both families on one socket, or IPv4 alone where the kernel has no IPv6.
async fn listen(port: u16) -> Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("cannot listen on TCP port {port}")),
    }
}

async fn datagrams(port: u16) -> Result<UdpSocket> {
    match UdpSocket::bind((IpAddr::from(Ipv6Addr::UNSPECIFIED), port)).await {
        Ok(socket) => Ok(socket),
        Err(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("cannot listen on UDP port {port}")),
    }
}

#[cfg(test)]
mod tests;
