//! The simulator as a target.

use conformance::Target;
use walsh::Activations;
use walsh_sim::SimOptions;

/// Opens a simulator.
///
/// # Errors
/// As [`walsh_sim::open`].
pub(crate) fn target(seed: u64) -> walsh::Result<Target> {
    with(seed, Activations::Int8)
}

/// Opens a simulator whose products read their input so.
///
/// # Errors
/// As [`walsh_sim::open`].
pub(crate) fn with(seed: u64, activations: Activations) -> walsh::Result<Target> {
    let mut options = SimOptions {
        seed,
        ..SimOptions::default()
    };
    options.limits.activations = activations;
    let approximates = activations == Activations::Int8;
    Ok(Target {
        name: if approximates {
            "sim"
        } else {
            "sim,activations=f32"
        }
        .into(),
        device: walsh_sim::open(options)?,
        approximates,
        extends: false,
        packs: false,
        team: None,
    })
}
