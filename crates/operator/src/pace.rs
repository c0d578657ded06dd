//! How long to wait after errors with one object, each counted for itself.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Counts errors in a row per object (by uid).
#[derive(Debug, Default)]
pub struct Pace(Mutex<HashMap<String, u32>>);

impl Pace {
    /// One more error with the object: the pause that `pause_of` gives for that many in a row.
    pub fn after_error(&self, uid: &str, pause_of: fn(u32) -> Duration) -> Duration {
        let mut errors = self.0.lock().expect("no panic while it is held");
        let count = errors.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        pause_of(*count)
    }

    /// It worked: forget its errors.
    pub fn forget(&self, uid: &str) {
        self.0.lock().expect("no panic while it is held").remove(uid);
    }
}
