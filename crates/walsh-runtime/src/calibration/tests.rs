use walsh::ops::{Pairing, RopeConfig};

use super::*;

const DIM: usize = 8;

/// Two heads whose channels differ in size by powers of two.
fn moments() -> KeyMoments {
    let squares = |step: i32| {
        (0..2 * DIM as i32)
            .map(|c| 4f32.powi(step * c % 7))
            .collect()
    };
    KeyMoments {
        key_mean: (0..2 * DIM).map(|c| c as f32 * 0.01).collect(),
        key_square: squares(1),
        query_square: squares(-2),
    }
}

fn rope(pairing: Pairing, dims: u64) -> RopeConfig {
    RopeConfig::new(dims, 10_000.0, pairing)
}

#[test]
fn channels_that_rope_turns_together_share_a_factor() {
    for (pairing, dims, pairs) in [
        (Pairing::Pairwise, 8, [(0, 1), (2, 3), (6, 7)]),
        (Pairing::HalfSplit, 8, [(0, 4), (1, 5), (3, 7)]),
        (Pairing::HalfSplit, 4, [(0, 2), (1, 3), (5, 5)]),
    ] {
        let e = moments().equaliser(Some(&rope(pairing, dims)), DIM, false);
        assert_eq!(e.len(), 2 * DIM);
        for head in [0, DIM] {
            for (a, b) in pairs {
                assert_eq!(e[head + a], e[head + b]);
            }
            let product: f32 = e[head..head + DIM].iter().map(|x| x.ln()).sum();
            assert!(product.abs() < 1e-4);
        }
        assert!(e.windows(2).any(|pair| pair[0] != pair[1]));
    }
}

#[test]
fn keys_and_queries_come_out_alike() {
    // Without pairs, what remains of k/e is to what remains of q·e as everywhere else.
    let moments = moments();
    let e = moments.equaliser(Some(&rope(Pairing::Pairwise, 0)), DIM, false);
    let ratio = |c: usize| {
        let (k, q) = (moments.key_square[c].sqrt(), moments.query_square[c].sqrt());
        (k / e[c]) / (q * e[c])
    };
    for channel in 0..DIM {
        assert!((ratio(channel) / ratio(0) - 1.0).abs() < 1e-4);
    }
}

#[test]
fn channels_without_keys_or_queries_are_left_alone() {
    let mut moments = moments();
    moments.key_square[3] = 0.0;
    moments.query_square[5] = 0.0;
    moments.key_square[6] = f32::INFINITY;
    let e = moments.equaliser(Some(&rope(Pairing::Pairwise, 0)), DIM, false);
    assert!(e.iter().all(|x| x.is_finite() && *x > 0.0));
}

#[test]
fn a_mean_that_is_most_of_the_keys_is_a_bias() {
    let layer = |mean: f32, spread: f32| KeyMoments {
        key_mean: vec![mean; DIM],
        key_square: vec![mean * mean + spread; DIM],
        query_square: vec![1.0; DIM],
    };
    let calibration = Calibration {
        layers: vec![
            layer(1.0, 1.0),
            layer(600.0, 1.0),
            layer(0.0, 1.0),
            layer(20.0, 1.0),
        ],
    };
    assert_eq!(calibration.biased_layers(|_| true), [1, 3]);
    assert_eq!(calibration.biased_layers(|layer| layer != 1), [3]);
}
