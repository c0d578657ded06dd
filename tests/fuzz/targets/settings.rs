//! What users write into ConfigMaps, storage locations and repositories: schedules of limits, times, volume policies, parameters.
#![no_main]

use std::collections::BTreeMap;

use api::Timestamp;
use api::parameters::RepositoryParameters;
use libfuzzer_sys::fuzz_target;
use lifecycle::limits::Limits;
use lifecycle::velero::blocked::Blocked;
use lifecycle::velero::parameters::{self, DefaultCredentials};
use lifecycle::velero::policy::Policies;

fuzz_target!(|text: &str| {
    match Limits::read(Some(text)) {
        Ok(limits) => {
            for day in 0..8 {
                for minute in [0, 479, 480, 1079, 1439] {
                    let moment = Timestamp::from_second((day * 1440 + minute) * 60).expect("the first week of 1970");
                    let _ = limits.at(moment).map(|limit| limit.rate);
                }
            }
            let _ = (limits.at(Timestamp::MIN), limits.at(Timestamp::MAX));
        }
        Err(why) => drop(why.to_string()),
    }
    let _ = lifecycle::orphans::Settings::read(Some(text), Some(text));
    let _ = lifecycle::maintenance::Settings::read(Some(text), Some(text), true);
    let _ = lifecycle::retry::UploadRetries::from_setting(Some(text)).limit();
    let data = BTreeMap::from([("policies".to_owned(), text.to_owned())]);
    if let Ok(policies) = Policies::read("policies", Some(&data)) {
        let _ = policies.action_for(None, None);
    }
    // a line is a key and its value
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    let pairs: BTreeMap<_, _> = text.lines().filter_map(pair).collect();
    let _ = (RepositoryParameters::from_map(&pairs), Blocked::read(Some(&pairs)));
    let _ = lifecycle::velero::Settings::read(&pairs, &pairs, &[text.to_owned()]);
    if let Ok(location) = serde_json::from_str(text) {
        let _ = parameters::wanted(&location, "shop", &DefaultCredentials::None);
    }
});
