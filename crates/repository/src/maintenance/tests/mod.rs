//! A maintenance run beside backups, and killed at every step. The store is in memory, so that many histories fit a test;
//! a sample of the outcomes is written to a folder for restic to judge.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod interleavings;
mod kills;
mod memory;
mod world;
