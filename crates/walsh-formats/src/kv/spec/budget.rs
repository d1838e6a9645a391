//! Budgets: SPECs that name a number of bits.

use super::LayerKv;
use crate::kv::{KvCodec, KvCodecs, Tq, TqBits};

/// A number of bits per value to stay within, scales not counted, by the best pair and policy known for it. Once keys are
/// equalised and centred they need no more bits than values; half a bit left over goes to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Budget {
    /// `2.25bit`: keys and values of 2 bits.
    B2Quarter,
    /// `2.5bit`: keys of 3 bits, values of 2.
    B2Half,
    /// `3bit`: keys and values of 3 bits.
    B3,
    /// `3.5bit`: keys of 4 bits, values of 3.
    B3Half,
    /// `4bit`: keys and values of 4 bits.
    B4,
    /// `5bit`: keys and values of 5 bits.
    B5,
    /// `8bit`: 8 bits, and nothing else.
    B8,
}

impl Budget {
    /// Every budget, ascending.
    pub const ALL: [Budget; 7] = [
        Budget::B2Quarter,
        Budget::B2Half,
        Budget::B3,
        Budget::B3Half,
        Budget::B4,
        Budget::B5,
        Budget::B8,
    ];

    /// Its name in a SPEC.
    pub const fn name(self) -> &'static str {
        match self {
            Budget::B2Quarter => "2.25bit",
            Budget::B2Half => "2.5bit",
            Budget::B3 => "3bit",
            Budget::B3Half => "3.5bit",
            Budget::B4 => "4bit",
            Budget::B5 => "5bit",
            Budget::B8 => "8bit",
        }
    }

    /// The budget of a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|budget| budget.name() == name)
    }

    /// The bits per value, on average over keys and values of all layers.
    pub const fn bits(self) -> f64 {
        match self {
            Budget::B2Quarter => 2.25,
            Budget::B2Half => 2.5,
            Budget::B3 => 3.0,
            Budget::B3Half => 3.5,
            Budget::B4 => 4.0,
            Budget::B5 => 5.0,
            Budget::B8 => 8.0,
        }
    }

    /// What it stands for where all layers are kept alike.
    pub fn kv(self) -> LayerKv {
        let tq = |bits| KvCodec::Tq(Tq::new(bits));
        let (key, value) = match self {
            Budget::B2Quarter => (TqBits::B2, TqBits::B2),
            Budget::B2Half => (TqBits::B3, TqBits::B2),
            Budget::B3 => (TqBits::B3, TqBits::B3),
            Budget::B3Half => (TqBits::B4, TqBits::B3),
            Budget::B4 => (TqBits::B4, TqBits::B4),
            Budget::B5 => (TqBits::B5, TqBits::B5),
            Budget::B8 => (TqBits::B8, TqBits::B8),
        };
        LayerKv::standard(KvCodecs {
            key: tq(key),
            value: tq(value),
        })
    }
}
