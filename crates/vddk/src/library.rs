//! Finds the library in what the user supplied. Loads nothing.

use std::path::{Path, PathBuf};

const NAME: &str = "libvixDiskLib.so";

/// A library that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The file.
    pub(crate) file: PathBuf,
    /// The folder it lies in, for the loader: the library brings its own companions.
    pub(crate) folder: PathBuf,
}

/// The newest library in `<dir>/lib64` or `<dir>`.
pub(crate) fn find(dir: &Path) -> Option<Found> {
    [dir.join("lib64"), dir.to_owned()].into_iter().find_map(|folder| {
        let file = newest_in(&folder)?;
        Some(Found { file, folder })
    })
}

fn newest_in(folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newest = names.filter_map(|name| Some((version(&name)?, name))).max()?;
    // the loader follows symbolic links itself; a dangling one counts as missing
    Some(folder.join(newest.1)).filter(|file| file.is_file())
}

/// `libvixDiskLib.so.8.0.2` is `[8, 0, 2]`, and `libvixDiskLib.so` is older than all.
fn version(name: &str) -> Option<Vec<u32>> {
    match name.strip_prefix(NAME)? {
        "" => Some(Vec::new()),
        suffix => suffix.strip_prefix('.')?.split('.').map(|part| part.parse().ok()).collect(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test stops at the first surprise

    use super::*;

    #[test]
    fn the_newest_library_is_taken_and_other_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path()), None);
        for name in ["libvixDiskLib.so", "libvixDiskLib.so.old", "libvixDiskLibVim.so.9", "readme"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(find(dir.path()).unwrap().file, dir.path().join("libvixDiskLib.so"));
        let lib64 = dir.path().join("lib64");
        std::fs::create_dir(&lib64).unwrap();
        for name in ["libvixDiskLib.so.7", "libvixDiskLib.so.8.0.2", "libvixDiskLib.so.10"] {
            std::fs::write(lib64.join(name), "").unwrap();
        }
        let found = find(dir.path()).unwrap();
        assert_eq!((found.file, found.folder), (lib64.join("libvixDiskLib.so.10"), lib64));
    }
}
