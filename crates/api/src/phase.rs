//! The phases of the jobs, word for word. They stay because other programs read them; our own decisions look at what
//! exists and trust terminal phases only.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),+ $(,)? } terminal { $($terminal:ident),* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
            /// A word that is not on the list, kept as it is.
            Other(String),
        }

        impl $name {
            /// The words of the list, in the order of the life cycle.
            pub const WORDS: &'static [&'static str] = &[$(stringify!($variant)),+];

            /// The word as it stands in the object.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => stringify!($variant),)+
                    Self::Other(word) => word,
                }
            }

            /// Whether nothing follows: the work is done, or given up for good.
            pub fn is_terminal(&self) -> bool {
                matches!(self, $(Self::$terminal)|*)
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                match word {
                    $(stringify!($variant) => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                Self::from(word.as_str())
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> String {
                word.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Where a [`Snapshot`](crate::Snapshot) stands.
    SnapshotPhase {
        /// Asked for.
        New,
        /// Declared by the original, set by nobody.
        InProgress,
        /// The disk snapshot exists in vSphere. The end of the road in local mode.
        Snapshotted,
        /// No disk snapshot; nothing is left behind.
        SnapshotFailed,
        /// Its Upload is copying.
        Uploading,
        /// The restore point exists.
        Uploaded,
        /// An attempt to upload failed; another follows.
        UploadFailed,
        /// Its Upload is being cancelled.
        Canceling,
        /// Its Upload was cancelled.
        Canceled,
        /// The data is stored, the disk snapshot could not be deleted yet.
        CleanupAfterUploadFailed,
        /// The upload was given up.
        UploadFailedAfterRetry,
    } terminal { SnapshotFailed, Uploaded, Canceled, UploadFailedAfterRetry }
}

words! {
    /// Where a [`CloneFromSnapshot`](crate::CloneFromSnapshot) stands.
    ClonePhase {
        /// Asked for.
        New,
        /// Being worked on.
        InProgress,
        /// Declared by the original, set by nobody.
        Retry,
        /// The claim is bound and holds the data.
        Completed,
        /// Given up; no claim was made.
        Failed,
        /// Being cancelled.
        Canceling,
        /// Cancelled; no claim was made.
        Canceled,
    } terminal { Completed, Failed, Canceled }
}

words! {
    /// Where a [`DeleteSnapshot`](crate::DeleteSnapshot) stands.
    DeletePhase {
        /// Asked for.
        New,
        /// Declared by the original, set by nobody.
        InProgress,
        /// Disk snapshot and restore point are gone.
        Completed,
        /// Given up.
        Failed,
    } terminal { Completed, Failed }
}

words! {
    /// Where an [`Upload`](crate::Upload) stands.
    UploadPhase {
        /// Waiting for a node to take it.
        New,
        /// A node is copying.
        InProgress,
        /// The restore point was read back and the disk snapshot is deleted.
        Completed,
        /// An attempt failed; the next is due at `nextRetryTimestamp`.
        UploadError,
        /// The data is stored, the disk snapshot could not be deleted yet.
        CleanupFailed,
        /// Cancelled; nothing is left behind.
        Canceled,
        /// Being cancelled.
        Canceling,
        /// Given up after the last retry. The original's older CRDs refuse this word.
        UploadFailedAfterRetry,
    } terminal { Completed, Canceled, UploadFailedAfterRetry }
}

words! {
    /// Where a [`Download`](crate::Download) stands.
    DownloadPhase {
        /// Waiting for a node to take it.
        New,
        /// A node is copying.
        InProgress,
        /// The volume is written and flushed.
        Completed,
        /// An attempt failed; the next is due at `nextRetryTimestamp`.
        Retry,
        /// Given up.
        Failed,
    } terminal { Completed, Failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_nobody_knows_is_kept_and_is_not_an_end() {
        let phase = UploadPhase::from("Paused");
        assert_eq!(phase.as_str(), "Paused");
        assert!(!phase.is_terminal());
    }

    #[test]
    fn every_word_reads_back() {
        for word in SnapshotPhase::WORDS {
            assert!(!matches!(SnapshotPhase::from(*word), SnapshotPhase::Other(_)), "{word}");
            assert_eq!(SnapshotPhase::from(*word).as_str(), *word);
        }
    }
}
