//! Texts in pages: where the keys and values of several texts lie, which share what they have in common. It knows no
//! thread, no request and no order of texts: sessions and engines have these and say what is to be read.

mod group;
mod layers;
mod pool;
mod texts;

pub(crate) use group::{PAGE, PageGroup, moved};
pub(crate) use layers::{GroupSize, Layers};
pub(crate) use pool::{Group, Pool, heads};
pub(crate) use texts::Texts;
