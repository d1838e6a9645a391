//! The ops: plain structs, each with one check of its arguments that holds for
//! every backend.

mod attention;
mod check;
mod cost;
mod elementwise;
mod embedding;
mod experts;
mod kv;
mod kv_decode;
mod matmul;
mod norm;
mod operation;
mod recurrent;
mod rope;
mod rotate;
mod select;

use std::fmt;

pub use attention::{Attention, Fresh, Mask};
pub use cost::Cost;
pub use elementwise::{Activation, Add, GatedActivation, Scale, SoftCap};
pub use embedding::EmbeddingRows;
pub use experts::{ExpertMatMul, ExpertRoute, ExpertSum, Scoring};
pub use kv::KvStore;
pub use kv_decode::{KvDecode, VectorSpace};
pub use matmul::{MatMul, MatMulTopK};
pub use norm::{RmsNorm, SumBefore};
pub use operation::Operation;
pub use recurrent::{DeltaRule, HeadOrder, ShortConv};
pub use rope::{Pairing, Rope, RopeConfig, RopeScaling, Temperature};
pub use rotate::{Direction, Rotate};
pub use select::{ArgMax, TopK};

use crate::Result;
use crate::buffer::Span;
use crate::hazard::Accesses;

macro_rules! ops {
    ($($name:ident),* $(,)?) => {
        /// Any op.
        #[derive(Debug, Clone)]
        pub enum Op {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)*
        }

        impl Op {
            /// The names of all ops.
            pub const NAMES: &'static [&'static str] = &[$($name::NAME),*];

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

            /// The weights of products that it reads, and copies of them: they may be
            /// packed.
            #[must_use]
            pub fn weights(&self) -> Vec<Span> {
                match self { $(Self::$name(op) => op.weights(),)* }
            }

            /// What the op costs when each sequence of a cache that it attends over
            /// holds `stored` tokens: the queries' own included for a decode, those
            /// before the chunk for a prefill. What overlays keep in another codec is
            /// not told apart.
            #[must_use]
            pub fn cost(&self, stored: u64) -> Cost {
                match self { $(Self::$name(op) => op.cost(stored),)* }
            }
        }

        impl fmt::Display for Op {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} ", self.name())?;
                match self { $(Self::$name(op) => op.describe(f),)* }
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
    KvDecode,
    Rotate,
    Attention,
    GatedActivation,
    Add,
    Scale,
    SoftCap,
    ArgMax,
    TopK,
    ExpertRoute,
    ExpertMatMul,
    ExpertSum,
    ShortConv,
    DeltaRule,
);
