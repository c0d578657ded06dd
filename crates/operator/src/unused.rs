//! Flags of the original that are taken so that old manifests start, and have nothing to do here.

/// A sentence for the log that names the flags that were given a value without effect; `None` where none was.
pub fn without_effect(flags: &[(&str, Option<&str>)]) -> Option<String> {
    let given = flags.iter().filter(|(_, value)| value.is_some_and(|value| !value.is_empty()));
    let names: Vec<_> = given.map(|(name, _)| *name).collect();
    let told = || format!("taken from old manifests and not used: {}", names.join(", "));
    (!names.is_empty()).then(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_has_no_effect_is_named_once_it_has_a_value() {
        let told = |master, context| without_effect(&[("--master", master), ("--kubecontext", context)]);
        assert_eq!((told(None, None), told(Some(""), None)), (None, None));
        let both = told(Some("https://10.0.0.1:6443"), Some("c"));
        assert_eq!(both.as_deref(), Some("taken from old manifests and not used: --master, --kubecontext"));
        let one = told(Some(""), Some("c"));
        assert_eq!(one.as_deref(), Some("taken from old manifests and not used: --kubecontext"));
    }
}
