//! The client against the lab's vCenter (govmomi's simulator, completed), and against recorded replies for what it lacks.
#![allow(clippy::unwrap_used, reason = "tests")]

mod changes;
mod double;
mod faults;
mod hosts;
mod recorded;
mod rights;
mod session;
mod snapshots;
mod tracking;
mod trust;
mod volumes;
mod wire;
