//! Addresses of Unix sockets below folders of any path. An address holds 107 bytes (`sun_path`, unix(7)); a longer path is
//! replaced by one through the folder, held open.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// Longest address in bytes.
const LONGEST: usize = 107;

/// A socket by an address that fits. Good for this process, as long as it is kept.
#[derive(Debug)]
pub struct Address {
    path: PathBuf,
    _folder: Option<File>,
}

impl Address {
    /// The address of `socket`, which need not exist.
    ///
    /// # Errors
    /// Its folder cannot be opened, or `socket` names no file.
    pub fn of(socket: &Path) -> io::Result<Self> {
        if socket.as_os_str().len() <= LONGEST {
            return Ok(Self { path: socket.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket has a folder and a name"));
        };
        let folder = File::open(folder)?;
        let path = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }

    /// What to bind or to connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops at the first surprise

    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn a_folder_of_any_length_holds_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(100)).join("y".repeat(200));
        std::fs::create_dir_all(&deep).unwrap();
        for socket in [folder.path().join("short"), deep.join("long")] {
            let served = UnixListener::bind(Address::of(&socket).unwrap().path()).unwrap();
            assert!(socket.exists(), "{}", socket.display());
            UnixStream::connect(Address::of(&socket).unwrap().path()).unwrap();
            drop(served);
        }
    }
}
