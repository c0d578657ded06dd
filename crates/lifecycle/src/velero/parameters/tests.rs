#![allow(clippy::unwrap_used, reason = "tests")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn location(spec: Value) -> BackupStorageLocation {
    serde_json::from_value(json!({"metadata": {"name": "lab"}, "spec": spec})).unwrap()
}

fn simple() -> BackupStorageLocation {
    location(json!({"provider": "aws", "objectStorage": {"bucket": "k8s-backups"}, "config": {"region": "us-lab-1"}}))
}

fn clouds() -> DefaultCredentials {
    DefaultCredentials::Secret(vec!["cloud".to_owned()])
}

fn read(location: &BackupStorageLocation) -> Wanted {
    wanted(location, "shop", &clouds()).unwrap()
}

#[test]
fn w39_every_setting_of_a_storage_location_reaches_the_repository() {
    let full = location(json!({
        "provider": "velero.io/aws",
        "objectStorage": {"bucket": "b", "prefix": "/cluster-a/", "caCertRef": {"name": "authorities", "key": "ca.crt"}},
        "credential": {"name": "second", "key": "keys"},
        "config": {"region": "eu", "s3ForcePathStyle": "true", "s3Url": "https://s3.lab:9000", "profile": "lab",
            "insecureSkipTLSVerify": "true", "serverSideEncryption": "aws:kms", "kmsKeyId": "id-1",
            "tagging": "team=shop&tier=1", "checksumAlgorithm": "",
            "publicUrl": "https://elsewhere", "signatureVersion": "1", "enableSharedConfig": "true"}
    }));
    let wanted = read(&full);
    let want: BTreeMap<String, String> = [
        ("region", "eu"),
        ("bucket", "b"),
        ("s3ForcePathStyle", "true"),
        ("s3Url", "https://s3.lab:9000"),
        ("profile", "lab"),
        ("storagePrefix", "cluster-a"),
        ("caCertSecret", "authorities/ca.crt"),
        ("insecureSkipTLSVerify", "true"),
        ("serverSideEncryption", "aws:kms"),
        ("kmsKeyId", "id-1"),
        ("tagging", "team=shop&tier=1"),
        ("checksumAlgorithm", ""),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    assert_eq!(wanted.parameters, want);
    let secret = wanted.credential_secret.unwrap();
    assert_eq!((secret.name.as_str(), secret.key.as_str(), secret.namespace), ("second", "keys", None));
    for (key, value) in [("customerKeyEncryptionFile", "/keys/sse"), ("customerKeyEncryptionSecret", "sse/key")] {
        let mut one = simple();
        one.spec.config.insert(key.to_owned(), value.to_owned());
        assert_eq!(read(&one).parameters[key], value);
    }
}

#[test]
fn w39_a_bundle_of_certificates_is_taken_over_as_text() {
    let storage = |ca: &str| json!({"provider": "aws", "objectStorage": {"bucket": "b", "caCert": ca}});
    assert_eq!(read(&location(storage(&STANDARD.encode(PEM)))).parameters["caCert"], PEM);
    assert_eq!(read(&location(storage(PEM))).parameters["caCert"], PEM, "written as text by hand");
}

#[test]
fn w31_no_key_is_ever_stored_in_clear() {
    let wanted = read(&simple());
    let keys: Vec<&str> = wanted.parameters.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["bucket", "profile", "region", "s3ForcePathStyle", "s3Url"],
        "what the original writes, less keys"
    );
    let claim = serde_json::to_value(wanted.claim("velero")).unwrap();
    assert_eq!(claim["credentialSecret"], json!({"name": "cloud-credentials", "key": "cloud"}));
    assert_eq!(claim["repopsitoryParameters"]["bucket"], "k8s-backups");
    assert_eq!(claim["allowedNamespaces"], json!(["shop"]));
    assert_eq!(claim["metadata"]["labels"]["velero.io/exclude-from-backup"], "true");
}

#[test]
fn where_the_keys_are_when_the_location_names_none() {
    let of = |keys: &[&str]| DefaultCredentials::Secret(keys.iter().map(|k| (*k).to_owned()).collect());
    let key =
        |default: &DefaultCredentials| wanted(&simple(), "shop", default).unwrap().credential_secret.map(|s| s.key);
    assert_eq!(key(&of(&["aws", "cloud"])).as_deref(), Some("cloud"));
    assert_eq!(key(&of(&["credentials"])).as_deref(), Some("credentials"));
    assert_eq!(key(&DefaultCredentials::None), None, "instance profiles");
    let problem = wanted(&simple(), "shop", &of(&["a", "b"])).unwrap_err();
    assert!(problem.cause.contains("no key `cloud`"), "{}", problem.cause);
}

/// Velero writes the path of the Secret it reads; in an object it may stand for the usual one.
#[test]
fn the_usual_file_of_credentials_is_the_usual_secret() {
    let mut usual = simple();
    usual.spec.config.insert("credentialsFile".to_owned(), "/credentials/cloud".to_owned());
    assert_eq!(read(&usual), read(&simple()));
}

#[test]
fn w36_a_location_that_cannot_hold_disks_is_refused_and_no_other_one_taken() {
    let both = json!({"bucket": "b", "caCert": STANDARD.encode(PEM), "caCertRef": {"name": "n", "key": "k"}});
    let cases = [
        (json!({"provider": "azure", "objectStorage": {"bucket": "b"}}), "`azure`"),
        (json!({"provider": "aws"}), "`bucket` is empty"),
        (json!({"provider": "aws", "objectStorage": both}), "both caCert and caCertRef"),
        (json!({"provider": "aws", "objectStorage": {"bucket": "b"}, "credential": {"name": "n"}}), "credential"),
        (
            json!({"provider": "aws", "objectStorage": {"bucket": "b"}, "config": {"credentialsFile": "/mine/keys"}}),
            "/mine/keys",
        ),
        (json!({"provider": "aws", "objectStorage": {"bucket": "b"}, "config": {"tagging": "team"}}), "`tagging`"),
        (
            json!({"provider": "aws", "objectStorage": {"bucket": "b"},
                "config": {"kmsKeyId": "k", "customerKeyEncryptionFile": "f"}}),
            "exclude each other",
        ),
    ];
    for (spec, says) in cases {
        let problem = wanted(&location(spec), "shop", &clouds()).unwrap_err();
        assert_eq!(problem.reason, Reason::RepositoryInvalid);
        assert!(
            problem.cause.contains("BackupStorageLocation lab") && problem.cause.contains(says),
            "{}",
            problem.cause
        );
    }
    let gone = missing("eu");
    assert!(gone.reason == Reason::StorageLocationMissing && gone.cause.contains("BackupStorageLocation eu"));
}

#[test]
fn an_existing_claim_serves_when_it_asks_for_exactly_the_same() {
    let want = read(&simple());
    let same = want.claim("velero");
    let bound = |name: &str, claim: &BackupRepositoryClaim, repository: &str| {
        let mut claim = claim.clone();
        claim.metadata.name = Some(name.to_owned());
        claim.backup_repository = Some(repository.to_owned());
        claim
    };
    let with = |change: fn(&mut BackupRepositoryClaim)| {
        let mut other = bound("brc-other", &same, "br-other");
        change(&mut other);
        other
    };
    let others = [
        with(|c| c.allowed_namespaces = Some(vec!["office".to_owned()])),
        with(|c| c.allowed_namespaces = None),
        with(|c| c.credential_secret = None),
        with(|c| c.repository_driver = "other".to_owned()),
        with(|c| c.metadata.deletion_timestamp = Some(api::Time(api::Timestamp::UNIX_EPOCH))),
        // the original's, with keys in clear
        with(|c| {
            c.credential_secret = None;
            c.repository_parameters.insert("aws_access_key_id".to_owned(), "AKIALAB".to_owned());
            c.repository_parameters.insert("aws_secret_access_key".to_owned(), "not-a-real-secret".to_owned());
        }),
    ];
    assert_eq!(want.choose(&others), Choice::Ask);
    let waiting = [others[0].clone(), same.clone()];
    assert_eq!(want.choose(&waiting), Choice::Await(same.metadata.name.as_deref().unwrap()));
    let ready = [same.clone(), bound("brc-2", &same, "br-2")];
    assert_eq!(want.choose(&ready), Choice::Use("br-2"), "rather the one that is ready");
}

#[test]
fn a_hundred_plugins_that_ask_at_once_make_one_claim() {
    let name = |location: &BackupStorageLocation, namespace: &str| {
        wanted(location, namespace, &clouds()).unwrap().claim("velero").metadata.name.unwrap()
    };
    assert_eq!(name(&simple(), "shop"), name(&simple(), "shop"));
    assert_ne!(name(&simple(), "shop"), name(&simple(), "office"));
    let mut other = simple();
    other.spec.credential = Some(api::parameters::SecretKey { name: "n".to_owned(), key: "k".to_owned() });
    assert_ne!(name(&simple(), "shop"), name(&other, "shop"));
    let parts: Vec<usize> = name(&simple(), "shop").split('-').map(str::len).collect();
    assert_eq!(parts, [3, 8, 4, 4, 4, 12], "brc- and the form of a UUID");
}
