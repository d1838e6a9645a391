use super::{AttentionDecode, AttentionPrefill, EmbeddingRows, KvStore, MatMul, MatMulTopK, Op};
use crate::kv_cache::{KvCache, KvRows, KvSide};
use crate::screen::Screen;
use crate::tensor::Tensor;

/// What an op cannot do with less of: the yardstick of its speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// The bytes that pass between memory and processor when every input is read
    /// once and every output written once.
    pub bytes: u64,
    /// The multiplications and additions of matrix products and attention; 0 for ops
    /// that have none.
    pub operations: u64,
}

impl Op {
    /// What the op costs when each sequence of a cache that it attends over holds
    /// `stored` tokens: the queries' own included for a decode, those before the
    /// chunk for a prefill. What overlays keep in another codec is not told apart.
    #[must_use]
    pub fn cost(&self, stored: u64) -> Cost {
        match self {
            Self::MatMul(op) => product(op),
            Self::MatMulTopK(op) => largest_products(op),
            Self::EmbeddingRows(op) => embedding(op),
            Self::KvStore(op) => store(op),
            Self::AttentionDecode(op) => decode(op, stored),
            Self::AttentionPrefill(op) => prefill(op, stored),
            _ => Cost {
                bytes: self.all_bytes(),
                operations: 0,
            },
        }
    }

    /// All that the op reads and writes.
    fn all_bytes(&self) -> u64 {
        let accesses = self.accesses();
        let spans = accesses.reads.iter().chain(&accesses.writes);
        spans.map(|span| span.bytes).sum()
    }
}

fn bytes<'t>(tensors: impl IntoIterator<Item = &'t Tensor>) -> u64 {
    tensors.into_iter().map(Tensor::bytes).sum()
}

fn product(op: &MatMul) -> Cost {
    Cost {
        bytes: bytes(
            [&op.weight, &op.input, &op.output]
                .into_iter()
                .chain(&op.bias),
        ),
        operations: 2 * op.input.row_count() * op.weight.elements(),
    }
}

/// With a screen, that of its copy: how many rows of the weight are read beside it
/// depends on the numbers.
fn largest_products(op: &MatMulTopK) -> Cost {
    let weight = op.screen.as_ref().map_or(op.weight.bytes(), Screen::bytes);
    Cost {
        bytes: weight + bytes([&op.input, &op.values, &op.indices]),
        operations: 2 * op.input.row_count() * op.weight.elements(),
    }
}

fn embedding(op: &EmbeddingRows) -> Cost {
    let row = op.table.bytes().checked_div(op.table.row_count());
    Cost {
        bytes: bytes([&op.ids, &op.output]) + op.ids.elements() * row.unwrap_or(0),
        operations: 0,
    }
}

/// The bytes of one vector of one head.
fn vector_bytes(rows: &KvRows) -> u64 {
    (rows.codec.code_bytes() + rows.codec.scale_bytes()) as u64
}

/// The bytes of so many tokens of one sequence, keys and values of all heads.
fn token_bytes(cache: &KvCache, tokens: u64) -> u64 {
    let row = vector_bytes(&cache.key().rows) + vector_bytes(&cache.value().rows);
    tokens * cache.kv_heads() * row
}

fn store(op: &KvStore) -> Cost {
    let tokens = op.keys.shape()[0];
    let slots = op.cache.overlay().map_or(0, |overlay| overlay.slots());
    let kept = |side: &KvSide| {
        let row = side.overlay.as_ref().map_or(0, vector_bytes);
        tokens.min(slots) * op.cache.kv_heads() * row
    };
    let inputs = bytes(
        [&op.keys, &op.values, &op.positions]
            .into_iter()
            .chain(&op.sequences),
    );
    Cost {
        bytes: inputs
            + token_bytes(&op.cache, tokens)
            + kept(op.cache.key())
            + kept(op.cache.value()),
        operations: 0,
    }
}

/// How many stored tokens a query at the end sees.
fn seen(window: Option<u32>, stored: u64) -> u64 {
    stored.min(window.map_or(u64::MAX, u64::from))
}

fn decode(op: &AttentionDecode, stored: u64) -> Cost {
    let seen = seen(op.mask.window, stored);
    let sequences = op.sequences.as_ref().map_or(1, |_| op.cache.sequences());
    Cost {
        bytes: bytes([&op.query, &op.output, &op.positions])
            + sequences * token_bytes(&op.cache, seen),
        operations: 4 * op.query.elements() * seen,
    }
}

fn prefill(op: &AttentionPrefill, stored: u64) -> Cost {
    let chunk = op.query.shape()[0];
    let stored = seen(op.mask.window, stored);
    let sequences = op.sequences.as_ref().map_or(1, |_| op.cache.sequences());
    let inputs = bytes([&op.query, &op.keys, &op.values, &op.output, &op.positions]);
    // A query sees those of its chunk up to itself: half of them, over all queries.
    let within = seen(op.mask.window, chunk.div_ceil(2));
    Cost {
        bytes: inputs + sequences * token_bytes(&op.cache, stored),
        operations: 4 * op.query.elements() * (stored + within),
    }
}
