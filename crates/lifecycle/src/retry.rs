//! How often and how long: the retry numbers that users know, and the pace of our own controllers.

use std::time::Duration;

use api::Timestamp;
use k8s_openapi::jiff::SignedDuration;

/// Longest back-off of an Upload, in minutes.
const LONGEST_BACK_OFF_MINUTES: u32 = 60;
/// Pause between two attempts of a Download.
const DOWNLOAD_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// The failure with this number ends a Download.
const LAST_DOWNLOAD_FAILURE: u32 = 7;

/// How often an Upload is tried again: `upload-cr-retry-max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadRetries(u32);

impl UploadRetries {
    /// What the ConfigMap says. Absent or not a number: 10. Zero or negative: no retry.
    pub fn from_setting(text: Option<&str>) -> Self {
        let parsed = text.and_then(|t| t.trim().parse::<i64>().ok());
        Self(parsed.map_or(10, |n| u32::try_from(n.clamp(0, i64::from(u32::MAX))).unwrap_or(u32::MAX)))
    }

    /// Retries after the first attempt.
    pub fn limit(self) -> u32 {
        self.0
    }

    /// Whether another attempt follows when `failures` came before the one that just failed.
    pub fn allow_after(self, failures_before: u32) -> bool {
        failures_before < self.0
    }
}

impl Default for UploadRetries {
    fn default() -> Self {
        Self(10)
    }
}

/// Minutes to wait after the n-th failure of an Upload: 1, 2, 4, 8, 16, 32, 60, 60 …
pub fn upload_back_off_minutes(failures: u32) -> u32 {
    1u32.checked_shl(failures.saturating_sub(1)).map_or(LONGEST_BACK_OFF_MINUTES, |m| m.min(LONGEST_BACK_OFF_MINUTES))
}

/// When an Upload is due again after its n-th failure.
pub fn upload_due(failures: u32, now: Timestamp) -> Timestamp {
    now + SignedDuration::from_mins(i64::from(upload_back_off_minutes(failures)))
}

/// When a Download is due again; `None` when the n-th failure was the last.
pub fn download_due(failures: u32, now: Timestamp) -> Option<Timestamp> {
    (failures < LAST_DOWNLOAD_FAILURE).then(|| now + DOWNLOAD_PAUSE)
}

/// Whether the API server's answer with that code stays the same however often it is asked: something has to be changed first, such as the
/// definition of a kind. One that starts, is busy or lacks a role for a moment says 401, 403, 408, 410 or 429; 404 and 409 tell of the object.
pub fn is_final(code: u16) -> bool {
    matches!(code, 400..=499) && !matches!(code, 401 | 403 | 404 | 408 | 409 | 410 | 429)
}

/// Pause after the n-th time in a row that a transfer's outcome was refused for good: as after a failed Upload.
pub fn refused_pause(times: u32) -> Duration {
    Duration::from_secs(60 * u64::from(upload_back_off_minutes(times)))
}

/// Pause of a controller after the n-th error in a row with one object: 1 s doubling to 5 min.
pub fn controller_pause(errors: u32) -> Duration {
    let seconds = 1u64.checked_shl(errors.saturating_sub(1)).unwrap_or(u64::MAX).min(300);
    Duration::from_secs(seconds)
}

/// From now until then; at least a tenth of a second, so that a timer that fires early does not spin.
pub fn wake(at: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO);
    left.max(Duration::from_millis(100))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn back_off_doubles_up_to_an_hour() {
        let minutes: Vec<u32> = (1..=9).map(upload_back_off_minutes).collect();
        assert_eq!(minutes, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(upload_back_off_minutes(4_000_000), 60);
    }

    #[test]
    fn a_setting_that_is_no_number_means_ten() {
        let cases = [(None, 10), (Some("3"), 3), (Some(" 3 "), 3), (Some("many"), 10), (Some("0"), 0), (Some("-2"), 0)];
        for (text, want) in cases {
            assert_eq!(UploadRetries::from_setting(text).limit(), want, "{text:?}");
        }
        assert!(!UploadRetries::from_setting(Some("0")).allow_after(0), "no retry at all");
        assert!(UploadRetries::default().allow_after(9));
        assert!(!UploadRetries::default().allow_after(10), "one attempt and ten retries");
    }

    #[test]
    fn a_download_fails_for_good_the_seventh_time() {
        let noon: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        assert_eq!(download_due(6, noon), Some(noon + DOWNLOAD_PAUSE));
        assert_eq!(download_due(7, noon), None);
    }

    #[test]
    fn w30_a_refusal_that_stays_is_told_apart_from_one_that_passes() {
        for code in [400, 405, 406, 413, 415, 422] {
            assert!(is_final(code), "{code}");
        }
        for code in [200, 401, 403, 404, 408, 409, 410, 429, 500, 502, 503, 504] {
            assert!(!is_final(code), "{code}");
        }
        assert_eq!([1, 2, 9].map(|times| refused_pause(times).as_secs()), [60, 120, 3600]);
    }

    #[test]
    fn a_controller_slows_down_but_never_stops() {
        let seconds: Vec<u64> = [1, 2, 3, 9, 10, 100].map(|n| controller_pause(n).as_secs()).to_vec();
        assert_eq!(seconds, [1, 2, 4, 256, 300, 300]);
    }
}
