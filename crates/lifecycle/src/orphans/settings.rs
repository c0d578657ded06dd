//! What the user has set about leftovers.

use k8s_openapi::jiff::SignedDuration;

/// How old something must be before it counts as left over: `orphan-age`.
const AGE: SignedDuration = SignedDuration::from_hours(24);
/// No shorter age is followed: whoever is at work keeps nothing open for an hour without a word.
const SHORTEST: SignedDuration = SignedDuration::from_hours(1);

/// Settings of the sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How old something must be before it counts as left over.
    pub age: SignedDuration,
    /// Whether restore points whose backup is gone are deleted; by default they are only told of.
    pub remove_restore_points: bool,
    /// What was set and is not followed, and why.
    pub refused: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { age: AGE, remove_restore_points: false, refused: Vec::new() }
    }
}

impl Settings {
    /// Reads `orphan-age` (such as `36h`) and `orphaned-restore-points` (`keep` or `remove`).
    pub fn read(age: Option<&str>, restore_points: Option<&str>) -> Self {
        let mut settings = Self::default();
        match age.map(str::parse::<SignedDuration>) {
            None => {}
            Some(Ok(age)) if age >= SHORTEST => settings.age = age,
            Some(_) => {
                let text = age.unwrap_or_default();
                let why =
                    format!("orphan-age is `{text}`, which is no time of an hour or more, such as `36h`; 24h count");
                settings.refused.push(why);
            }
        }
        match restore_points {
            None | Some("keep") => {}
            Some("remove") => settings.remove_restore_points = true,
            Some(other) => {
                let why = format!("orphaned-restore-points is `{other}`, neither `keep` nor `remove`; they are kept");
                settings.refused.push(why);
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restore_points_are_deleted_only_on_the_very_word_and_nothing_young_is() {
        assert_eq!(Settings::read(None, None), Settings::default());
        assert!(!Settings::default().remove_restore_points);
        assert!(Settings::read(None, Some("remove")).remove_restore_points);
        for other in ["true", "Remove", "yes", "keep"] {
            assert!(!Settings::read(None, Some(other)).remove_restore_points, "{other}");
        }
        assert_eq!(Settings::read(Some("36h"), None).age, SignedDuration::from_hours(36));
        for nonsense in ["0s", "10m", "soon", "-3h", "5"] {
            let read = Settings::read(Some(nonsense), None);
            assert_eq!((read.age, read.refused.len()), (AGE, 1), "{nonsense}");
        }
    }
}
