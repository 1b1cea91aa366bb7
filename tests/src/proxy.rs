//! A way to a server on which replies get lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// Hands bytes on between clients and a server, until it is told to lose a reply. Its
/// connections break when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    traffic: Arc<Traffic>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Traffic {
    requests: AtomicU64,
    /// The request whose reply is to be lost; 0 for none.
    doomed: AtomicU64,
    lost: AtomicBool,
}

impl Proxy {
    /// Listens on `address` (port 0 for any) for clients of `server`.
    pub async fn start(address: SocketAddr, server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("can't listen on {address}"))?;
        let traffic = Arc::new(Traffic::default());
        Ok(Self {
            address: listener.local_addr()?,
            traffic: Arc::clone(&traffic),
            _task: AbortOnDropHandle::new(tokio::spawn(accept(listener, server, traffic))),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests so far. What a client sends in one piece counts as one.
    pub fn requests(&self) -> u64 {
        self.traffic.requests.load(SeqCst)
    }

    /// Has the `nth` request from now (from 1) reach the server, and its connection break
    /// in place of the reply.
    pub fn lose_reply(&self, nth: u64) {
        self.traffic.lost.store(false, SeqCst);
        self.traffic.doomed.store(self.requests() + nth, SeqCst);
    }

    /// Whether that has happened.
    pub fn has_lost(&self) -> bool {
        self.traffic.lost.load(SeqCst)
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, traffic: Arc<Traffic>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                connections.spawn(carry(client, server, Arc::clone(&traffic)));
            },
            // Either end hung up.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries bytes both ways until an end hangs up or the reply that is to be lost comes.
async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    traffic: Arc<Traffic>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut requests, mut replies) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut doomed = false;
    loop {
        tokio::select! {
            read = client.read(&mut requests) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                let number = traffic.requests.fetch_add(1, SeqCst) + 1;
                doomed |= number == traffic.doomed.load(SeqCst);
                server.write_all(&requests[..read]).await?;
            }
            read = server.read(&mut replies) => {
                let read = read?;
                if doomed {
                    traffic.lost.store(true, SeqCst);
                }
                if read == 0 || doomed {
                    return Ok(());
                }
                client.write_all(&replies[..read]).await?;
            }
        }
    }
}
