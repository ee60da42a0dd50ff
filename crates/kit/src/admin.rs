//! The HTTP port for monitoring: `/metrics`, `/healthz` and `/readyz`.
//!
//! Nothing else depends on it: if the port is taken, that is logged and tried again, and the daemon
//! works on. It is plain HTTP, without secrets, and answers GET and HEAD only.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long after a failure the port is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// How long a client may take for its request's head.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connections at once; others wait. Whoever can reach the port must not cost more than that.
const CONNECTIONS: usize = 16;

/// Where the port is, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(AdminAddress(None));
        }
        let address = text.parse().map_err(|_| {
            format!("{text:?} is neither ADDRESS:PORT, as in [::]:7734 or 127.0.0.1:7734, nor none")
        })?;
        Ok(AdminAddress(Some(address)))
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Whether something is as it should be, and if not, what is missing.
pub type Verdict = Result<(), String>;

/// What the port tells.
pub struct Admin {
    /// All metrics.
    pub registry: Registry,
    /// Whether the process works at all; if not, its supervisor starts it anew.
    pub live: Box<dyn Fn() -> Verdict + Send + Sync>,
    /// Whether it does what it is for.
    pub ready: Box<dyn Fn() -> Verdict + Send + Sync>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Serves for ever; at once nothing with the address `none`.
    pub async fn serve(self, address: AdminAddress) {
        let Some(address) = address.0 else { return };
        let mut said = false;
        let listener = loop {
            match bind(address).await {
                Ok(listener) => break listener,
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        tracing::warn!(%error, %address, "no metrics: cannot listen, trying on; see --metrics-address");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tracing::info!(%address, "metrics");
        let admin = Arc::new(self);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "metrics: cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let admin = admin.clone();
            tokio::spawn(async move {
                let answer = service_fn(|request: Request<Incoming>| {
                    let response = admin.answer(request.method(), request.uri().path());
                    async { Ok::<_, Infallible>(response) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), answer);
                // Whoever does not read the answer must not hold a place for ever.
                let _ = tokio::time::timeout(2 * PATIENCE, connection).await;
                drop(permit);
            });
        }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET".to_owned());
            let allow = hyper::header::HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allow);
            return response;
        }
        match path {
            "/metrics" => match self.metrics() {
                Ok(page) => {
                    let mut response = text(StatusCode::OK, page);
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    let kind = hyper::header::HeaderValue::from_static(kind);
                    response.headers_mut().insert(CONTENT_TYPE, kind);
                    response
                }
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            "/healthz" => verdict((self.live)()),
            "/readyz" => verdict((self.ready)()),
            _ => text(
                StatusCode::NOT_FOUND,
                "/metrics, /healthz, /readyz".to_owned(),
            ),
        }
    }

    fn metrics(&self) -> Result<String, fmt::Error> {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// A wildcard IPv6 address takes IPv4 too, or means IPv4 where the kernel has no IPv6.
async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error)
            if address.ip() == IpAddr::from([0u16; 8])
                && error.kind() != std::io::ErrorKind::AddrInUse =>
        {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        result => result,
    }
}

fn verdict(verdict: Verdict) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => text(StatusCode::OK, "ok".to_owned()),
        Err(missing) => text(StatusCode::SERVICE_UNAVAILABLE, missing),
    }
}

fn text(status: StatusCode, mut body: String) -> Response<Full<Bytes>> {
    if !body.ends_with('\n') {
        body.push('\n');
    }
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn admin(ready: Verdict) -> Admin {
        let counter: Counter = Counter::default();
        counter.inc_by(3);
        let mut registry = Registry::with_prefix("lightship");
        registry.register("things", "Things that happened", counter);
        Admin {
            registry,
            live: Box::new(|| Ok(())),
            ready: Box::new(move || ready.clone()),
        }
    }

    #[test]
    fn an_address_is_a_socket_address_or_none() {
        let parse = AdminAddress::from_str;
        assert_eq!(parse("none"), Ok(AdminAddress(None)));
        for text in ["[::]:7734", "192.0.2.1:80", "none"] {
            assert_eq!(parse(text).map(|a| a.to_string()), Ok(text.to_owned()));
        }
        assert!(parse("7734").unwrap_err().contains("127.0.0.1:7734"));
    }

    #[test]
    fn each_path_has_its_answer() {
        let fine = admin(Ok(()));
        let missing = admin(Err("no Nodes seen yet".into()));
        let status = |admin: &Admin, method: Method, path| admin.answer(&method, path).status();
        assert_eq!(status(&fine, Method::GET, "/metrics"), 200);
        assert_eq!(status(&fine, Method::GET, "/healthz"), 200);
        assert_eq!(status(&fine, Method::GET, "/readyz"), 200);
        assert_eq!(status(&missing, Method::GET, "/readyz"), 503);
        assert_eq!(status(&missing, Method::GET, "/healthz"), 200);
        assert_eq!(status(&fine, Method::GET, "/"), 404);
        assert_eq!(status(&fine, Method::POST, "/metrics"), 405);
        let page = fine.metrics().unwrap();
        assert!(
            page.contains("# TYPE lightship_things counter\nlightship_things_total 3\n"),
            "{page}"
        );
        assert!(page.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn a_request_over_tcp_is_answered_and_the_connection_closed() {
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let missing = Err("no Nodes seen yet".to_owned());
        let server = tokio::spawn(admin(missing).serve(AdminAddress(Some(address))));
        let mut stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let request = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.ends_with("no Nodes seen yet\n"), "{answer}");
        server.abort();
    }
}
