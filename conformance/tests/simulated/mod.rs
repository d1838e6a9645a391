//! The simulator as a target.

use conformance::Target;
use walsh_sim::SimOptions;

/// The ops that have kernels.
const OPS: &[&str] = &[
    "GatedActivation",
    "Add",
    "Scale",
    "SoftCap",
    "EmbeddingRows",
    "MatMul",
    "RmsNorm",
    "Rope",
    "ArgMax",
    "TopK",
    "KvStore",
    "AttentionDecode",
    "AttentionPrefill",
];

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

/// Whether the simulator runs an op.
pub(crate) fn runs(op: &str) -> bool {
    OPS.contains(&op)
}
