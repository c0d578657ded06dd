//! A way for tests to be killed right after a step of the work, at any time in its middle.

/// In builds with debug assertions, aborts the process when the environment's `variable` names `step`, once: it leaves a file
/// `died-after-<step>` in `VELERO_SCRATCH_DIR` (else the system's temporary folder) and does not die again while that file is
/// there. Release builds know nothing of it. An abort runs no destructor and flushes nothing, so it is as good as SIGKILL.
pub fn after(variable: &str, step: &str) {
    if cfg!(debug_assertions) && std::env::var(variable).is_ok_and(|told| told == step) {
        let folder = std::env::var_os("VELERO_SCRATCH_DIR").map_or_else(std::env::temp_dir, Into::into);
        let mark = folder.join(format!("died-after-{step}"));
        let first = std::fs::File::options().write(true).create_new(true).open(&mark);
        if first.is_ok() {
            std::process::abort();
        }
    }
}
