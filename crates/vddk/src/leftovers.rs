//! Folders that a daemon and its helper left behind when both were killed.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use tracing::info;

use crate::address::Address;

/// How the private folders begin.
pub(crate) const PREFIX: &str = "vddk-";
/// The socket in such a folder.
pub(crate) const SOCKET: &str = "nbd.sock";

/// Removes private folders whose socket nobody serves. What cannot be removed is tried again with the next launch.
pub(crate) fn sweep(socket_dir: &Path) {
    let entries = fs::read_dir(socket_dir).into_iter().flatten().flatten();
    for folder in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let folder = folder.path();
        if nbd::is_abandoned(&folder, || UnixStream::connect(Address::of(&folder.join(SOCKET))?.path()))
            && fs::remove_dir_all(&folder).is_ok()
        {
            info!(folder = %folder.display(), "removed what a killed VDDK helper left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops at the first surprise

    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, SystemTime};

    #[test]
    fn only_folders_that_nobody_serves_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, age: u64| {
            let folder = dir.path().join(name);
            fs::create_dir(&folder).unwrap();
            let listener = UnixListener::bind(folder.join(SOCKET)).unwrap();
            File::open(&folder).unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            listener
        };
        drop(make("vddk-dead", 3600));
        drop(make("vddk-young", 1));
        drop(make("other", 3600));
        let _serving = make("vddk-serving", 3600);
        sweep(dir.path());
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other", "vddk-serving", "vddk-young"]);
    }
}
