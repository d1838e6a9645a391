/// The arguments of [`rms_norm`], row after row.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// Numbers per row.
    pub width: usize,
    /// The rows.
    pub input: &'a [f32],
    /// Added to the input first.
    pub before: Option<&'a [f32]>,
    /// One factor per column.
    pub weight: Option<&'a [f32]>,
    /// Added to the mean square.
    pub eps: f32,
    /// Added to the result.
    pub after: Option<&'a [f32]>,
}

/// What [`rms_norm`] gives.
#[derive(Debug, Clone)]
pub struct Normed {
    /// Input and addend, rounded to `f32` as it is stored.
    pub sum: Vec<f32>,
    /// The normalised numbers before `after` is added.
    pub normed: Vec<f64>,
    /// The result.
    pub output: Vec<f64>,
}

/// Root-mean-square normalisation of rows.
#[must_use]
pub fn rms_norm(norm: Norm) -> Normed {
    let at = |numbers: Option<&[f32]>, index| numbers.map_or(0.0, |numbers: &[f32]| numbers[index]);
    let count = norm.input.len();
    let sum: Vec<f32> = match norm.before {
        Some(before) => norm.input.iter().zip(before).map(|(a, b)| a + b).collect(),
        None => norm.input.to_vec(),
    };
    let mut normed = Vec::with_capacity(count);
    for row in sum.chunks_exact(norm.width) {
        let squares: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
        let factor = 1.0 / (squares / norm.width as f64 + f64::from(norm.eps)).sqrt();
        for (column, x) in row.iter().enumerate() {
            let weight = norm.weight.map_or(1.0, |weight| f64::from(weight[column]));
            normed.push(f64::from(*x) * factor * weight);
        }
    }
    let output = (0..count)
        .map(|i| normed[i] + f64::from(at(norm.after, i)))
        .collect();
    Normed {
        sum,
        normed,
        output,
    }
}
