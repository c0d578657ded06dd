//! The namespace that a program is told to work in.

/// The one that is given, or `velero` where the name is empty, as Velero's own programs take it.
pub fn or_veleros(given: String) -> String {
    if given.is_empty() { "velero".to_owned() } else { given }
}
