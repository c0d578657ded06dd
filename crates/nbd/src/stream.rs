//! Sockets of both kinds, and writing many slices at once. Knows nothing of the protocol.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::uri::Address;

/// The half that is read from.
pub(crate) type ReadHalf = Box<dyn AsyncRead + Send + Unpin>;
/// The half that is written to; dropping it ends that direction.
pub(crate) type WriteHalf = Box<dyn AsyncWrite + Send + Unpin>;

/// What we ask the kernel to hold per direction, in bytes. It caps this at `net.core.wmem_max`; the default of a Unix
/// socket makes reader and writer take turns within one request of 1 MiB.
const SOCKET_BUFFER: usize = 4 << 20;

/// Connects to `address`.
pub(crate) async fn connect(address: &Address) -> io::Result<(ReadHalf, WriteHalf)> {
    match address {
        Address::Unix(path) => UnixStream::connect(path).await.map(split_unix),
        Address::Tcp { host, port } => TcpStream::connect((host.as_str(), *port)).await.map(split_tcp),
    }
}

/// The two halves of a Unix connection.
pub(crate) fn split_unix(stream: UnixStream) -> (ReadHalf, WriteHalf) {
    widen(&stream);
    let (reader, writer) = stream.into_split();
    (Box::new(reader), Box::new(writer))
}

/// The two halves of a TCP connection.
pub(crate) fn split_tcp(stream: TcpStream) -> (ReadHalf, WriteHalf) {
    // a request's header must not wait for the answer to the one before
    let _ = stream.set_nodelay(true);
    let (reader, writer) = stream.into_split();
    (Box::new(reader), Box::new(writer))
}

/// Only speed depends on it, so a refusal is nothing to report.
fn widen(socket: &impl AsFd) {
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, SOCKET_BUFFER);
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(socket, SOCKET_BUFFER);
}

/// Writes all of `slices`, in order, with as few system calls as the socket allows.
pub(crate) async fn write_all_vectored(writer: &mut WriteHalf, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    // empty slices at the front would look like a socket that takes nothing
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        let written = writer.write_vectored(slices).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut slices, written);
    }
    writer.flush().await
}
