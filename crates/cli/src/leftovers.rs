//! Folders with a socket that our own killed processes left in the folder for temporary files.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use tracing::debug;

/// How the private folders begin.
pub(crate) const PREFIX: &str = "vsphere-backup-";
/// The socket in such a folder.
pub(crate) const SOCKET: &str = "disk.sock";

/// Removes this user's private folders whose socket nobody serves. What cannot be removed is tried again by the next one.
pub(crate) fn sweep(temporary: &Path) {
    let Ok(user) = fs::metadata("/proc/self").map(|me| me.uid()) else { return };
    let entries = fs::read_dir(temporary).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let ours = entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == user);
        let folder = entry.path();
        if ours && nbd::is_abandoned(&folder, || UnixStream::connect(folder.join(SOCKET))) && remove(&folder).is_ok() {
            debug!(folder = %folder.display(), "removed what a killed process left behind");
        }
    }
}

/// Only what we put there: a person's folder may begin like ours, and goes with nothing else in it.
fn remove(folder: &Path) -> io::Result<()> {
    if fs::read_dir(folder)?.count() == 1 {
        fs::remove_file(folder.join(SOCKET))?;
        fs::remove_dir(folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a panic is how a test fails
    use super::*;
    use std::fs::File;
    use std::os::unix::net::UnixListener;
    use std::time::{Duration, SystemTime};

    #[test]
    fn a_process_that_serves_its_disk_and_a_person_keep_their_folders() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: &str, age: u64| {
            let folder = temporary.path().join(name);
            fs::create_dir(&folder).unwrap();
            let listener = UnixListener::bind(folder.join(SOCKET)).unwrap();
            File::open(&folder).unwrap().set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
            listener
        };
        drop(make("vsphere-backup-dead", 3600));
        drop(make("vsphere-backup-young", 1));
        drop(make("other", 3600));
        let _serving = make("vsphere-backup-serving", 3600);
        let theirs = temporary.path().join("vsphere-backup-copies");
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("disk.raw"), "precious").unwrap();
        drop(make("vsphere-backup-mixed", 1));
        fs::write(temporary.path().join("vsphere-backup-mixed/disk.raw"), "precious").unwrap();
        for folder in ["vsphere-backup-copies", "vsphere-backup-mixed"] {
            let folder = File::open(temporary.path().join(folder)).unwrap();
            folder.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        }
        sweep(temporary.path());
        let mut left: Vec<_> =
            fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let want = [
            "other",
            "vsphere-backup-copies",
            "vsphere-backup-mixed",
            "vsphere-backup-serving",
            "vsphere-backup-young",
        ];
        assert_eq!(left, want);
        assert!(theirs.join("disk.raw").exists() && temporary.path().join("vsphere-backup-mixed/disk.raw").exists());
    }
}
