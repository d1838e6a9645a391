//! What an adapter consists of.

use std::collections::BTreeMap;
use std::path::PathBuf;

use walsh_formats::{DType, ggml};

use crate::Result;

/// What is to be known of a model to read its adapters.
#[derive(Debug, Clone, Copy)]
pub struct Base<'a> {
    /// The architecture's name in GGUF.
    pub architecture: &'a str,
    /// Heads of queries.
    pub heads: u64,
    /// Heads of keys.
    pub kv_heads: u64,
}

/// An adapter, as GGUF has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The file or folder.
    pub path: PathBuf,
    /// The name of that, without an ending.
    pub name: String,
    /// What is added to each product that it has something for, by the name of its weight in GGUF without `.weight`.
    pub pairs: BTreeMap<String, Pair>,
}

/// What is added to a product's weight: B · A.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The rows of the weight.
    pub rows: usize,
    /// The columns of the weight.
    pub columns: usize,
    /// The rank.
    pub rank: usize,
    /// A, `[rank, columns]`.
    pub a: Vec<f32>,
    /// B, `[rows, rank]`, times what the file multiplies the product by (alpha over the rank).
    pub b: Vec<f32>,
}

/// A factor as a file has it.
pub(crate) struct Stored<'a> {
    pub(crate) dtype: DType,
    /// Outermost first.
    pub(crate) shape: Vec<u64>,
    pub(crate) data: &'a [u8],
}

impl Stored<'_> {
    /// Its numbers; all are finite.
    fn values(&self, name: &str) -> Result<Vec<f32>, String> {
        let count = self.shape.iter().product::<u64>();
        // Its bytes are there, so that their number is bounded by the file's length.
        let mut values = vec![0.0; count as usize];
        ggml::decode(self.dtype, self.data, &mut values)
            .map_err(|error| format!("tensor {name}: {error}"))?;
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(values),
            false => Err(format!(
                "tensor {name} has numbers that are not finite: the adapter is damaged"
            )),
        }
    }
}

impl Pair {
    /// Puts a pair together; `scale` is what the product is multiplied by.
    ///
    /// # Errors
    /// In words, when the factors do not fit each other or are not finite.
    pub(crate) fn new(
        [a_name, b_name]: [&str; 2],
        [a, b]: [&Stored<'_>; 2],
        scale: impl Fn(u64) -> f64,
    ) -> Result<Pair, String> {
        let (&[rank, columns], &[rows, inner]) = (&*a.shape, &*b.shape) else {
            return Err(format!(
                "tensors {a_name} and {b_name} have the shapes {:?} and {:?}: adapters of matrices are applied, not of experts' stacks or of others",
                a.shape, b.shape
            ));
        };
        if rank != inner {
            return Err(format!(
                "tensor {a_name} has a rank of {rank}, and {b_name} one of {inner}: the adapter is damaged"
            ));
        }
        if [rank, columns, rows].contains(&0) {
            return Err(format!("tensors {a_name} and {b_name} are empty"));
        }
        let scale = scale(rank);
        let (a, mut b) = (a.values(a_name)?, b.values(b_name)?);
        for value in &mut b {
            *value = (f64::from(*value) * scale) as f32;
        }
        if !b.iter().all(|value| value.is_finite()) {
            return Err(format!(
                "tensor {b_name} times {scale} is more than single precision holds"
            ));
        }
        Ok(Pair {
            rows: rows as usize,
            columns: columns as usize,
            rank: rank as usize,
            a,
            b,
        })
    }

    /// Puts the rows of B in another order: row `index` becomes what row `of(index)` was.
    pub(crate) fn reorder(&mut self, of: impl Fn(u64) -> u64) {
        let rank = self.rank;
        let row = |index: usize| {
            let from = of(index as u64) as usize * rank;
            &self.b[from..from + rank]
        };
        self.b = (0..self.rows).flat_map(row).copied().collect();
    }
}

/// The factors of products, while a file is read: which of A and B are there.
#[derive(Default)]
pub(crate) struct Halves<'a> {
    found: BTreeMap<String, [Option<(String, Stored<'a>)>; 2]>,
}

/// One product's factors, each with its name in the file: of the product, of A, of B.
pub(crate) type Whole<'a> = (String, [(String, Stored<'a>); 2]);

impl<'a> Halves<'a> {
    /// Takes A (`side` 0) or B (1) of a product.
    ///
    /// # Errors
    /// In words, when it was there before.
    pub(crate) fn put(
        &mut self,
        product: String,
        side: usize,
        (name, stored): (String, Stored<'a>),
    ) -> Result<(), String> {
        let sides = self.found.entry(product).or_default();
        match sides[side].replace((name, stored)) {
            None => Ok(()),
            Some((before, _)) => Err(format!("tensor {before} is there twice")),
        }
    }

    /// All of them.
    ///
    /// # Errors
    /// In words, when there are none, or one lacks its other half.
    pub(crate) fn whole(self) -> Result<Vec<Whole<'a>>, String> {
        if self.found.is_empty() {
            return Err("it has no tensors: it is no adapter".to_owned());
        }
        type Sides<'a> = [Option<(String, Stored<'a>)>; 2];
        let whole = |(product, sides): (String, Sides<'a>)| match sides {
            [Some(a), Some(b)] => Ok((product, [a, b])),
            [Some((name, _)), None] | [None, Some((name, _))] => Err(format!(
                "tensor {name} has no other half: an A and a B make a product"
            )),
            [None, None] => Err(format!("{product} is empty")),
        };
        self.found.into_iter().map(whole).collect()
    }
}

/// A number that products are multiplied by.
///
/// # Errors
/// In words, when it is 0 or not finite.
pub(crate) fn alpha(key: &str, value: f64) -> Result<f64, String> {
    match value.is_finite() && value != 0.0 {
        true => Ok(value),
        false => Err(format!(
            "{key} is {value}, which leaves nothing of the adapter: it is damaged, or was not trained"
        )),
    }
}
