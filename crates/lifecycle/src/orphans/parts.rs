//! Uploads in parts that somebody began in a bucket and neither completed nor gave up: the store keeps their parts, and shows them in
//! no list of objects.

use api::Timestamp;

use super::Settings;

/// An upload in parts that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// The object that it would make.
    pub key: String,
    /// Its id in the store.
    pub id: String,
    /// When it was begun, or its last part came: by the clock of the store.
    pub last_sign: Timestamp,
}

/// Those that were left: nobody has sent a part for so long. `now` by the clock of the store, or near it.
pub fn forgotten(open: Vec<OpenUpload>, settings: &Settings, now: Timestamp) -> Vec<OpenUpload> {
    open.into_iter().filter(|upload| now.duration_since(upload.last_sign) >= settings.age).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use k8s_openapi::jiff::SignedDuration;

    #[test]
    fn an_upload_that_still_gets_parts_is_nobodys_leftover() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let left = |hours: i64| {
            let last_sign = now - SignedDuration::from_hours(hours);
            let open = OpenUpload { key: "k".to_owned(), id: "i".to_owned(), last_sign };
            !forgotten(vec![open], &Settings::default(), now).is_empty()
        };
        assert_eq!((left(-1), left(0), left(23), left(24), left(900)), (false, false, false, true, true));
    }
}
