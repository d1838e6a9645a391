//! What moves bytes without an op, on every backend.

use conformance::{Rng, Target, targets};
use walsh::{DType, Tensor};

#[test]
fn tensors_are_filled_with_tiles_and_copied_at_any_offset() {
    const BYTES: usize = 3 << 16;
    for Target { name, device, .. } in targets().expect("the devices") {
        println!("on {name}");
        let mut rng = Rng(1);
        let buffer = device.allocate(BYTES as u64).expect("memory");
        let whole = Tensor::new(buffer.clone(), 0, DType::U8, &[BYTES as u64]).expect("a view");
        let mut image = rng.bytes(BYTES);
        device.write(&whole, &image).expect("written");
        for _ in 0..40 {
            let tile_len = 1 + rng.below(300);
            let tile = rng.bytes(tile_len);
            let at = rng.below(BYTES / 2);
            let len = rng.below(BYTES / 2 - 1);
            let part = |at: usize, len: usize| {
                let view = Tensor::new(buffer.clone(), at as u64, DType::U8, &[len as u64]);
                view.expect("a view")
            };
            device.fill(&part(at, len), &tile).expect("filled");
            for (index, byte) in image[at..at + len].iter_mut().enumerate() {
                *byte = tile[index % tile.len()];
            }
            let len = rng.below(BYTES / 2);
            let (from, to) = (rng.below(BYTES / 2 - len), BYTES / 2 + 1);
            let len = len.min(BYTES - to);
            device
                .copy(&part(from, len), &part(to, len))
                .expect("copied");
            image.copy_within(from..from + len, to);
        }
        assert!(device.read::<u8>(&whole).expect("read") == image, "{name}");
    }
}
