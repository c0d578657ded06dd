//! `velero-plugin-for-vsphere`: the one executable in Velero's plugin folder.
//!
//! A Velero server starts it, with whatever arguments it was started with itself. `install FOLDER`, without Velero's
//! magic variable, copies the program there; that is what its image does as an init container.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    match words.as_slice() {
        [word, folder] if word == "install" && std::env::var_os("VELERO_PLUGIN").is_none() => install(folder.as_ref()),
        _ => velero_plugin::protocol::serve(velero_plugin::actions::registry),
    }
}

fn install(folder: &Path) -> ExitCode {
    match velero_plugin::install(folder) {
        Ok(file) => {
            println!("{} is there", file.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|c| format!(": {c}")).unwrap_or_default();
            eprintln!("{error}{cause}");
            ExitCode::FAILURE
        }
    }
}
