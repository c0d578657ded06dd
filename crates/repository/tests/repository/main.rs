//! What we write, restic reads; what breaks, we report. restic is the judge: it is a program of others for the same format.
#![allow(clippy::unwrap_used, missing_docs)] // a panic is how a test fails
#![allow(clippy::cast_possible_truncation)] // sizes of test disks fit

mod bucket;
mod damage;
mod failures;
mod few_requests;
mod initialising;
mod judge;
mod line;
mod locking;
mod maintenance;
mod object_settings;
mod probing;
mod recorder;
mod restic_reads;
mod resuming;
mod s3;
mod storage_settings;
mod store_faults;
mod store_losses;
mod tags;
mod versitygw;

use repository::{Credentials, S3Options};
