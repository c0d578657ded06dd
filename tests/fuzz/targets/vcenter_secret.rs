//! The CSI driver's configuration, as somebody wrote it into a Secret.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match vsphere::secret::parse(text) {
        Ok(centers) => {
            for center in centers {
                let _ = center.config(|_| Ok("no certificate".to_owned())).map(|config| config.server());
            }
        }
        Err(why) => assert!(why.line <= text.lines().count() + 1, "{why}"),
    }
});
