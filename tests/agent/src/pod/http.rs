//! HTTP/1.1, as much as curl and a benchmark need: keep-alive, bodies ignored.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Server, next_line};

/// Most that `/bytes/N` gives: 1 GiB, far above any throughput measurement here.
const MAX_BYTES: u64 = 1 << 30;

/// Whether a connection's first line opens an HTTP request.
pub(super) fn is_request_line(line: &str) -> bool {
    line.ends_with(" HTTP/1.1") || line.ends_with(" HTTP/1.0")
}

/// Answers requests on one connection until the client closes it. `/bytes/N` gives N
/// zero bytes; every other path gives the server's identity.
pub(super) async fn serve(
    first: String,
    read: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWrite + Unpin),
    client: SocketAddr,
    server: &Server,
) -> io::Result<()> {
    let mut line = first;
    loop {
        let headers = Headers::read(read, line.ends_with("1.0")).await?;
        let skipped =
            tokio::io::copy(&mut (&mut *read).take(headers.body), &mut tokio::io::sink()).await?;
        if skipped < headers.body {
            return Ok(());
        }
        let mut words = line.split(' ');
        let head_only = words.next() == Some("HEAD");
        let path = words.next().unwrap_or("/");
        let connection = if headers.close { "close" } else { "keep-alive" };
        match path.strip_prefix("/bytes/").map(str::parse) {
            Some(Ok(length)) if length <= MAX_BYTES => {
                head(
                    write,
                    "200 OK",
                    "application/octet-stream",
                    length,
                    connection,
                )
                .await?;
                if !head_only {
                    let mut zeros = tokio::io::repeat(0).take(length);
                    tokio::io::copy(&mut zeros, write).await?;
                }
            }
            Some(_) => head(write, "400 Bad Request", "text/plain", 0, connection).await?,
            None => {
                let body = server.line(client, "http", 0);
                let length = body.len() as u64;
                head(write, "200 OK", "application/json", length, connection).await?;
                if !head_only {
                    write.write_all(&body).await?;
                }
            }
        }
        write.flush().await?;
        if headers.close {
            return write.shutdown().await;
        }
        match next_line(read).await? {
            Some(next) if is_request_line(&next) => line = next,
            _ => return Ok(()),
        }
    }
}

async fn head(
    write: &mut (impl AsyncWrite + Unpin),
    status: &str,
    media: &str,
    length: u64,
    connection: &str,
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {media}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
    );
    write.write_all(head.as_bytes()).await
}

/// What we heed of a request's headers.
struct Headers {
    body: u64,
    close: bool,
}

impl Headers {
    async fn read(read: &mut (impl AsyncBufRead + Unpin), old: bool) -> io::Result<Self> {
        let mut headers = Self {
            body: 0,
            close: old,
        };
        while let Some(line) = next_line(read).await? {
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                headers.body = value.parse().unwrap_or(0);
            } else if name.eq_ignore_ascii_case("connection") {
                headers.close = value.eq_ignore_ascii_case("close");
            }
        }
        Ok(headers)
    }
}
