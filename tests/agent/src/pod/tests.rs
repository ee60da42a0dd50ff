//! The server over the loopback, both families.

use std::net::Ipv4Addr;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use super::*;

fn server() -> Arc<Server> {
    Arc::new(Server {
        node: "node1".into(),
        pod: "web-1".into(),
    })
}

async fn started() -> (SocketAddr, JoinHandle<()>, mpsc::Receiver<()>) {
    let listener = listen(0).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connection, open) = mpsc::channel(1);
    let accepting = tokio::spawn(accept(listener, server(), connection));
    ((Ipv4Addr::LOCALHOST, port).into(), accepting, open)
}

#[tokio::test]
async fn lines_are_counted_and_the_client_is_told_its_own_address() {
    let (address, _accepting, _open) = started().await;
    let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
    let me = stream.get_ref().local_addr().unwrap();
    for seq in 1..=3 {
        stream.write_all(b"x\n").await.unwrap();
        let line = next_line(&mut stream).await.unwrap().unwrap();
        let identity: Identity = serde_json::from_str(&line).unwrap();
        assert_eq!(identity, server().identity(me, "lines", seq));
    }
}

#[tokio::test]
async fn http_keeps_the_connection_until_told_otherwise() {
    let (address, _accepting, _open) = started().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"POST /x HTTP/1.1\r\nHost: x\r\ncontent-length: 5\r\n\r\nhello")
        .await
        .unwrap();
    stream
        .write_all(b"GET /bytes/3 HTTP/1.1\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2);
    assert!(answer.contains(r#""proto":"http""#), "{answer}");
    assert!(
        answer.ends_with("Connection: close\r\n\r\n\0\0\0"),
        "{answer}"
    );
}

#[tokio::test]
async fn datagrams_are_answered() {
    let socket = datagrams(0).await.unwrap();
    let port = socket.local_addr().unwrap().port();
    tokio::spawn(udp::serve(socket, server()));
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    client
        .send_to(b"hello", (Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    let mut buffer = [0; 512];
    let length = client.recv(&mut buffer).await.unwrap();
    let identity: Identity = serde_json::from_slice(&buffer[..length]).unwrap();
    assert_eq!(identity.client, client.local_addr().unwrap());
    // As long as it is asked for, and the same still.
    client
        .send_to(b"400\n", (Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap();
    assert_eq!(client.recv(&mut buffer).await.unwrap(), 400);
    assert_eq!(
        serde_json::from_slice::<Identity>(&buffer[..400]).unwrap(),
        identity
    );
}

#[tokio::test]
async fn the_end_waits_for_open_connections() {
    let (address, accepting, mut open) = started().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"x\n").await.unwrap();
    let mut buffer = [0; 512];
    assert!(stream.read(&mut buffer).await.unwrap() > 0);
    accepting.abort();
    let _ = accepting.await;
    let wait = Duration::from_millis(50);
    assert!(tokio::time::timeout(wait, open.recv()).await.is_err());
    drop(stream);
    let wait = Duration::from_secs(5);
    assert_eq!(tokio::time::timeout(wait, open.recv()).await, Ok(None));
}
