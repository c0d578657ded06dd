//! Decides what a BackupRepository says of a namespace that is backed up through it and that it does not allow: the original records
//! `allowedNamespaces` and never enforces it, and neither do we. What nobody notes nobody would look for: no list, no sweep, no
//! maintenance.

use std::collections::BTreeSet;

use api::BackupRepository;
use api::labels::ALSO_FOR;

/// The annotation that a namespace is backed up here, too; `None` where that is known. Whatever stands there already stays.
pub fn noted(described: &BackupRepository, namespace: &str) -> Option<(&'static str, String)> {
    if described.namespaces().contains(&namespace) {
        return None;
    }
    let before = described.metadata.annotations.as_ref().and_then(|all| all.get(ALSO_FOR));
    let before = before.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|name| !name.is_empty());
    let all: BTreeSet<&str> = before.chain([namespace]).collect();
    Some((ALSO_FOR, all.into_iter().collect::<Vec<_>>().join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_noted_once_and_takes_no_other_ones_place() {
        let cases = [
            ("it is allowed", None, "shop", None),
            ("the first one", None, "bar", Some("bar")),
            ("it is noted", Some("bar"), "bar", None),
            ("one more, in order", Some("foo"), "bar", Some("bar,foo")),
            ("blanks of somebody's hand", Some(" foo , a,"), "bar", Some("a,bar,foo")),
            ("what is no name stays for who wrote it", Some("no name,foo"), "bar", Some("bar,foo,no name")),
        ];
        for (situation, before, namespace, want) in cases {
            let mut described = BackupRepository::new("br-1");
            described.allowed_namespaces = vec!["shop".to_owned()];
            described.metadata.annotations = before.map(|text| [(ALSO_FOR.to_owned(), text.to_owned())].into());
            let change = noted(&described, namespace);
            assert_eq!(change.as_ref().map(|(_, value)| value.as_str()), want, "{situation}");
            if let Some((key, value)) = change {
                described.metadata.annotations = Some([(key.to_owned(), value)].into());
                assert_eq!(noted(&described, namespace), None, "{situation}: it is noted once");
            }
        }
    }
}
