//! Which adapters a text takes.

use super::Rack;
use crate::{Error, Result};

pub(super) fn check_scale(scale: f32) -> Result<()> {
    match scale.is_finite() {
        true => Ok(()),
        false => Err(Error::option("lora", "a scale that is finite", scale)),
    }
}

/// The adapters that a text takes and how much of each, by ascending number; equal ones have the very same scales.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Selection(Vec<(usize, u32)>);

impl Selection {
    /// Those of `count` adapters that are named with a scale other than 0.
    ///
    /// # Errors
    /// When there is no such adapter, one is named twice, or a scale is not finite.
    pub(crate) fn new(scales: &[(usize, f32)], count: usize) -> Result<Self> {
        let mut chosen = Vec::with_capacity(scales.len());
        for &(index, scale) in scales {
            check_scale(scale)?;
            if index >= count {
                let expected = match count {
                    0 => "nothing, since the model has no adapters".to_owned(),
                    count => format!("adapters below the model's {count}"),
                };
                return Err(Error::option("lora", expected, index));
            }
            chosen.push((index, scale.to_bits()));
        }
        chosen.sort_unstable();
        if let Some(twice) = chosen.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::option("lora", "each adapter once", twice[0].0));
        }
        chosen.retain(|(_, scale)| f32::from_bits(*scale) != 0.0);
        Ok(Self(chosen))
    }

    /// Each adapter's number and scale.
    pub(crate) fn chosen(&self) -> impl ExactSizeIterator<Item = (usize, f32)> {
        self.0
            .iter()
            .map(|(index, scale)| (*index, f32::from_bits(*scale)))
    }

    /// The scale of an adapter, 0 where it is not taken.
    pub(crate) fn scale(&self, adapter: usize) -> f32 {
        let found = self.chosen().find(|(index, _)| *index == adapter);
        found.map_or(0.0, |(_, scale)| scale)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What tells it from others, whatever the adapters' places: of each what tells it apart, and its scale.
    pub(crate) fn bytes(&self, rack: &Rack) -> Vec<u8> {
        let mut all: Vec<[u8; 20]> = Vec::with_capacity(self.len());
        for (index, scale) in &self.0 {
            let mut bytes = [0; 20];
            bytes[..16].copy_from_slice(&rack.adapters[*index].fingerprint);
            bytes[16..].copy_from_slice(&scale.to_le_bytes());
            all.push(bytes);
        }
        all.concat()
    }

    /// The selection that [`bytes`](Self::bytes) were made of; `None` where an adapter is not there.
    pub(crate) fn from_bytes(bytes: &[u8], rack: Option<&Rack>) -> Option<Self> {
        let (entries, rest) = bytes.as_chunks::<20>();
        let find = |entry: &[u8; 20]| {
            let (fingerprint, scale) = entry.split_first_chunk::<16>()?;
            let mut adapters = rack?.adapters.iter();
            let index = adapters.position(|adapter| adapter.fingerprint == *fingerprint)?;
            Some((index, f32::from_le_bytes(scale.try_into().ok()?)))
        };
        let chosen: Option<Vec<_>> = entries.iter().map(find).collect();
        let count = rack.map_or(0, |rack| rack.adapters.len());
        Self::new(&chosen.filter(|_| rest.is_empty())?, count).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_for_nothing_is_not_chosen() {
        let chosen = Selection::new(&[(2, 0.5), (0, 1.0), (1, -0.0)], 3).expect("a selection");
        assert_eq!(chosen.chosen().collect::<Vec<_>>(), [(0, 1.0), (2, 0.5)]);
        assert!(Selection::new(&[(0, 0.0)], 1).expect("nothing").is_empty());
    }

    #[test]
    fn what_cannot_be_chosen_is_refused() {
        for (scales, words) in [
            (&[(3, 1.0)][..], "adapters below the model's 3"),
            (&[(1, 1.0), (1, 0.0)], "each adapter once"),
            (&[(0, f32::NAN)], "finite"),
            (&[(0, f32::INFINITY)], "finite"),
        ] {
            let error = Selection::new(scales, 3).expect_err("an error").to_string();
            assert!(error.contains(words), "{error}");
        }
        let error = Selection::new(&[(0, 1.0)], 0).expect_err("an error");
        assert!(error.to_string().contains("no adapters"), "{error}");
    }
}
