//! What goes over the line to a server, read off by a proxy that changes nothing.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The head of a request: its first line, and the lines that follow.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// Such as `PUT`.
    pub(crate) method: String,
    /// What is asked for, with its query.
    #[allow(dead_code)] // not every user of this file asks where
    pub(crate) path: String,
    /// `name: value`.
    pub(crate) lines: Vec<String>,
}

impl Head {
    /// The value of a header.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let mut all = self.lines.iter().filter_map(|line| line.split_once(':'));
        all.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

/// Passes everything on, both ways, and keeps what clients sent.
pub(crate) struct Recorder {
    address: String,
    sent: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Recorder {
    /// Before the server at `host:port`.
    pub(crate) async fn before(upstream: &str) -> Self {
        let upstream = upstream.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sent: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let record = sent.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, upstream.clone(), record.clone()));
            }
        });
        Self { address, sent, accepting }
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Heads of the requests so far with this method.
    pub(crate) fn heads(&self, method: &str) -> Vec<Head> {
        let all = self.sent.lock().unwrap().iter().flat_map(|sent| heads(sent)).collect::<Vec<_>>();
        all.into_iter().filter(|head| head.method == method).collect()
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn pass(client: TcpStream, upstream: String, record: Arc<Mutex<Vec<Vec<u8>>>>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let place = {
        let mut all = record.lock().unwrap();
        all.push(Vec::new());
        all.len() - 1
    };
    let there = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
            record.lock().unwrap()[place].extend_from_slice(&buffer[..length]);
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
        let _ = to_server.shutdown().await; // the server may have gone first
    };
    let back = async {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await; // the client may have gone first
    };
    tokio::join!(there, back);
}

/// One connection carries many requests, each with a body as long as its head says.
fn heads(mut sent: &[u8]) -> Vec<Head> {
    const END: &[u8] = b"\r\n\r\n";
    let mut heads = Vec::new();
    while let Some(end) = sent.windows(END.len()).position(|window| window == END) {
        let text = String::from_utf8_lossy(&sent[..end]);
        let mut lines = text.split("\r\n").map(str::to_owned);
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let head = Head { method, path, lines: lines.collect() };
        let body: usize = head.value("content-length").map_or(0, |length| length.parse().unwrap());
        sent = sent.get(end + END.len() + body..).unwrap_or_default();
        heads.push(head);
    }
    heads
}
