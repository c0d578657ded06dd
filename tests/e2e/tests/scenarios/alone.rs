//! (to come)
pub(crate) const SCENARIOS: &[(&str, crate::Scenario)] = &[];
