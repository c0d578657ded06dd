//! The unix socket: a name of its own in a folder that both sides see, for our user alone, gone when we go.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::umask;

/// Longest path of a socket in bytes; the system's field has one more for its end.
const LONGEST: usize = 107;

/// No socket could be made.
#[derive(Debug, thiserror::Error)]
#[error("listen on a socket below {tried}")]
pub(super) struct SocketError {
    tried: String,
    source: std::io::Error,
}

/// A bound socket; its file goes with it.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens in the first of `PLUGIN_UNIX_SOCKET_DIR`, `TMPDIR` and `/tmp` where the name is not too long. Called before
    /// there are threads, since the mode is set through the process's umask.
    pub(super) fn bind(environment: impl Fn(&str) -> Option<String>) -> Result<Self, SocketError> {
        let name = format!("plugin-{}.sock", uuid::Uuid::new_v4().simple());
        let folders = [environment("PLUGIN_UNIX_SOCKET_DIR"), environment("TMPDIR"), Some("/tmp".to_owned())];
        let mut failed = None;
        for folder in folders.into_iter().flatten().filter(|f| !f.is_empty()) {
            match listen(&Path::new(&folder).join(&name)) {
                Ok(socket) => return Ok(socket),
                Err(source) => failed = Some(SocketError { tried: folder, source }),
            }
        }
        Err(failed.expect("/tmp is always tried"))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The listener, for the runtime to accept from.
    pub(super) fn listener(&self) -> std::io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path); // nothing is left to do about it
    }
}

fn listen(path: &Path) -> std::io::Result<Socket> {
    if path.as_os_str().as_bytes().len() > LONGEST {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidFilename, format!("longer than {LONGEST} bytes")));
    }
    let before = umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = UnixListener::bind(path);
    umask(before);
    Ok(Socket { listener: bound?, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn bind(variables: &[(&str, &Path)]) -> Socket {
        Socket::bind(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.display().to_string())).unwrap()
    }

    #[test]
    fn the_socket_is_ours_alone_and_goes_with_us() {
        let folder = tempfile::tempdir().unwrap();
        let socket = bind(&[("PLUGIN_UNIX_SOCKET_DIR", folder.path()), ("TMPDIR", Path::new("/nowhere"))]);
        let path = socket.path().to_owned();
        assert_eq!(path.parent(), Some(folder.path()));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_folder_that_is_too_deep_or_not_there_does_not_keep_us_from_starting() {
        let deep = PathBuf::from(format!("/tmp/{}", "d".repeat(120)));
        let folder = tempfile::tempdir().unwrap();
        let socket = bind(&[("PLUGIN_UNIX_SOCKET_DIR", &deep), ("TMPDIR", folder.path())]);
        assert_eq!(socket.path().parent(), Some(folder.path()));
        let socket = bind(&[("PLUGIN_UNIX_SOCKET_DIR", Path::new("")), ("TMPDIR", Path::new("/nowhere"))]);
        assert_eq!(socket.path().parent(), Some(Path::new("/tmp")));
        assert!(socket.path().as_os_str().len() <= LONGEST);
    }
}
