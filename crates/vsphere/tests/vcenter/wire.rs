//! A TLS server that answers with what a test hands it, for replies that the double never gives.

use std::sync::{Arc, Mutex};

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use vsphere::{Config, Trust, Vcenter};

use crate::double::{Identity, deadlines};

/// What the server does with one request.
pub(crate) enum Answer {
    /// Status, further header lines (each with CR LF), body.
    Http(u16, String, String),
    /// Ends the connection in the middle of the reply.
    CutInTheMiddle,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

pub(crate) struct Wire {
    pub(crate) config: Config,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Wire {
    pub(crate) async fn start(answer: impl Fn(&Received) -> Answer + Send + Sync + 'static) -> Self {
        let identity = Identity::new();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut config = Config::new("127.0.0.1", "u", "p".to_owned());
        config.port = listener.local_addr().unwrap().port();
        config.trust = Trust::CaFile(identity.ca);
        config.deadlines = deadlines();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (log, answer) = (received.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log, answer) = (acceptor.clone(), log.clone(), answer.clone());
                tokio::spawn(async move {
                    let _ = serve(stream, acceptor, &log, &*answer).await; // the client may go at any time
                });
            }
        });
        Self { config, received }
    }

    pub(crate) fn client(&self) -> Vcenter {
        Vcenter::new(self.config.clone()).unwrap()
    }

    /// The requests that named `method`.
    pub(crate) fn received(&self, method: &str) -> Vec<Received> {
        let all = self.received.lock().unwrap();
        all.iter().filter(|r| r.body.contains(&format!("<{method} "))).cloned().collect()
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    log: &Mutex<Vec<Received>>,
    answer: &(impl Fn(&Received) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = Vec::new();
    loop {
        let Some(received) = read_request(&mut stream, &mut buffer).await? else { return Ok(()) };
        log.lock().unwrap().push(received.clone());
        match answer(&received) {
            Answer::Http(status, head, body) => {
                let length = body.len();
                let reply = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{head}\r\n{body}");
                stream.write_all(reply.as_bytes()).await?;
            }
            Answer::CutInTheMiddle => {
                return stream.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n<half").await;
            }
        }
        stream.flush().await?;
    }
}

async fn read_request(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Received>> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let request = Received { head: head.to_owned(), body: String::new() };
            let length = request.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
            if rest.len() >= length {
                *buffer = rest.as_bytes()[length..].to_vec();
                return Ok(Some(Received { body: rest[..length].to_owned(), ..request }));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
