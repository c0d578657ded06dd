//! Folders with a server's socket whose process was killed: nobody listens there any more. Removes nothing.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A younger folder may belong to a process that does not listen yet.
const MIN_AGE: Duration = Duration::from_secs(60);

/// Whether a folder is older than a minute and its socket refuses whoever connects. `connect` connects to it.
pub fn is_abandoned(folder: &Path, connect: impl FnOnce() -> io::Result<UnixStream>) -> bool {
    let age = folder.metadata().and_then(|data| data.modified()).map(|time| time.elapsed().unwrap_or_default());
    let dead = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    age.is_ok_and(|age| age > MIN_AGE) && connect().is_err_and(dead)
}
