//! Every decision of our controllers, as functions of values: what is asked for, what exists, and what time it is go in,
//! a plan comes out that can be printed and compared.
//!
//! The main types are the plans ([`snapshot::Plan`], [`clone::Plan`], [`delete::Plan`], [`transfer::Plan`]) and
//! [`Problem`], the one way a failure is told. This crate has no client, no clock and no runtime.
//!
//! ```
//! use lifecycle::retry::{UploadRetries, upload_back_off_minutes};
//!
//! assert_eq!(upload_back_off_minutes(1), 1);
//! assert_eq!(upload_back_off_minutes(9), 60);
//! assert_eq!(UploadRetries::from_setting(Some("3")).limit(), 3);
//! ```
//!
//! Phases are output, for others to read. A decision looks at what exists; only a terminal phase counts as a fact.

pub mod admission;
pub mod age;
pub mod also_for;
pub mod claim;
pub mod clone;
pub mod content;
pub mod delete;
pub mod doctor;
pub mod elsewhere;
pub mod flag;
pub mod flavor;
pub mod limits;
pub mod maintenance;
mod near;
pub mod new_disk;
pub mod orphans;
pub mod parameters;
pub mod patience;
mod problem;
pub mod retry;
pub mod snapshot;
pub mod stored;
pub mod tracking;
pub mod transfer;
pub mod vcenter;
pub mod velero;

pub use problem::{Again, Problem, Unanswered};
