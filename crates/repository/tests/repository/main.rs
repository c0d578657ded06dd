//! What we write, restic reads; what breaks, we report. restic is the judge: it is a program of others for the same format.
#![allow(clippy::unwrap_used, missing_docs)] // a panic is how a test fails

mod judge;
mod restic_reads;
