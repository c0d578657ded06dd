//! The reference page of reasons.

use std::fmt::Write as _;

use api::{Reason, Weight};

use crate::files::Files;

const HEAD: &str = "<!-- Made from crates/api/src/reason.rs by `cargo xtask generate`. -->
# Reasons

Why an object waits, failed or ended. The same word stands in the condition `Ready`, in events, metrics and logs:

```
kubectl get snapshot,clonefromsnapshot -A          # column REASON
kubectl get upload,download -n velero
kubectl describe upload -n velero NAME             # the message says what exactly, the events what came before
```

";

/// `docs/reference/reasons.md`.
pub(crate) fn add(files: &mut Files) {
    files.add("docs/reference/reasons.md", page());
}

fn page() -> String {
    let of = |weight| Reason::ALL.iter().filter(move |r| r.weight() == weight);
    let mut page = HEAD.to_owned();
    page.push_str("## Ordinary steps\n\n| reason | meaning |\n|---|---|\n");
    for reason in of(Weight::Step) {
        writeln!(page, "| `{reason}` | {} |", reason.meaning()).expect("a String takes any text");
    }
    for (title, weight) in [("Waits that end by themselves", Weight::Wait), ("Trouble", Weight::Trouble)] {
        write!(page, "\n## {title}\n\n| reason | meaning | usual cause | what helps |\n|---|---|---|---|\n")
            .expect("a String takes any text");
        for reason in of(weight) {
            let (meaning, cause, fix) = (reason.meaning(), reason.cause(), reason.fix());
            writeln!(page, "| `{reason}` | {meaning} | {cause} | {fix} |").expect("a String takes any text");
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_on_the_page_once() {
        let page = page();
        for reason in Reason::ALL {
            assert_eq!(page.matches(&format!("| `{reason}` |")).count(), 1, "{reason}");
        }
    }
}
