//! `install FOLDER`: the executable copies itself, so that its image needs no shell.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The name of the file in the plugin folder, whatever the program was called when it was started.
const NAME: &str = "velero-plugin-for-vsphere";

/// The copy could not be made.
#[derive(Debug, thiserror::Error)]
#[error("install {program} as {target}")]
pub struct InstallError {
    program: PathBuf,
    target: PathBuf,
    source: io::Error,
}

/// Copies this program into `folder` and returns where it is. The server runs every executable file it finds there
/// (P-01), so nothing may be executable before it is whole, and nothing else is left behind.
///
/// # Errors
/// When the folder is not there, or cannot be written.
pub fn install(folder: &Path) -> Result<PathBuf, InstallError> {
    let program = PathBuf::from("/proc/self/exe");
    let target = folder.join(NAME);
    let part = folder.join(format!(".{NAME}.part"));
    let copied = copy(&program, &part).and_then(|()| fs::rename(&part, &target));
    match copied {
        Ok(()) => Ok(target),
        Err(source) => {
            let _ = fs::remove_file(&part); // it may never have been there
            Err(InstallError { program, target, source })
        }
    }
}

fn copy(program: &Path, to: &Path) -> io::Result<()> {
    let mut from = fs::File::open(program)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    io::copy(&mut from, &mut file)?;
    file.sync_all()?;
    file.set_permissions(fs::Permissions::from_mode(0o755))
}
