//! Models whose weights a device has packed.

use walsh::Isa;
use walsh_runtime::Model;

use super::{go_on, open_on, options};
use crate::tiny::Tiny;

fn models(settings: &str) -> [Model; 2] {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let gguf = Tiny::default().gguf();
    ["never", "always"].map(|how| {
        let device = format!("cpu:threads=2,packing={how}{settings}");
        open_on(&device, &folder, "model.gguf", &gguf)
    })
}

fn logits(model: &Model) -> Vec<f32> {
    let mut session = model.session(options("f16")).expect("a session");
    go_on(&mut session, 3)
        .into_iter()
        .map(f32::from_bits)
        .collect()
}

#[test]
fn packing_changes_no_logit_by_more_than_rounding_does() {
    let [plain, packed] = models("");
    assert_eq!(plain.packed_bytes(), 0);
    if Isa::detect() == Isa::Avx512 {
        assert!(packed.packed_bytes() > 0);
    }
    let (expected, found) = (logits(&plain), logits(&packed));
    let largest = expected
        .iter()
        .fold(0.0f32, |most, logit| most.max(logit.abs()));
    for (expected, found) in expected.iter().zip(&found) {
        // A sum in another order flips a few 8-bit codes of activations.
        assert!(
            (expected - found).abs() <= 0.02 * largest,
            "{expected} {found} of {largest}"
        );
    }
}

#[test]
fn activations_in_single_precision_read_weights_as_they_are_stored() {
    let [plain, packed] = models(",activations=f32");
    assert_eq!(packed.packed_bytes(), 0);
    assert_eq!(logits(&plain), logits(&packed));
}
