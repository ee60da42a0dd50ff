//! Stands between a controller and the API server, and has requests fail as a test asks.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::sync::watch;

/// What a request asks for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Whether it is a watch, which the API server answers without end.
    pub(crate) watch: bool,
    pub(crate) at: Instant,
}

impl Asked {
    /// Whether it wants to change anything but Leases and events.
    pub(crate) fn writes(&self) -> bool {
        self.method != "GET" && !self.leases() && !self.path.ends_with("/events")
    }

    /// Whether it belongs to the election between replicas.
    pub(crate) fn leases(&self) -> bool {
        self.path.contains("/leases")
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// It is passed on, and so is the answer.
    Pass,
    /// It is passed on after this.
    Late(Duration),
    /// It is passed on, and the connection breaks before the answer.
    AnswerLost,
    /// It is answered with this status, and not passed on.
    Status(u16),
    /// It is a watch, and told that its resource version is too old: the answer has status 200, and
    /// the first event is an error with status 410, as the API server's watch cache does it.
    Expired,
}

type Rule = Box<dyn FnMut(&Asked) -> Fate + Send>;

struct Shared {
    rule: Mutex<Rule>,
    /// All requests so far.
    log: Mutex<Vec<(Asked, Fate)>>,
}

/// A running proxy, ended when dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    /// Changed, it breaks all connections.
    cut: watch::Sender<()>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// Passes everything on to the API server at this URL, whose certificate is not checked.
    pub(crate) fn start(server: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let mut config = Config::new(server.parse()?);
        config.accept_invalid_certs = true;
        // The requests bring their own tokens, and none is to be repeated here.
        config.default_retry = false;
        let client = {
            let _inside = runtime.enter();
            Client::try_from(config)?
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            rule: Mutex::new(Box::new(|_| Fate::Pass)),
            log: Mutex::default(),
        });
        let (cut, broken) = watch::channel(());
        let state = shared.clone();
        runtime.spawn(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((stream, _)) = listener.accept().await {
                let (client, state) = (client.clone(), state.clone());
                let mut broken = broken.clone();
                broken.mark_unchanged();
                tokio::spawn(async move {
                    let service =
                        service_fn(move |request| answer(client.clone(), state.clone(), request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    tokio::select! {
                        _ = connection => {}
                        _ = broken.changed() => {}
                    }
                });
            }
        });
        Ok(Self {
            port,
            shared,
            cut,
            _runtime: runtime,
        })
    }

    /// Decides on requests from now on.
    pub(crate) fn rule(&self, rule: impl FnMut(&Asked) -> Fate + Send + 'static) {
        let mut current = lock(&self.shared.rule);
        *current = Box::new(rule);
    }

    /// Passes everything on from now on.
    pub(crate) fn heal(&self) {
        self.rule(|_| Fate::Pass);
    }

    /// Breaks all connections.
    pub(crate) fn cut(&self) {
        let _ = self.cut.send(());
    }

    /// Forgets what came so far.
    pub(crate) fn forget(&self) {
        lock(&self.shared.log).clear();
    }

    /// What came, and what became of it.
    pub(crate) fn log(&self) -> Vec<(Asked, Fate)> {
        lock(&self.shared.log).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    client: Client,
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let asked = Asked {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        watch: request
            .uri()
            .query()
            .is_some_and(|query| query.contains("watch=true")),
        at: Instant::now(),
    };
    let fate = (lock(&shared.rule))(&asked);
    lock(&shared.log).push((asked, fate));
    if let Fate::Late(by) = fate {
        tokio::time::sleep(by).await;
    }
    match fate {
        Fate::Status(code) => return refusal(code),
        Fate::Expired => {
            let event = json!({ "type": "ERROR", "object": status(410) });
            return json_response(StatusCode::OK, format!("{event}\n"));
        }
        _ => {}
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let request = Request::from_parts(parts, Body::from(body));
    let mut response = match client.send(request).await {
        Ok(response) => response,
        Err(error) => return Err(anyhow!("{error}")),
    };
    if fate == Fate::AnswerLost {
        response.into_body().collect().await?;
        return Err(anyhow!("lost on purpose"));
    }
    for name in [header::CONNECTION, header::TRANSFER_ENCODING] {
        response.headers_mut().remove(name);
    }
    Ok(response)
}

/// As the API server refuses: with a Status, but with plain text if it has too much to do.
fn refusal(code: u16) -> Result<Response<Body>> {
    if code == 429 {
        let text = "Too many requests, please try again later.\n";
        let response = Response::builder().status(code);
        let response = response.header(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        let response = response.header(header::RETRY_AFTER, "1");
        return Ok(response.body(Body::from(text.as_bytes().to_vec()))?);
    }
    json_response(StatusCode::from_u16(code)?, status(code).to_string())
}

fn json_response(code: StatusCode, body: String) -> Result<Response<Body>> {
    let response = Response::builder().status(code);
    let response = response.header(header::CONTENT_TYPE, "application/json");
    Ok(response.body(Body::from(body.into_bytes()))?)
}

fn status(code: u16) -> Value {
    let (reason, message) = match code {
        409 => ("Conflict", "the object has been modified"),
        410 => ("Expired", "too old resource version"),
        503 => ("ServiceUnavailable", "the server is currently unable"),
        _ => ("InternalError", "an error on the server"),
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}
