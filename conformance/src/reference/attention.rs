use walsh::ops::Mask;

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; they divide the query heads.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
}

/// One token's keys and values, `[kv_heads, head_dim]` each.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its position.
    pub position: i64,
    /// Its keys.
    pub keys: Vec<f32>,
    /// Its values.
    pub values: Vec<f32>,
}

/// How scores become weights.
#[derive(Debug, Clone, Copy)]
pub struct Softmax<'a> {
    /// Scale, window and soft cap.
    pub mask: Mask,
    /// One logit per head that goes to no value.
    pub sinks: Option<&'a [f32]>,
}

/// Attention of queries `[positions, heads, head_dim]` over the rows that each
/// may see, which `rows` gives for a query's position. One that sees none gives
/// zeros.
#[must_use]
pub fn attention<'a>(
    shape: AttentionShape,
    query: &[f32],
    positions: &[i32],
    rows: &dyn Fn(i64) -> Vec<&'a Row>,
    softmax: Softmax<'_>,
) -> Vec<f64> {
    let dim = shape.head_dim;
    let group = shape.heads / shape.kv_heads;
    let mask = &softmax.mask;
    let mut out = Vec::with_capacity(query.len());
    for (tokens, own) in query.chunks_exact(shape.heads * dim).zip(positions) {
        let own = i64::from(*own);
        let first = mask.window.map_or(i64::MIN, |w| own - i64::from(w) + 1);
        let mut seen = rows(own);
        seen.retain(|row| (first..=own).contains(&row.position));
        for (head, q) in tokens.chunks_exact(dim).enumerate() {
            let start = head / group * dim;
            let scores: Vec<f64> = seen
                .iter()
                .map(|row| score(q, &row.keys[start..start + dim], mask))
                .collect();
            let sink = softmax.sinks.map(|sinks| f64::from(sinks[head]));
            let logits = scores.iter().copied().chain(sink);
            let most = logits.clone().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
            let total: f64 = logits.map(|logit| (logit - most).exp()).sum();
            for channel in start..start + dim {
                let weighted = seen.iter().zip(&weights);
                let sum: f64 = weighted
                    .map(|(row, weight)| weight * f64::from(row.values[channel]))
                    .sum();
                let nothing = seen.is_empty() && sink.is_none();
                out.push(if nothing { 0.0 } else { sum / total });
            }
        }
    }
    out
}

fn score(q: &[f32], k: &[f32], mask: &Mask) -> f64 {
    let dot: f64 = q
        .iter()
        .zip(k)
        .map(|(q, k)| f64::from(*q) * f64::from(*k))
        .sum();
    let score = dot * f64::from(mask.scale);
    match mask.softcap {
        Some(cap) => super::softcap(score, f64::from(cap)),
        None => score,
    }
}
