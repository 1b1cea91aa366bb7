//! Connections: accepted as far as there is room, encrypted if configured, and ended in time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// How long answers may take to be sent when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long accepting pauses when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest head of a request in bytes, and so what a connection that waits holds.
const HEAD_BYTES: usize = 32 << 10;

/// A server that listens, for as long as anyone holds it.
#[derive(Debug)]
pub struct Listener {
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    holders: AtomicUsize,
}

/// What connections are served with.
pub struct Service {
    /// Answers requests.
    pub router: Router,
    /// Encrypts, if configured.
    pub tls: Option<TlsAcceptor>,
    /// At a time.
    pub connections: usize,
    /// For a handshake, and for a request's head; so also how long a connection may be idle.
    pub read_timeout: Duration,
}

impl Listener {
    /// Starts to accept.
    pub fn start(listener: TcpListener, service: Service) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(accept(listener, Arc::new(service), stopped));
        Self {
            stop,
            task: Mutex::new(Some(task)),
            holders: AtomicUsize::new(0),
        }
    }

    /// One more needs it.
    pub fn hold(&self) {
        self.holders.fetch_add(1, Ordering::AcqRel);
    }

    /// One less does. With the last, it stops: answers under way are sent, within a bound.
    pub async fn release(&self) {
        if self.holders.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        self.stop.send_replace(true);
        if let Some(task) = self.task.lock().await.take()
            && task.await.is_err()
        {
            tracing::error!("the HTTP listener panicked");
        }
    }
}

/// A server whose host failed has nobody left to release it.
impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

async fn accept(listener: TcpListener, service: Arc<Service>, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(service.connections));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let permit = Arc::clone(&room).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = next => match accepted {
                Ok((stream, peer)) => {
                    let connection = serve(stream, peer, Arc::clone(&service), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(GRACE, ended).await.is_err() {
        tracing::warn!("connections are cut off that did not end in time");
    }
}

/// Returns once the listener stops. Without one there is nobody to wait for either.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    service: Arc<Service>,
    stop: watch::Receiver<bool>,
) {
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    match &service.tls {
        None => exchange(stream, &service, stop).await,
        Some(tls) => match timeout(service.read_timeout, tls.accept(stream)).await {
            Ok(Ok(stream)) => exchange(stream, &service, stop).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
        },
    }
}

async fn exchange<S>(stream: S, service: &Service, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let router = TowerToHyperService::new(service.router.clone());
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(service.read_timeout)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), router);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
