//! Which Secrets describe vCenter ([`secrets()`]), and which of several vCenters has a disk ([`which()`]). Asks nobody.

mod secrets;
mod which;

pub use secrets::{CSI_NAMESPACE, SecretPlace, elsewhere, forbidden, missing, secrets, switched_off};
pub use which::{Answer, which};
