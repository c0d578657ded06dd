//! Flags in the user's ConfigMaps: the words of Go's `strconv.ParseBool`, as with the original.

use std::collections::BTreeMap;

/// What the word says; `None` where it is no flag. Blanks around it do not count.
pub fn read(text: &str) -> Option<bool> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// What the key says, or `default` where it is absent or no flag.
pub fn set(map: &BTreeMap<String, String>, key: &str, default: bool) -> bool {
    map.get(key).and_then(|text| read(text)).unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_go_count_and_no_others() {
        for text in ["1", "t", "T", "true", "TRUE", "True", " true\n"] {
            assert_eq!(read(text), Some(true), "{text:?}");
        }
        for text in ["0", "f", "F", "false", "FALSE", "False", "\tF "] {
            assert_eq!(read(text), Some(false), "{text:?}");
        }
        for text in ["", "yes", "no", "on", "off", "tRUE", "2", "true false"] {
            assert_eq!(read(text), None, "{text:?}");
            let map = BTreeMap::from([("key".to_owned(), text.to_owned())]);
            assert!(set(&map, "key", true) && !set(&map, "key", false), "{text:?} leaves the default");
        }
    }
}
