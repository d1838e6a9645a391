//! Tables of the kernels, generated from `walsh-formats`.

use std::fmt::{Display, Write};

use walsh_formats::codebook::codebook;
use walsh_formats::kv::TqBits;
use walsh_formats::rotation::Rotation;

/// A table in the dialect.
pub(crate) fn table<T: Display>(
    kind: &str,
    name: &str,
    values: impl IntoIterator<Item = T>,
) -> String {
    let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
    let mut text = format!("TABLE {kind} {name}[{}] = {{", values.len());
    for (at, value) in values.iter().enumerate() {
        let _ = write!(text, "{}{value},", if at % 8 == 0 { "\n    " } else { " " });
    }
    text.push_str("\n};\n");
    text
}

/// Numbers of a table, each read back as the same bits.
pub(crate) fn floats(name: &str, values: &[f32]) -> String {
    table(
        "float",
        name,
        values.iter().map(|value| format!("{value:e}f")),
    )
}

/// The centroids of a codebook.
pub(crate) fn centroids(name: &str, bits: TqBits) -> String {
    floats(name, &codebook(bits).centroids)
}

/// Words of a table.
pub(crate) fn words(name: &str, values: &[u32]) -> String {
    let values = values.iter().map(|word| format!("{word:#x}u"));
    table("uint", name, values)
}

/// Words that CUDA's compiler knows. In Metal's language what a program has is `constant`, and no more.
pub(crate) fn known_words(name: &str, values: &[u32]) -> String {
    words(name, values).replacen("TABLE", "constexpr", 1)
}

/// The centroids of a codebook as halves, two to a word.
pub(crate) fn half_pairs(name: &str, bits: TqBits) -> String {
    let half = |x: &f32| u32::from(half::f16::from_f32(*x).to_bits());
    let pairs = codebook(bits).centroids.chunks(2);
    let pairs: Vec<u32> = pairs
        .map(|pair| half(&pair[0]) | half(&pair[1]) << 16)
        .collect();
    known_words(name, &pairs)
}

/// The boundaries of a codebook.
pub(crate) fn boundaries(name: &str, bits: TqBits) -> String {
    floats(name, &codebook(bits).boundaries)
}

/// The signs of a rotation as bits, 32 to a word; a set bit means −1.
pub(crate) fn signs(name: &str, rotation: &Rotation) -> String {
    let word = |signs: &[f32]| {
        signs
            .iter()
            .rev()
            .fold(0u32, |word, sign| word << 1 | u32::from(*sign < 0.0))
    };
    table(
        "uint",
        name,
        rotation
            .signs()
            .chunks(32)
            .map(|signs| format!("{:#x}u", word(signs))),
    )
}

/// The rows of a rotation's Paley factor as bits, or those of its transpose; a set bit means −1.
pub(crate) fn paley(name: &str, rotation: &Rotation, transposed: bool) -> String {
    let order = rotation.order();
    let negative = |i: usize, j: usize| rotation.paley_entry(i, j) < 0.0;
    let row = |i: usize| {
        (0..order).fold(0u32, |bits, j| {
            let set = if transposed {
                negative(j, i)
            } else {
                negative(i, j)
            };
            bits | u32::from(set) << j
        })
    };
    table("uint", name, (0..order).map(|i| format!("{:#x}u", row(i))))
}

/// What the exact boundaries of a codebook are above those of [`boundaries`].
pub(crate) fn boundaries_low(name: &str, bits: TqBits) -> String {
    let book = codebook(bits);
    let exact = book.exact.windows(2).map(|pair| 0.5 * (pair[0] + pair[1]));
    let low: Vec<f32> = exact
        .zip(&book.boundaries)
        .map(|(exact, rounded)| (exact - f64::from(*rounded)) as f32)
        .collect();
    floats(name, &low)
}
