//! One connection in the transmission phase: a task that writes requests, a task that reads replies, and the table of
//! requests that wait for theirs.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::assembly::{Answer, Assembly};
use crate::error::Error;
use crate::stream::{WriteHalf, write_all_vectored};
use crate::wire::request::{Command, REQUEST_LENGTH, Request};

/// Requests that may wait for the writer; more make their callers wait.
pub(crate) const QUEUE: usize = 64;
/// Slices per system call; the kernel takes 1024 at most.
const BATCH: usize = 64;
/// How long a server may take to close after we said goodbye.
const GOODBYE: Duration = Duration::from_secs(5);
/// A request may wait this many deadlines while the server answers others.
const PATIENCE: u32 = 4;

/// A request on its way out.
pub(crate) struct Outgoing {
    header: [u8; REQUEST_LENGTH],
    payload: Bytes,
    last: bool,
}

struct Waiting {
    assembly: Assembly,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

#[derive(Default)]
struct Table {
    next_cookie: u64,
    waiting: HashMap<u64, Waiting>,
    /// Why the connection is dead; then nothing new is registered.
    dead: Option<Error>,
}

/// What callers, writer and reader share.
pub(crate) struct Shared {
    pub(crate) server: String,
    pub(crate) status_context: Option<u32>,
    pub(crate) structured: bool,
    table: Mutex<Table>,
    started: Instant,
    /// Milliseconds after `started` when the server was last heard.
    heard: AtomicU64,
    /// Cancelled when the connection is dead, which ends both tasks.
    pub(crate) dead: CancellationToken,
}

impl Shared {
    pub(crate) fn new(server: String, structured: bool, status_context: Option<u32>) -> Self {
        Self {
            server,
            status_context,
            structured,
            table: Mutex::default(),
            started: Instant::now(),
            heard: AtomicU64::new(0),
            dead: CancellationToken::new(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("no code panics while it holds the table")
    }

    /// The connection is dead, and everyone who waits learns why. Only the first cause counts.
    pub(crate) fn fail(&self, error: Error) {
        let orphans = {
            let mut table = self.table();
            table.dead.get_or_insert_with(|| error.clone());
            std::mem::take(&mut table.waiting)
        };
        for (_, orphan) in orphans {
            let _ = orphan.answer.send(Err(error.clone()));
        }
        self.dead.cancel();
    }

    /// Why the connection is dead, or at least that it is.
    pub(crate) fn cause(&self) -> Error {
        let known = self.table().dead.clone();
        known.unwrap_or_else(|| self.lost(io::ErrorKind::BrokenPipe.into()))
    }

    pub(crate) fn lost(&self, error: io::Error) -> Error {
        Error::Lost { server: self.server.clone(), source: Arc::new(error) }
    }

    pub(crate) fn broken(&self, problem: impl Into<String>) -> Error {
        Error::Protocol { server: self.server.clone(), problem: problem.into() }
    }

    /// The server has just said something.
    pub(crate) fn hear(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).expect("584 million years");
        self.heard.store(millis, Ordering::Relaxed);
    }

    fn last_heard(&self) -> Instant {
        self.started + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    fn register(&self, mut request: Request) -> Result<(Request, oneshot::Receiver<Result<Answer, Error>>), Error> {
        let (answer, receiver) = oneshot::channel();
        let mut table = self.table();
        if let Some(error) = &table.dead {
            return Err(error.clone());
        }
        request.cookie = table.next_cookie;
        table.next_cookie += 1;
        table.waiting.insert(request.cookie, Waiting { assembly: Assembly::new(request), answer });
        Ok((request, receiver))
    }

    /// Takes a request out of the table while its chunk is read.
    pub(crate) fn take(&self, cookie: u64) -> Result<Pending<'_>, Error> {
        let waiting = self.table().waiting.remove(&cookie);
        let waiting = waiting.ok_or_else(|| self.broken(format!("a reply to unknown request {cookie}")))?;
        Ok(Pending { shared: self, waiting })
    }

    /// Sends one request and waits for its answer, at most for the deadline.
    pub(crate) async fn exchange(
        &self,
        outgoing: &mpsc::Sender<Outgoing>,
        request: Request,
        payload: Bytes,
        deadline: Duration,
    ) -> Result<Answer, Error> {
        let sent = Instant::now();
        let exchange = async {
            // room first: a caller that gives up while it waits leaves no entry in the table
            let answer = match outgoing.reserve().await {
                Ok(room) => {
                    let (request, receiver) = self.register(request)?;
                    room.send(Outgoing { header: request.encode(), payload, last: false });
                    receiver.await.ok()
                }
                Err(_) => None,
            };
            match answer {
                Some(answer) => answer,
                None => {
                    // the task that dropped our request is about to say why
                    self.dead.cancelled().await;
                    Err(self.cause())
                }
            }
        };
        tokio::pin!(exchange);
        loop {
            // a busy server that answers others first is not silent
            let due = (self.last_heard().max(sent) + deadline).min(sent + deadline * PATIENCE);
            if let Ok(answer) = tokio::time::timeout_at(due, &mut exchange).await {
                return answer;
            }
            let now = Instant::now();
            if self.last_heard().max(sent) + deadline <= now || sent + deadline * PATIENCE <= now {
                let error = Error::Silent { server: self.server.clone(), request: request.to_string(), deadline };
                self.fail(error.clone());
                return Err(error);
            }
        }
    }
}

/// A request whose answer is being read.
pub(crate) struct Pending<'a> {
    shared: &'a Shared,
    waiting: Waiting,
}

impl Pending<'_> {
    pub(crate) fn assembly(&mut self) -> &mut Assembly {
        &mut self.waiting.assembly
    }

    /// More chunks will come.
    pub(crate) fn put_back(self) {
        let cookie = self.waiting.assembly.request.cookie;
        let mut table = self.shared.table();
        // when dead, dropping the sender tells the caller
        if table.dead.is_none() {
            table.waiting.insert(cookie, self.waiting);
        }
    }

    /// That was the last chunk.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let request = self.waiting.assembly.request;
        let server = &self.shared.server;
        let answer = match self.waiting.assembly.finish() {
            Ok(answer) => Ok(answer),
            Err(Some(failure)) => Err(Error::Request {
                server: server.clone(),
                request: request.to_string(),
                errno: failure.errno,
                message: failure.message,
            }),
            Err(None) => {
                let error = self.shared.broken(format!("an incomplete answer to `{request}`"));
                let _ = self.waiting.answer.send(Err(error.clone()));
                return Err(error);
            }
        };
        // nobody listens when the caller gave up, which is its right
        let _ = self.waiting.answer.send(answer);
        Ok(())
    }
}

/// The goodbye, to be sent after everything that is queued.
pub(crate) fn goodbye() -> Outgoing {
    let request = Request { flags: 0, command: Command::Disconnect, cookie: u64::MAX, offset: 0, length: 0 };
    Outgoing { header: request.encode(), payload: Bytes::new(), last: true }
}

/// Writes requests until the last client is dropped, says goodbye, and sees to it that the connection ends.
pub(crate) async fn write_requests(mut writer: WriteHalf, mut queue: mpsc::Receiver<Outgoing>, shared: Arc<Shared>) {
    let written = tokio::select! {
        () = shared.dead.cancelled() => return,
        written = write_queue(&mut writer, &mut queue) => written,
    };
    drop(queue);
    if let Err(error) = written {
        // the reader may know better: a server says why before it closes
        let _ = tokio::time::timeout(GOODBYE, shared.dead.cancelled()).await;
        shared.fail(shared.lost(error));
        return;
    }
    let _ = writer.shutdown().await;
    if tokio::time::timeout(GOODBYE, shared.dead.cancelled()).await.is_err() {
        shared.fail(shared.lost(io::ErrorKind::TimedOut.into()));
    }
}

async fn write_queue(writer: &mut WriteHalf, queue: &mut mpsc::Receiver<Outgoing>) -> io::Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if queue.recv_many(&mut batch, BATCH).await == 0 {
            batch.push(goodbye());
        }
        let last = batch.iter().position(|outgoing| outgoing.last);
        if let Some(last) = last {
            batch.truncate(last + 1);
        }
        let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(batch.len() * 2);
        for outgoing in &batch {
            slices.push(IoSlice::new(&outgoing.header));
            slices.push(IoSlice::new(&outgoing.payload));
        }
        write_all_vectored(writer, &mut slices).await?;
        if last.is_some() {
            return Ok(());
        }
        batch.clear();
    }
}
