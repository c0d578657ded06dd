//! Loads VDDK and serves one disk over NBD. Takes one order on standard input, answers in lines of JSON on standard
//! output, logs on standard error. Started by `vddk::Helper`; of no use by hand.
//!
//! The main thread is the only one that calls the library, which may carry out several reads meanwhile. The server runs on threads of its own and sends it jobs.
//! When standard input ends, or the parent dies, or SIGTERM comes, the access is ended in order.
#![allow(unsafe_code)] // a C library is called here; each use says what it relies on

mod api;
mod disk;
mod export;
mod layout;
mod log;
mod network;
mod serve;
mod underway;
mod watch;

use std::io::BufRead;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use vddk::order::{Message, Order};

use crate::api::{Api, Failed};
use crate::disk::Disk;
use crate::watch::{Watch, emit};

/// The library's configuration, in the private folder.
const CONFIG: &str = "vddk.conf";
/// Where the library leaves its own files, in the private folder.
const TEMPORARY: &str = "tmp";

fn main() -> ExitCode {
    watch::follow_parent();
    let mut line = String::new();
    let order = match std::io::stdin().lock().read_line(&mut line).map(|_| serde_json::from_str::<Order>(&line)) {
        Ok(Ok(order)) => order,
        // the error does not quote the line, which holds a password
        _ => {
            eprintln!("vddk-helper serves disks for the data-manager; it takes its order on standard input");
            return ExitCode::from(2);
        }
    };
    drop(line);
    match network::confine(order.port, &order.ports) {
        Ok(told) => eprintln!("log: {told}"),
        Err(cause) => eprintln!("warn: connections are not held to any ports: {cause}"),
    }
    let watch = Watch::start(
        Duration::from_millis(order.call_deadline_ms),
        Duration::from_millis(order.stop_deadline_ms),
        Duration::from_millis(order.heartbeat_ms),
    );
    let served = run(&order, watch);
    clean_up(&order);
    let (message, code) = match served {
        Ok(()) => (Message::Stopped, ExitCode::SUCCESS),
        Err(message) => (message, ExitCode::FAILURE),
    };
    emit(&message);
    code
}

/// The parent removes the folder; this is for the day when it is gone first. A folder with other things in it stays.
fn clean_up(order: &Order) {
    let _ = std::fs::remove_file(&order.socket);
    let _ = std::fs::remove_file(order.scratch.join(CONFIG));
    let _ = std::fs::remove_dir_all(order.scratch.join(TEMPORARY));
    let _ = std::fs::remove_dir(&order.scratch);
}

/// From loading the library to leaving it.
fn run(order: &Order, watch: &'static Watch) -> Result<(), Message> {
    let broken = |problem: String| Message::LibraryBroken { problem };
    let api = Api::load(&order.library, watch).map_err(broken)?;
    let config = order.scratch.join(CONFIG);
    write_config(&config, order).map_err(|error| broken(format!("write its configuration: {error}")))?;
    api.init(&order.library_dir, &config).map_err(|failed| {
        broken(format!("it does not start: {} failed with {}: {}", failed.function, failed.code, failed.text))
    })?;
    let served = Disk::open(&api, order).map_err(refused).and_then(|disk| {
        let served = serve::serve(&disk, order, watch);
        let closed = disk.close();
        for failed in &closed {
            emit(&Message::CloseError { function: failed.function.into(), code: failed.code });
        }
        served
    });
    api.exit();
    served
}

fn refused(failed: Failed) -> Message {
    Message::Error { function: failed.function.into(), code: failed.code, text: failed.text }
}

/// The library's own time-outs lie below our deadline for a call, so that it can say what went wrong; a longer one that the
/// user sets is cut off by that deadline.
fn write_config(path: &Path, order: &Order) -> std::io::Result<()> {
    let within = |wanted: u64| wanted.min(order.call_deadline_ms * 3 / 4);
    let temporary = order.scratch.join(TEMPORARY);
    std::fs::create_dir(&temporary)?;
    let ours = [
        ("tmpDirectory", temporary.display().to_string()),
        ("vixDiskLib.transport.LogLevel", "3".to_owned()),
        ("vixDiskLib.nfc.LogLevel", "2".to_owned()),
        ("vixDiskLib.nfc.AcceptTimeoutMs", within(180_000).to_string()),
        ("vixDiskLib.nfc.RequestTimeoutMs", within(180_000).to_string()),
        ("vixDiskLib.nfc.ReadTimeoutMs", within(60_000).to_string()),
        ("vixDiskLib.nfc.WriteTimeoutMs", within(600_000).to_string()),
        ("vixDiskLib.nfcAio.Session.BufSizeIn64KB", "16".to_owned()),
        ("vixDiskLib.nfcAio.Session.BufCount", "4".to_owned()),
    ];
    std::fs::write(path, order.library_settings.over(&ours))
}
