//! One disk behind one or two NBD connections. Adds to the client what a transfer needs: several connections where the
//! server allows them, block status of a whole range, errors that name the range. Retries nothing but what [`Retreat`] does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use disk::{ByteRange, Ranges};
use nbd::{ConnectOptions, Fua, Kind, Uri, Zeroes};

use crate::error::Error;
use crate::limits::CONNECTIONS;
use crate::retreat::Retreat;
use crate::throttle::Throttle;

/// A second connection is a gift: not worth a long wait.
const SECOND_CONNECTION: Duration = Duration::from_secs(2);

/// A disk that is open. After writing, [`Disk::flush_and_close`] says whether it really was written.
#[derive(Debug)]
pub struct Disk {
    connections: Vec<nbd::Client>,
    next: AtomicUsize,
    throttle: Option<Arc<Throttle>>,
    retreat: Retreat,
}

impl From<nbd::Client> for Disk {
    fn from(client: nbd::Client) -> Self {
        Self { connections: vec![client], next: AtomicUsize::new(0), throttle: None, retreat: Retreat::default() }
    }
}

impl Disk {
    /// Connects, a second time where the server offers it.
    pub async fn connect(uri: &Uri, options: ConnectOptions) -> Result<Self, Error> {
        let first = nbd::Client::connect(uri, options).await.map_err(|source| Error::Connect { source })?;
        let more = first.can_multi_conn();
        let mut disk = Self::from(first);
        let hurried = ConnectOptions { connect_deadline: options.connect_deadline.min(SECOND_CONNECTION), ..options };
        while more && disk.connections.len() < CONNECTIONS {
            match nbd::Client::connect(uri, hurried).await {
                Ok(client) => disk.connections.push(client),
                Err(error) => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::debug!(%uri, error, "going on with one connection");
                    break;
                }
            }
        }
        Ok(disk)
    }

    /// Reads and writes no faster than `throttle` allows.
    pub fn throttled(self, throttle: Arc<Throttle>) -> Self {
        Self { throttle: Some(throttle), ..self }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.first().size()
    }

    /// Whether the server refuses writes.
    pub fn read_only(&self) -> bool {
        self.first().read_only()
    }

    /// Whether the server says that any part of it holds data; `None` when it does not know.
    pub async fn holds_data(&self) -> Result<Option<bool>, Error> {
        if !self.first().can_block_status() {
            return Ok(None);
        }
        for window in crate::select::windows(self.size(), crate::limits::WINDOW_BYTES) {
            if !self.data_in(window).await?.is_empty() {
                return Ok(Some(true));
            }
        }
        Ok(Some(false))
    }

    /// The parts of `range` that may hold something else than zeroes; all of it where the server does not know.
    pub(crate) async fn data_in(&self, range: ByteRange) -> Result<Ranges, Error> {
        let mut data = Ranges::new();
        let mut at = range.offset;
        while at < range.end() {
            let rest = ByteRange::between(at, range.end());
            let answer = self.any().block_status(rest.offset, rest.length).await;
            let extents = answer.map_err(|source| Error::BlockStatus { range: rest, source })?;
            for extent in &extents {
                at = extent.range.end();
                if extent.kind == Kind::Data {
                    data.insert(extent.range);
                }
            }
            if at <= rest.offset {
                return Err(Error::NoExtents { range: rest });
            }
        }
        Ok(data)
    }

    pub(crate) async fn read(&self, range: ByteRange) -> Result<Bytes, Error> {
        let length = usize::try_from(range.length).expect("reads are a few MiB");
        self.may_move(range.length).await;
        let read = self.retreat.send(|| self.any().read(range.offset, length)).await;
        read.map_err(|source| Error::Read { range, source })
    }

    /// Writes `data` at `offset`; fills up with zeroes to the server's smallest block where the disk goes on.
    pub(crate) async fn write(&self, offset: u64, data: Bytes) -> Result<(), Error> {
        let data = self.padded(offset, data);
        self.may_move(data.len() as u64).await;
        let range = ByteRange::new(offset, data.len() as u64);
        let written = self.retreat.send(|| self.any().write(offset, data.clone(), Fua::No)).await;
        written.map_err(|source| Error::Write { range, source })
    }

    /// Makes `range` read as zeroes, as holes where the server can.
    pub(crate) async fn zero(&self, range: ByteRange) -> Result<(), Error> {
        let grain = u64::from(self.first().minimum_block());
        let range = ByteRange::between(range.offset, range.end().next_multiple_of(grain).min(self.size()));
        if self.first().can_write_zeroes() {
            let zero = || self.any().write_zeroes(range.offset, range.length, Zeroes::MayTrim, Fua::No);
            let done = self.retreat.send(zero).await;
            return done.map_err(|source| Error::Write { range, source });
        }
        for part in crate::select::windows(range.length, crate::limits::READ_BYTES) {
            let zeroes = Bytes::from(vec![0; usize::try_from(part.length).expect("a part is at most 1 MiB")]);
            self.write(range.offset + part.offset, zeroes).await?;
        }
        Ok(())
    }

    /// Makes everything stable whose write was answered. What a flush that failed was for may be lost, whatever a later one
    /// says.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        // every connection: a server that offers several promises that one flush covers all, and some forget
        for connection in &self.connections {
            connection.flush().await.map_err(|source| Error::Flush { source })?;
        }
        Ok(())
    }

    /// Makes everything written stable, then closes. Only after this a restore has happened.
    pub async fn flush_and_close(self) -> Result<(), Error> {
        self.flush().await?;
        self.close().await
    }

    /// Says goodbye on every connection and waits for the server.
    pub async fn close(self) -> Result<(), Error> {
        for connection in self.connections {
            if connection.is_dead() {
                return Err(Error::Gone);
            }
            connection.disconnect().await.map_err(|source| Error::Close { source })?;
        }
        Ok(())
    }

    async fn may_move(&self, bytes: u64) {
        if let Some(throttle) = &self.throttle {
            throttle.take(bytes).await;
        }
    }

    fn padded(&self, offset: u64, data: Bytes) -> Bytes {
        let end = offset + data.len() as u64;
        let grain = u64::from(self.first().minimum_block());
        let missing = end.next_multiple_of(grain).min(self.size()).saturating_sub(end);
        if missing == 0 {
            return data;
        }
        let mut longer = Vec::from(data);
        longer.resize(longer.len() + usize::try_from(missing).expect("less than a block"), 0);
        longer.into()
    }

    fn first(&self) -> &nbd::Client {
        self.connections.first().expect("a disk has at least one connection")
    }

    /// Spreads requests evenly.
    fn any(&self) -> &nbd::Client {
        &self.connections[self.next.fetch_add(1, Relaxed) % self.connections.len()]
    }
}
