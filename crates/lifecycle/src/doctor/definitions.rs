//! Whether the custom resource definitions of the cluster are ours: there, and with every field and word that we write.
//!
//! The API server drops a field that a definition does not know, without a word, and refuses a word that it does not list. The
//! original's definitions have no `UploadFailedAfterRetry`, though its programs write it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use super::{Finding, Matter};

/// What is named at most of what a definition lacks.
const NAMED: usize = 6;
const FIX: &str = "Apply the definitions of this version (`kubectl apply --server-side --force-conflicts -f deploy/crds`, or install \
                   the chart with its definitions): what is stored stays as it is.";

/// One finding about a definition: the one that we bring, and the one of that name in the cluster.
pub fn judge(ours: &CustomResourceDefinition, found: Option<&CustomResourceDefinition>) -> Finding {
    let name = ours.metadata.name.as_deref().unwrap_or_default();
    let kind = &ours.spec.names.kind;
    let Some(found) = found else {
        let why = format!("No {kind} can be made, so nothing can be backed up or restored.");
        return Finding::problem(Matter::Definitions, format!("definition {name} is missing"), why, FIX);
    };
    let established = found.status.as_ref().and_then(|status| status.conditions.as_ref());
    let established = established.is_some_and(|all| all.iter().any(|c| c.type_ == "Established" && c.status == "True"));
    if !established {
        let why = format!("The API server does not serve {kind} yet, or refuses the definition.");
        let fix = "See its conditions: `kubectl describe crd`.";
        return Finding::problem(Matter::Definitions, format!("definition {name} is not established"), why, fix);
    }
    let lacks = lacking(ours, found);
    if lacks.is_empty() {
        return Finding::ok(Matter::Definitions, format!("definition {name} is there and knows all that we write"));
    }
    let more = lacks.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let seen =
        format!("definition {name} is another one: it lacks {}{more}", lacks[..lacks.len().min(NAMED)].join(", "));
    let why = "It is the original's, or that of another version. The API server drops fields that it lacks without a word, and \
               refuses what says a word that it lacks: such an object never comes to its end.";
    Finding::problem(Matter::Definitions, seen, why, FIX)
}

/// What of our definition is not in the other: versions, fields and words.
fn lacking(ours: &CustomResourceDefinition, found: &CustomResourceDefinition) -> Vec<String> {
    let mut lacks = Vec::new();
    if ours.spec.scope != found.spec.scope {
        lacks.push(format!("scope {} (it is {})", ours.spec.scope, found.spec.scope));
    }
    for version in &ours.spec.versions {
        let Some(other) = found.spec.versions.iter().find(|other| other.name == version.name && other.served) else {
            lacks.push(format!("version {}", version.name));
            continue;
        };
        let subresource = |of: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionVersion| {
            of.subresources.as_ref().is_some_and(|sub| sub.status.is_some())
        };
        match (subresource(version), subresource(other)) {
            (true, false) => lacks.push("subresource status".to_owned()),
            // a status that is written with the object would be dropped
            (false, true) => lacks.push("status without a subresource".to_owned()),
            _ => {}
        }
        let schema = |of: &Option<_>| {
            let schema = of.as_ref().map(|schema| serde_json::to_value(schema).unwrap_or_default());
            schema.map(|schema| schema["openAPIV3Schema"].clone()).unwrap_or_default()
        };
        compare(&schema(&version.schema), &schema(&other.schema), "", &mut lacks);
    }
    lacks
}

/// Walks along our schema.
fn compare(ours: &Value, found: &Value, at: &str, lacks: &mut Vec<String>) {
    if found["x-kubernetes-preserve-unknown-fields"] == true {
        return; // it takes whatever is written
    }
    for word in ours["enum"].as_array().into_iter().flatten() {
        let listed = found["enum"].as_array();
        if listed.is_some_and(|listed| !listed.contains(word)) {
            lacks.push(format!("the word {} in {at}", word.as_str().unwrap_or_default()));
        }
    }
    let below = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    for (name, property) in ours["properties"].as_object().into_iter().flatten() {
        // these three belong to every object
        if at.is_empty() && ["apiVersion", "kind", "metadata"].contains(&name.as_str()) {
            continue;
        }
        match found["properties"].get(name) {
            Some(other) => compare(property, other, &below(name), lacks),
            // a map takes every name
            None if found["additionalProperties"].is_object() || found["additionalProperties"] == true => {}
            None => lacks.push(format!("field {}", below(name))),
        }
    }
    if ours["items"].is_object() {
        compare(&ours["items"], &found["items"], &format!("{at}[]"), lacks);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::Verdict;
    use super::*;
    use serde_json::json;

    fn uploads() -> CustomResourceDefinition {
        let named = |crd: &CustomResourceDefinition| crd.spec.names.kind == "Upload";
        api::crd::all().into_iter().find(named).unwrap()
    }

    /// As the API server has it, changed at one place.
    fn served(change: impl FnOnce(&mut Value)) -> CustomResourceDefinition {
        let mut served = serde_json::to_value(uploads()).unwrap();
        let established = json!([{"type": "Established", "status": "True", "reason": "a", "message": "", "lastTransitionTime": null}]);
        served["status"] = json!({"conditions": established, "acceptedNames": {"kind": "Upload", "plural": "uploads"}, "storedVersions": []});
        change(&mut served);
        serde_json::from_value(served).unwrap()
    }

    const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

    #[test]
    fn m_0_5_the_originals_definition_without_the_word_for_a_lost_upload_is_told() {
        let originals = served(|crd| {
            let words = crd.pointer_mut(&format!("{SCHEMA}/properties/status/properties/phase/enum")).unwrap();
            words.as_array_mut().unwrap().retain(|word| word != "UploadFailedAfterRetry");
        });
        let told = judge(&uploads(), Some(&originals));
        assert_eq!(told.verdict, Verdict::Problem);
        assert!(told.seen.contains("the word UploadFailedAfterRetry in status.phase"), "{}", told.seen);
        assert!(told.fix.contains("deploy/crds"), "{}", told.fix);
    }

    #[test]
    fn a_definition_that_would_drop_what_we_write_is_told_and_a_wider_one_is_not() {
        let at = |path: &str| format!("{SCHEMA}/properties/{path}");
        let cases: [(&str, Option<CustomResourceDefinition>, &str); 6] = [
            ("ours", Some(served(|_| {})), ""),
            ("none", None, "is missing"),
            (
                "one without a field",
                Some(served(|crd| {
                    crd.pointer_mut(&at("spec/properties")).unwrap().as_object_mut().unwrap().remove("admitted");
                })),
                "field spec.admitted",
            ),
            (
                "one that takes everything",
                Some(served(|crd| {
                    *crd.pointer_mut(&at("spec")).unwrap() =
                        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
                })),
                "",
            ),
            (
                "one with a status that must be written apart",
                Some(served(|crd| crd["spec"]["versions"][0]["subresources"] = json!({"status": {}}))),
                "status without a subresource",
            ),
            (
                "one that is not established",
                Some(served(|crd| crd["status"]["conditions"] = json!([]))),
                "not established",
            ),
        ];
        for (situation, found, words) in cases {
            let told = judge(&uploads(), found.as_ref());
            assert_eq!(told.verdict == Verdict::Ok, words.is_empty(), "{situation}: {}", told.seen);
            assert!(told.seen.contains(words), "{situation}: {}", told.seen);
        }
    }
}
