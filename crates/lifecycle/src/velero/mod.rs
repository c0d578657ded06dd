//! What Velero's item actions decide: which claims and volumes of a backup are ours, what a restore makes of them, what
//! is deleted with a backup, and what Velero hears about an operation.
//!
//! Items come and go as JSON trees, since a backup must keep fields that we do not know; decisions read typed views of
//! them. Whoever calls does all reading and writing: nothing here knows a client or a clock.
//!
//! A refusal ([`Problem`](crate::Problem)) takes the item out of the backup or restore and makes it *PartiallyFailed*,
//! so it is kept for what is blocked or broken. Whatever merely is not ours is left alone, with a [`Note`] for the log.

pub mod backup;
pub mod blob;
pub mod blocked;
pub mod delete;
pub mod fs_backup;
pub mod item;
pub mod operation;
pub mod parameters;
pub mod policy;
pub mod progress;
pub mod restore;
mod settings;

pub use settings::Settings;

/// How loud a [`Note`] is. There is nothing louder: Velero counts an error line as a failure of the backup (trap P-09).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Somebody should know: data that may be expected in the backup is not there.
    Warning,
}

/// What the log says about an item that is left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// How loud.
    pub level: Level,
    /// One sentence that names the item and says why.
    pub text: String,
}

impl Note {
    /// As it should be.
    pub fn info(text: impl Into<String>) -> Self {
        Self { level: Level::Info, text: text.into() }
    }

    /// Somebody should know.
    pub fn warning(text: impl Into<String>) -> Self {
        Self { level: Level::Warning, text: text.into() }
    }
}
