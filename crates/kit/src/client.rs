//! The Kubernetes client.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};
use serde_json::json;
use tower::timeout::TimeoutLayer;
use tower::util::MapResponseLayer;

use crate::backoff::pause;

/// How long a connection may take to stand. The library's 30 s would be lost whenever an API
/// server vanishes without a word, before another attempt may find it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the head of an answer may take: that of a list comes when the list is ready, for which
/// an API server takes 60 s at most; that of a watch comes at once. Without a bound, a watch whose
/// list is never answered would never be begun again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(70);

/// A client from a kubeconfig file if one is given, else from the Pod's service account.
///
/// It does not talk to the API server yet, so it works while that is away. Each request is sent
/// once: who asks knows best when to ask again, and [`asked_pause`] says what the API server wishes.
///
/// # Errors
/// If the file or the service account cannot be read or is incomplete.
pub async fn connect(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read the kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("the kubeconfig {} is incomplete", path.display()))?
        }
        None => Config::incluster()
            .context("not in a Pod with a service account; give --kubeconfig or KUBECONFIG")?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // The library would repeat what is answered by 429, 503 or 504 up to 15 times, with pauses
    // that double up to 1000 s, unseen by the pauses and the rate limit of those who ask.
    config.default_retry = false;
    let builder = ClientBuilder::try_from(config).context("cannot set up the Kubernetes client")?;
    let builder = builder.with_layer(&MapResponseLayer::new(told));
    Ok(builder.with_layer(&TimeoutLayer::new(HEAD_TIMEOUT)).build())
}

/// How long the API server asks to wait before the request is repeated (the header `Retry-After`
/// or `details.retryAfterSeconds`), if that is what the error says.
pub fn asked_pause(error: &Error) -> Option<Duration> {
    let Error::Api(status) = error else {
        return None;
    };
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// Repeats a request while the API server has too much to do or is not ready (429, 503, 504), with
/// pauses as long as it asks for, else growing up to `longest`. The caller bounds the whole.
///
/// # Errors
/// Any other.
pub async fn while_busy<T, F>(longest: Duration, mut request: impl FnMut() -> F) -> kube::Result<T>
where
    F: Future<Output = kube::Result<T>>,
{
    let mut attempt = 1;
    loop {
        let error = match request().await {
            Err(error @ Error::Api(_)) => error,
            other => return other,
        };
        if !matches!(&error, Error::Api(status) if [429, 503, 504].contains(&status.code)) {
            return Err(error);
        }
        let asked = asked_pause(&error).unwrap_or_default();
        tracing::debug!(%error, ?asked, attempt, "the API server is busy");
        tokio::time::sleep(asked.max(pause(attempt, longest))).await;
        attempt += 1;
    }
}

/// Puts `Retry-After` where the library keeps it. A `Status` has it inside already; of an answer
/// that is none (that of an API server with too much to do is plain text) the library would keep
/// the number alone.
fn told<B>(response: Response<B>) -> Response<Either<B, Full<Bytes>>> {
    let headers = response.headers();
    let seconds = headers
        .get(RETRY_AFTER)
        .and_then(|seconds| seconds.to_str().ok()?.parse::<u32>().ok());
    let code = response.status();
    let refused = [
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::SERVICE_UNAVAILABLE,
    ]
    .contains(&code);
    let json = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    let Some(seconds) = seconds.filter(|_| refused && !json) else {
        return response.map(Either::Left);
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("{code}; the API server asks to be left alone for {seconds} s"),
        "code": code.as_u16(), "details": { "retryAfterSeconds": seconds },
    });
    response.map(|_| Either::Right(status.to_string().into()))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use kube::core::Status;

    use super::*;

    /// What the library makes of an answer with this status, content and `Retry-After`.
    async fn error(code: u16, content: (&str, &str), after: Option<&str>) -> Option<Error> {
        let (kind, text) = content;
        let mut response = Response::builder().status(code).header(CONTENT_TYPE, kind);
        if let Some(after) = after {
            response = response.header(RETRY_AFTER, after);
        }
        let response = told(response.body(Full::from(text.to_owned())).unwrap());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let status: Status = serde_json::from_slice(&body).ok()?;
        Some(Error::Api(status.boxed()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_api_server_is_asked_again_and_other_errors_are_told() {
        let answer = |code: u16, after: u32| {
            let status = json!({ "code": code, "details": { "retryAfterSeconds": after } });
            let status: Status = serde_json::from_value(status).unwrap();
            Err(Error::Api(status.boxed()))
        };
        let mut answers = vec![Ok(1), answer(504, 0), answer(503, 0), answer(429, 5)];
        let start = tokio::time::Instant::now();
        let longest = Duration::from_secs(1);
        let got = while_busy(longest, || std::future::ready(answers.pop().unwrap())).await;
        assert_eq!(got.unwrap(), 1);
        let took = start.elapsed();
        assert!((5100..5700).contains(&took.as_millis()), "{took:?}");
        let mut answers = vec![Ok(1), answer(409, 5)];
        let got = while_busy(longest, || std::future::ready(answers.pop().unwrap())).await;
        assert!(got.is_err() && answers.len() == 1);
    }

    #[tokio::test]
    async fn the_pause_that_the_api_server_asks_for_is_told() {
        let text = (
            "text/plain; charset=utf-8",
            "Too many requests, please try again later.",
        );
        let status = r#"{"status":"Failure","code":429,"details":{"retryAfterSeconds":7}}"#;
        let status = ("application/json", status);
        for (code, content, after, pause) in [
            (429, text, Some("1"), Some(1)),
            (503, text, Some("20"), Some(20)),
            (429, status, Some("7"), Some(7)),
            (
                429,
                ("application/json", r#"{"status":"Failure","code":429}"#),
                Some("7"),
                None,
            ),
            (429, text, Some("0"), None),
        ] {
            let error = error(code, content, after).await.unwrap();
            assert_eq!(
                asked_pause(&error),
                pause.map(Duration::from_secs),
                "{code} {after:?}"
            );
        }
        // Left as they are.
        assert!(error(429, text, None).await.is_none());
        assert!(
            error(429, text, Some("Fri, 31 Dec 1999 23:59:59 GMT"))
                .await
                .is_none()
        );
        assert!(error(500, text, Some("1")).await.is_none());
    }
}
