//! What `tests/fuzz` reaches of the private parts of this crate. Built for it alone.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use crate::memory::Memory;
use crate::server::{ServeOptions, serve_one};
use crate::{Client, ConnectOptions, Error, Fua, Zeroes};

/// Length of a request's header, and where its cookie is.
const REQUEST: usize = 28;
const COOKIE: std::ops::Range<usize> = 8..16;
/// What a request carries behind its header: the one write below.
const PAYLOAD: usize = 512;
/// A server that says nothing more is left after so long, as users leave one after minutes; what never ends is a hang.
const PATIENCE: Duration = Duration::from_millis(20);
/// More is not believed of a disk here: every byte of a read is memory.
const MOST: u64 = 64 << 10;

/// Talks to a server that agrees with these words and answers requests with those pieces: each piece is sent with the cookie of the
/// request at hand, where a reply has it; one whose first byte is odd is followed by the next for the same request.
pub async fn client(agrees: &[u8], pieces: &[&[u8]]) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(ours);
    let (agrees, pieces) = (agrees.to_vec(), pieces.iter().map(|piece| piece.to_vec()).collect::<Vec<_>>());
    let answering = tokio::spawn(answer(theirs, agrees, pieces));
    let halves = (Box::new(reader) as _, Box::new(writer) as _);
    let options = ConnectOptions { connect_deadline: PATIENCE, request_deadline: PATIENCE };
    let agreeing = Client::over(halves, "fuzz".to_owned(), "disk", options);
    if let Ok(Ok(client)) = tokio::time::timeout(PATIENCE, agreeing).await {
        let _ = ask(&client).await;
    }
    answering.abort();
}

async fn ask(client: &Client) -> Result<(), Error> {
    let block = u64::from(client.minimum_block()).max(512);
    let length = client.size().min(MOST) / block * block;
    let length_of_read = usize::try_from(length).expect("no more than MOST");
    if client.can_block_status() {
        let told = client.block_status(0, length).await?;
        let end = told.iter().fold(0, |end, part| {
            assert_eq!(part.range.offset, end, "a gap in {told:?}");
            part.range.end()
        });
        assert!((length == 0 || end > 0) && end <= length, "{told:?} of {length}");
    }
    let read = client.read(0, length_of_read).await?;
    assert_eq!(read.len(), length_of_read);
    client.write(0, Bytes::from(vec![7; PAYLOAD]), Fua::No).await?;
    client.write_zeroes(0, length, Zeroes::MayTrim, Fua::No).await?;
    client.flush().await
}

/// Size of the disk that is served, in bytes: what is written to it is memory.
const SERVED: u64 = 1 << 20;
/// A connection whose client has said all and left ends within so long.
const LEFT: Duration = Duration::from_secs(5);

/// Serves a disk to a client that says these words from the first byte on, whatever it is answered, and leaves.
pub async fn server(says: &[u8]) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(ours);
    let options = ServeOptions { memory_per_connection: 4 << 20, handshake_deadline: LEFT, ..ServeOptions::default() };
    let serving = tokio::spawn(serve_one((Box::new(reader), Box::new(writer)), Arc::new(Memory::new(SERVED)), options));
    let (mut hears, mut tells) = tokio::io::split(theirs);
    let hearing = tokio::spawn(async move { tokio::io::copy(&mut hears, &mut tokio::io::sink()).await });
    let _ = tells.write_all(says).await; // it may have been shown the door
    let _ = tells.shutdown().await;
    let ended = tokio::time::timeout(LEFT, serving).await.expect("a connection ends with its client");
    ended.expect("a connection does not panic");
    hearing.abort();
}

async fn answer(mut connection: DuplexStream, agrees: Vec<u8>, pieces: Vec<Vec<u8>>) -> std::io::Result<()> {
    connection.write_all(&agrees).await?;
    let mut pieces = pieces.into_iter();
    // what the client says while it agrees comes first, of a length that only a server would know
    let mut heard = Vec::new();
    loop {
        let header = loop {
            let begin = heard.windows(4).position(|word| word == [0x25, 0x60, 0x95, 0x13]);
            if let Some(begin) = begin
                && heard.len() >= begin + REQUEST
            {
                break heard.drain(..begin + REQUEST).skip(begin).collect::<Vec<u8>>();
            }
            if connection.read_buf(&mut heard).await? == 0 {
                return Ok(());
            }
        };
        loop {
            let Some(mut piece) = pieces.next() else { return Ok(()) };
            let goes_on = piece.first().is_some_and(|first| first % 2 == 1);
            piece = piece.split_off(1.min(piece.len()));
            if let Some(cookie) = piece.get_mut(COOKIE) {
                cookie.copy_from_slice(&header[COOKIE]);
            }
            connection.write_all(&piece).await?;
            if !goes_on {
                break;
            }
        }
    }
}
