//! Names that somebody may have meant, and values as a message repeats them.

/// Names that differ by so many letters may have been meant.
const FAR: usize = 2;
/// Longest value that is repeated, in characters.
const LONGEST: usize = 80;

/// The known thing whose name this one is a slip of the pen away from, if there is one. Case, and signs that are neither letter nor digit,
/// do not count.
pub(crate) fn near<'k, K>(written: &str, known: &'k [K], name: impl Fn(&K) -> &str) -> Option<&'k K> {
    let letters = |name: &str| -> String { name.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect() };
    let written = letters(written);
    let far = |one: &&K| strsim::levenshtein(&written, &letters(name(one)));
    known.iter().min_by_key(far).filter(|one| far(one) <= FAR)
}

/// What somebody wrote, on one line and not too long.
pub(crate) fn shown(written: &str) -> String {
    let shown: String = written.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let more = if written.chars().nth(LONGEST).is_some() { "…" } else { "" };
    format!("{shown}{more}")
}
