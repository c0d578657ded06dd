//! A line to an S3 server on which things go wrong as a test says: a proxy that answers itself, breaks off, or loses what it
//! was given.
//!
//! Each connection carries one request, so that what breaks is that one and no other.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The server is not asked; this status and S3's code for it are the answer.
    Answer(u16, &'static str),
    /// The connection is reset when half of what the client sends has come.
    ResetRequest,
    /// The server has done it, and the connection is reset instead of an answer.
    LoseAnswer,
    /// The connection is reset in the middle of the answer.
    ResetAnswer,
    /// The connection ends in order in the middle of the answer.
    CutAnswer,
    /// Half of the answer's body comes, and then nothing more on a connection that stays open.
    StallAnswer,
    /// The client hears that its object is stored, and the server never hears of it.
    LoseObject,
}

/// Which requests meet trouble.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    trouble: Trouble,
    method: &'static str,
    part: String,
    carrying: Option<&'static str>,
    passing: usize,
    times: usize,
    first_tries_only: bool,
    then_everything: bool,
}

impl Rule {
    /// All of them.
    pub(crate) fn always(trouble: Trouble) -> Self {
        Self {
            trouble,
            method: "",
            part: String::new(),
            carrying: None,
            passing: 0,
            times: usize::MAX,
            first_tries_only: false,
            then_everything: false,
        }
    }

    /// Only those with this method and `part` in what they ask for.
    pub(crate) fn of(self, method: &'static str, part: impl Into<String>) -> Self {
        Self { method, part: part.into(), ..self }
    }

    /// Only those with this header.
    #[allow(dead_code)] // not every user of this file asks for that
    pub(crate) fn carrying(self, header: &'static str) -> Self {
        Self { carrying: Some(header), ..self }
    }

    /// Not the first `passing` of them.
    pub(crate) fn after(self, passing: usize) -> Self {
        Self { passing, ..self }
    }

    /// Only one of them.
    pub(crate) fn once(self) -> Self {
        Self { times: 1, ..self }
    }

    /// Each of them when it comes for the first time.
    pub(crate) fn first_tries_only(self) -> Self {
        Self { first_tries_only: true, ..self }
    }

    /// And everything else from then on.
    pub(crate) fn then_everything(self) -> Self {
        Self { then_everything: true, ..self }
    }

    fn strikes(&mut self, request: &Request, head: &str, is_first_try: bool) -> bool {
        if self.times == 0 || !request.is(self.method, &self.part) || self.first_tries_only && !is_first_try {
            return false;
        }
        if self.carrying.is_some_and(|name| header(head, name).is_none()) {
            return false;
        }
        if self.passing > 0 {
            self.passing -= 1;
            return false;
        }
        self.times -= 1;
        if self.then_everything {
            (self.method, self.part, self.carrying) = ("", String::new(), None);
        }
        true
    }
}

/// What is asked: `PUT /bucket/key`, and which bytes of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Request {
    line: String,
    range: Option<String>,
}

impl Request {
    fn is(&self, method: &str, part: &str) -> bool {
        self.line.starts_with(method) && self.line.contains(part)
    }
}

/// Requests that go on only once so many of them have waited at the same time.
#[derive(Debug, Clone)]
struct Gate {
    method: &'static str,
    part: String,
    waiting: watch::Sender<usize>,
    at_once: usize,
}

impl Gate {
    /// Returns once it is open; it stays so.
    async fn pass(&self) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let opened = self.waiting.subscribe().wait_for(|waiting| *waiting >= self.at_once).await.map(drop);
        opened.expect("it is held here");
    }
}

#[derive(Debug, Default)]
struct Told {
    rules: Vec<Rule>,
    gate: Option<Gate>,
    /// How often each request came, and how often it met trouble.
    seen: HashMap<Request, (usize, usize)>,
    /// The heads of the server's own answers, in order.
    answers: Vec<(Request, String)>,
}

/// A running line; ends with its value.
pub(crate) struct Line {
    address: String,
    told: Arc<Mutex<Told>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Line {
    /// To the server at `host:port`, without trouble so far.
    pub(crate) async fn to(server: &str) -> Self {
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let told: Arc<Mutex<Told>> = Arc::default();
        let shared = told.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, told) = (server.clone(), shared.clone());
                tokio::spawn(async move { serve(client, &server, &told).await }); // an end that goes early is its own affair
            }
        });
        Self { address, told, accepting }
    }

    /// Where clients find it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has things go wrong.
    pub(crate) fn trouble(&self, rule: Rule) {
        self.told().rules.push(rule);
    }

    /// Holds requests of this kind back until `at_once` of them wait at the same time: who asks one after the other waits for ever.
    #[allow(dead_code)] // not every user of this file asks for that
    pub(crate) fn hold_until(&self, at_once: usize, method: &'static str, part: impl Into<String>) {
        self.told().gate = Some(Gate { method, part: part.into(), waiting: watch::Sender::new(0), at_once });
    }

    /// Forgets all rules and all that was seen.
    pub(crate) fn heal(&self) {
        *self.told() = Told::default();
    }

    /// What the server's own answers to requests of this kind say in that header, in order; of one that lacks it, nothing.
    #[allow(dead_code)] // not every user of this file asks for that
    pub(crate) fn answered(&self, method: &str, part: &str, name: &str) -> Vec<Option<String>> {
        let told = self.told();
        let answers = told.answers.iter().filter(|(request, _)| request.is(method, part));
        answers.map(|(_, head)| header(head, name)).collect()
    }

    /// For each different request of this kind how often it came, the most first.
    pub(crate) fn tries(&self, method: &str, part: &str) -> Vec<usize> {
        let mut tries: Vec<_> = self.seen(method, part).into_iter().map(|(came, _)| came).collect();
        tries.sort_unstable_by(|a, b| b.cmp(a));
        tries
    }

    /// How many different requests of this kind met trouble.
    pub(crate) fn struck(&self, method: &str, part: &str) -> usize {
        self.seen(method, part).into_iter().filter(|(_, struck)| *struck > 0).count()
    }

    fn seen(&self, method: &str, part: &str) -> Vec<(usize, usize)> {
        self.told().seen.iter().filter(|(request, _)| request.is(method, part)).map(|(_, counts)| *counts).collect()
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn meets(told: &Mutex<Told>, request: Request, head: &str) -> Option<Trouble> {
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let Told { rules, seen, .. } = &mut *told;
    let counts = seen.entry(request.clone()).or_default();
    counts.0 += 1;
    let is_first_try = counts.0 == 1;
    let trouble = rules.iter_mut().find_map(|rule| rule.strikes(&request, head, is_first_try).then_some(rule.trouble));
    counts.1 += usize::from(trouble.is_some());
    trouble
}

async fn serve(mut client: TcpStream, server: &str, told: &Mutex<Told>) -> io::Result<()> {
    let mut sent = Vec::new();
    let head = loop {
        if let Some(at) = sent.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) {
            break String::from_utf8_lossy(&sent[..at]).into_owned();
        }
        if client.read_buf(&mut sent).await? == 0 {
            return Ok(());
        }
    };
    let body_at = head.len() + END_OF_HEAD.len();
    let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let request = Request { line, range: header(&head, "range") };
    let gate = told.lock().unwrap_or_else(PoisonError::into_inner).gate.clone();
    if let Some(gate) = gate.filter(|gate| request.is(gate.method, &gate.part)) {
        gate.pass().await;
    }
    let trouble = meets(told, request.clone(), &head);
    let wanted = if trouble == Some(Trouble::ResetRequest) { length / 2 } else { length };
    while sent.len() < body_at + wanted {
        if client.read_buf(&mut sent).await? == 0 {
            return Ok(());
        }
    }
    let answer = match trouble {
        Some(Trouble::ResetRequest) => return client.set_zero_linger(), // then it is dropped
        Some(Trouble::Answer(status, code)) => answer(status, code, head.starts_with("HEAD ")),
        Some(Trouble::LoseObject) => answer(200, "", true),
        _ => {
            let answer = ask(server, &head, &sent[body_at..]).await?;
            let end = answer.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD);
            let said = String::from_utf8_lossy(&answer[..end.unwrap_or(answer.len())]).into_owned();
            told.lock().unwrap_or_else(PoisonError::into_inner).answers.push((request, said));
            answer
        }
    };
    match trouble {
        Some(Trouble::LoseAnswer) => client.set_zero_linger(),
        Some(Trouble::ResetAnswer) => {
            client.write_all(half(&answer)).await?;
            client.set_zero_linger()
        }
        Some(Trouble::StallAnswer) => {
            client.write_all(half(&answer)).await?;
            while client.read(&mut [0; 64]).await? > 0 {} // until the client has had enough of it
            Ok(())
        }
        Some(Trouble::CutAnswer) => {
            client.write_all(half(&answer)).await?;
            client.shutdown().await
        }
        _ => {
            client.write_all(&answer).await?;
            client.shutdown().await
        }
    }
}

fn header(head: &str, name: &str) -> Option<String> {
    let mut all = head.lines().filter_map(|line| line.split_once(':'));
    all.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

/// The server's answer to one request, whole.
async fn ask(server: &str, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(server).await?;
    server.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    server.write_all(body).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}

/// An answer of our own.
fn answer(status: u16, code: &str, without_body: bool) -> Vec<u8> {
    let body = format!("<Error><Code>{code}</Code><Message>on purpose</Message></Error>");
    let body = if without_body { "" } else { &body };
    let length = body.len();
    format!("HTTP/1.1 {status} As Told\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

/// To the middle of its body; of its head where it has none.
fn half(answer: &[u8]) -> &[u8] {
    let body = answer.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD);
    let body = body.map_or(answer.len(), |at| at + END_OF_HEAD.len());
    let end = if body < answer.len() { body + (answer.len() - body) / 2 } else { answer.len() / 2 };
    &answer[..end]
}
