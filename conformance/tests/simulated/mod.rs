//! The simulator as a target.

use conformance::Target;
use walsh_sim::SimOptions;

/// Opens a simulator.
///
/// # Errors
/// As [`walsh_sim::open`].
pub(crate) fn target(seed: u64) -> walsh::Result<Target> {
    let options = SimOptions {
        seed,
        ..SimOptions::default()
    };
    Ok(Target {
        name: "sim".into(),
        device: walsh_sim::open(options)?,
        approximates: true,
    })
}
