//! Keeps resident memory near to what is in use.
//!
//! glibc gives threads up to eight arenas a core, and each keeps the buffers of chunks and packs that were freed in it: a
//! backup that holds 80 MiB had 320 MiB resident. One arena brings it to 110 MiB; large buffers are few enough that its
//! lock does not show. The setting is read when a program starts, so we start once more with it.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// glibc's setting. A value that the user chose stays.
const ARENAS: &str = "MALLOC_ARENA_MAX";

/// Starts this program again with one arena, unless that is settled. Returns when nothing is to be done, or cannot be:
/// going on then costs memory only.
pub(crate) fn bound() {
    if std::env::var_os(ARENAS).is_some() {
        return;
    }
    let mut args = std::env::args_os();
    if let (Ok(program), Some(name)) = (std::env::current_exe(), args.next()) {
        let error = Command::new(program).arg0(name).args(args).env(ARENAS, "1").exec();
        tracing::debug!(%error, "going on with the allocator's own settings");
    }
}
