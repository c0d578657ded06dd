//! Opens sources and targets. The engine speaks NBD only, so a file is served by ourselves, on a socket in a folder that
//! only we may enter.

use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use data_path::{Disk, TargetContent};
use nbd::file::{Access, RawFile};
use nbd::{ConnectOptions, Errno, Export, Uri};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::failure::{Refused, exit};
use crate::leftovers;
use crate::partial::Partial;
use crate::place::Place;

/// A disk that is open for a transfer.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) disk: Disk,
    /// Ends our own server, if there is one.
    _server: Option<Server>,
}

/// Opens a disk to be read.
pub(crate) async fn open_source(place: &Place) -> Result<Opened> {
    let opened = match place {
        Place::File(path) => serve(path, Access::Read).await,
        Place::Nbd(uri) => connect(uri).await,
    };
    let opened = opened.with_context(|| format!("open {place}"))?;
    if opened.disk.size() == 0 {
        return Err(
            Refused::new(format!("open {place}: it holds not a single byte"), "give a disk that is not empty").into()
        );
    }
    Ok(opened)
}

async fn connect(uri: &Uri) -> Result<Opened> {
    Ok(Opened { disk: Disk::connect(uri, ConnectOptions::default()).await?, _server: None })
}

/// Our server of one file. Dropped, it stops and its folder goes.
#[derive(Debug)]
struct Server {
    _stop: DropGuard,
    _folder: tempfile::TempDir,
}

async fn serve(path: &Path, access: Access) -> Result<Opened> {
    let refused = |cause: io::Error| {
        Refused::new(format!("use it as a disk: {cause}"), "give a raw file, a block device, or an NBD URI that exists")
    };
    let export = RawFile::open(path, access).map_err(refused)?;
    if export.size() == 0 {
        return Err(Refused::new("it holds not a single byte", "give a disk that is not empty").into());
    }
    leftovers::sweep(&std::env::temp_dir());
    let folder = tempfile::Builder::new().prefix(leftovers::PREFIX).tempdir().context("make a folder for a socket")?;
    let socket = folder.path().join(leftovers::SOCKET);
    let listener = tokio::net::UnixListener::bind(&socket).context("listen on a private socket")?;
    let stop = CancellationToken::new();
    tokio::spawn(nbd::server::serve(listener, Arc::new(export), "", stop.clone()));
    let disk = Disk::connect(&Uri::unix(&socket, ""), ConnectOptions::default()).await?;
    Ok(Opened { disk, _server: Some(Server { _stop: stop.drop_guard(), _folder: folder }) })
}

/// A target that may be written now.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) opened: Opened,
    pub(crate) content: TargetContent,
    /// The file that is made for it.
    pub(crate) made: Option<Partial>,
}

/// A failed transfer as the disk's user knows the disk: a file has no server and no socket.
pub(crate) fn told(place: &Place, error: data_path::Error) -> anyhow::Error {
    use data_path::Error::{BlockStatus, Close, Flush, Read, Write};
    let Place::File(_) = place else { return error.into() };
    let (act, source) = match &error {
        Read { range, source } => (format!("read {} bytes at {}", range.length, range.offset), source),
        Write { range, source } => (format!("write {} bytes at {}", range.length, range.offset), source),
        BlockStatus { range, source } => (format!("find the holes from {} on", range.offset), source),
        Flush { source } | Close { source } => ("flush it".to_owned(), source),
        _ => return error.into(),
    };
    let nbd::Error::Request { errno, message, .. } = source else { return error.into() };
    let cause = if message.is_empty() { errno.to_string() } else { message.clone() };
    let fix = match errno {
        Errno::NoSpace => "free space where the file lies, then start again",
        _ => "look at the disk that the file is on, and at the system's log, then start again",
    };
    Refused { message: format!("{act}: {cause}"), fix: fix.into(), code: exit::FAILED }.into()
}

/// Opens a disk to be overwritten with `size` bytes; makes a raw file that is missing. Refuses what the user has not
/// allowed.
pub(crate) async fn open_target(place: &Place, size: u64, force: bool) -> Result<Target> {
    match place {
        Place::File(path) => file_target(path, size, force).await,
        Place::Nbd(uri) => nbd_target(uri, force).await,
    }
    .with_context(|| format!("open {place} for writing"))
}

async fn file_target(path: &Path, size: u64, force: bool) -> Result<Target> {
    match std::fs::metadata(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => return new_file(path, size, force).await,
        Err(cause) => return Err(cause.into()),
        Ok(known) if known.is_dir() => {
            return Err(Refused::new("it is a folder", "name a file in it, which may be missing").into());
        }
        Ok(known) if !known.is_file() && !known.file_type().is_block_device() => {
            let message = "it is neither a file nor a block device";
            return Err(Refused::new(message, "name a raw file, a block device, or an NBD URI").into());
        }
        Ok(known) if known.is_file() && known.len() != size => {
            let message = format!("it has {} bytes and the restore point {size}", known.len());
            return Err(Refused::new(message, "remove the file, or name one that does not exist").into());
        }
        Ok(_) => {}
    }
    if !force {
        return Err(Refused::new("it exists", "add --force to overwrite it").into());
    }
    Ok(Target { opened: serve(path, Access::Write).await?, content: TargetContent::Unknown, made: None })
}

async fn new_file(path: &Path, size: u64, force: bool) -> Result<Target> {
    let partial = Partial::make(path, size, force)?;
    let opened = serve(&partial.path_to_write(), Access::Write).await?;
    Ok(Target { opened, content: TargetContent::KnownZero, made: Some(partial) })
}

async fn nbd_target(uri: &Uri, force: bool) -> Result<Target> {
    let opened = connect(uri).await?;
    if opened.disk.read_only() {
        return Err(Refused::new("its server refuses writes", "start the server without its read-only option").into());
    }
    let content = match opened.disk.holds_data().await? {
        Some(false) => TargetContent::KnownZero,
        Some(true) if !force => {
            return Err(Refused::new("it holds data", "add --force to overwrite it").into());
        }
        None if !force => {
            let message = "its server does not say whether it holds data";
            return Err(Refused::new(message, "add --force to overwrite what may be there").into());
        }
        Some(true) | None => TargetContent::Unknown,
    };
    Ok(Target { opened, content, made: None })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_told_of_once_and_without_a_server() {
        let error = || data_path::Error::Read {
            range: disk::ByteRange::new(4096, 512),
            source: nbd::Error::Request {
                server: "nbd+unix:///?socket=/tmp/vsphere-backup-x/disk.sock".to_owned(),
                request: "read 512 bytes at 4096".to_owned(),
                errno: Errno::Io,
                message: "Input/output error (os error 5)".to_owned(),
            },
        };
        let file = told(&"disk.raw".parse().unwrap(), error());
        assert_eq!(format!("{file:#}"), "read 512 bytes at 4096: Input/output error (os error 5)");
        let server = told(&"nbd://10.0.0.1/disk".parse().unwrap(), error());
        assert!(format!("{server:#}").contains("on NBD server"), "{server:#}");
    }
}
