//! The ops: plain structs, each with one check of its arguments that holds for
//! every backend.

mod attention;
mod check;
mod cost;
mod elementwise;
mod embedding;
mod kv;
mod matmul;
mod norm;
mod rope;
mod select;

use std::fmt;

pub use attention::{AttentionDecode, AttentionPrefill, Mask};
pub use cost::Cost;
pub use elementwise::{Activation, Add, GatedActivation, Scale, SoftCap};
pub use embedding::EmbeddingRows;
pub use kv::KvStore;
pub use matmul::{MatMul, MatMulTopK};
pub use norm::{RmsNorm, SumBefore};
pub use rope::{Pairing, Rope, RopeConfig, RopeScaling};
pub use select::{ArgMax, TopK};

use crate::Result;
use crate::buffer::Span;
use crate::hazard::Accesses;
use crate::screen::Screen;

/// What every op can say of itself.
pub trait Operation {
    /// The op's name, as errors and listings show it.
    const NAME: &'static str;

    /// Checks shapes, types, sizes and overlaps.
    ///
    /// # Errors
    /// Names the first argument that does not fit, what was expected and what
    /// was given.
    fn validate(&self) -> Result<()>;

    /// What the op reads and writes.
    fn accesses(&self) -> Accesses;
}

macro_rules! ops {
    ($($name:ident),* $(,)?) => {
        /// Any op.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub enum Op {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)*
        }

        impl Op {
            /// The op's name.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => $name::NAME,)* }
            }

            /// Checks the arguments; see [`Operation::validate`].
            ///
            /// # Errors
            /// Names the first argument that does not fit.
            pub fn validate(&self) -> Result<()> {
                match self { $(Self::$name(op) => op.validate(),)* }
            }

            /// What the op reads and writes.
            #[must_use]
            pub fn accesses(&self) -> Accesses {
                match self { $(Self::$name(op) => op.accesses(),)* }
            }
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Self { Self::$name(op) }
        })*
    };
}

ops!(
    EmbeddingRows,
    RmsNorm,
    Rope,
    MatMul,
    MatMulTopK,
    KvStore,
    AttentionDecode,
    AttentionPrefill,
    GatedActivation,
    Add,
    Scale,
    SoftCap,
    ArgMax,
    TopK,
);

impl Op {
    /// The weights of products that it reads, and copies of them: they may be packed.
    pub(crate) fn weights(&self) -> Vec<Span> {
        match self {
            Self::MatMul(op) => vec![op.weight.span()],
            Self::MatMulTopK(op) => {
                let copies = op.screen.iter().flat_map(Screen::spans);
                copies.chain([op.weight.span()]).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name())?;
        match self {
            Self::EmbeddingRows(op) => write!(f, " {} -> {}", op.table, op.output),
            Self::RmsNorm(op) => write!(f, " {} -> {}", op.input, op.output),
            Self::Rope(op) => write!(f, " {} -> {}", op.input, op.output),
            Self::MatMul(op) => write!(f, " {} · {} -> {}", op.input, op.weight, op.output),
            Self::MatMulTopK(op) => {
                write!(f, " {} · {} -> {}", op.input, op.weight, op.indices)
            }
            Self::KvStore(op) => write!(f, " {} -> {}", op.keys, op.cache.codecs()),
            Self::AttentionDecode(op) => {
                write!(
                    f,
                    " {} over {} -> {}",
                    op.query,
                    op.cache.codecs(),
                    op.output
                )
            }
            Self::AttentionPrefill(op) => {
                write!(
                    f,
                    " {} over {} + fresh -> {}",
                    op.query,
                    op.cache.codecs(),
                    op.output
                )
            }
            Self::GatedActivation(op) => {
                write!(f, " {:?} {} -> {}", op.activation, op.gate, op.output)
            }
            Self::Add(op) => write!(f, " {} + {} -> {}", op.a, op.b, op.output),
            Self::Scale(op) => write!(f, " {} × {} -> {}", op.input, op.factor, op.output),
            Self::SoftCap(op) => write!(f, " {} cap {} -> {}", op.input, op.cap, op.output),
            Self::ArgMax(op) => write!(f, " {} -> {}", op.input, op.output),
            Self::TopK(op) => write!(f, " {} -> {}", op.input, op.indices),
        }
    }
}
