//! A stand-in for `libvixDiskLib.so`, for tests only: the public binary interface of VDDK over plain files. None of
//! the vendor's code is in here, and nothing of it works against a real vCenter.
//!
//! The main parts are [`Library`](library::Library) (what a process has open, and the rules of the interface), the
//! [`store`] (where disks lie) and the [`script`] (what goes wrong). `exports` has the C functions.
//!
//! # Where things are
//! `stand-in.json` lies beside the shared library:
//! ```json
//! {"store": "/path", "user": "…", "password_sha256": "…hex…", "thumbprint": "AA:BB:…"}
//! ```
//! Only `store` is required. A wrong user or password fails `ConnectEx` with 18000, a wrong thumbprint `Open` with 1,
//! as the vendor's library does. Disks are `<store>/<disk>/disk.raw` and `<store>/<disk>/snapshots/<snapshot>.raw`.
//! A file written through this library is locked while it is open for writing.
//!
//! `PrepareForAccess` leaves `<store>/.vddk-access/<disk>.<identity>`, `EndAccess` removes it; preparing a second time
//! without ending fails with 20005, as after a crash. A test can thus see that an access was always ended.
//!
//! # What goes wrong
//! `<store>/vddk.json` is looked at on each call; see [`script`].
//!
//! # What it does not forgive
//! Calls in a wrong order, from a wrong thread, on a closed handle, two at once on one handle, requests of more than
//! 2 MiB, parameters that it did not allocate, or things left open at `Exit` end the process with a message:
//! the vendor's library would crash on some other day.
#![allow(unsafe_code, non_snake_case)] // the whole crate is a C interface, named as the real one

mod exports;
pub mod library;
mod log;
pub mod script;
pub mod store;
mod types;
