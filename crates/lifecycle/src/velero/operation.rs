//! Ids of asynchronous operations. `Execute` and `Progress` run in different processes (trap P-03), so an id says by
//! itself which object carries the work: `<namespace>.<name>`. A namespace has no dot.

/// The id of the operation that an object carries.
pub fn id(namespace: &str, name: &str) -> String {
    format!("{namespace}.{name}")
}

/// Namespace and name of the object behind an id; `None` when it is not one of ours.
pub fn parse(id: &str) -> Option<(&str, &str)> {
    id.split_once('.').filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p03_an_operation_finds_its_object_again_in_another_process() {
        assert_eq!(parse(&id("shop", "snap-7d1f")), Some(("shop", "snap-7d1f")));
        assert_eq!(parse("shop.clone.with.dots"), Some(("shop", "clone.with.dots")));
        for foreign in ["", "du-4711", ".x", "x."] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
