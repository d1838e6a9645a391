//! Calibrations in files, one per model, in a folder.

use std::path::{Path, PathBuf};

use super::moments::{Calibration, KeyMoments};
use crate::container::{self, Kind, Section, Tag};
use crate::{Error, Model, Result};

/// The version goes up with the built-in text and with what is measured.
const KIND: Kind = Kind {
    tag: *b"KEYS",
    version: 1,
    oldest: 1,
    name: "a calibration",
};

/// The moments of all layers, one after the other, as singles.
const MOMENTS: Tag = *b"MOMT";

/// The file of a model's calibration.
fn path(model: &Model, folder: &Path) -> Result<PathBuf> {
    Ok(folder.join(format!("{}.keys", model.fingerprint()?)))
}

/// The calibration that was kept for a model. A file that is missing, damaged or of another version is none: it is
/// measured again, and replaced.
pub(super) fn load(model: &Model, folder: &Path) -> Option<Calibration> {
    let path = path(model, folder).ok()?;
    let mut sections = container::read(&path, KIND, model.origin().ok()?).ok()?;
    let bytes = sections.bytes(MOMENTS).ok()?;
    sections.finish().ok()?;
    let (words, rest) = bytes.as_chunks();
    let mut numbers: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    let widths = model.config().layers.iter();
    let widths: Vec<usize> = widths
        .map(|layer| layer.kv_heads * layer.head_dim)
        .collect();
    let whole = numbers.len() == 3 * widths.iter().sum::<usize>() && rest.is_empty();
    if !whole || !numbers.iter().all(|x| x.is_finite()) {
        return None;
    }
    let layers = widths.into_iter().map(|width| {
        let mut next = || numbers.drain(..width).collect();
        KeyMoments {
            key_mean: next(),
            key_square: next(),
            query_square: next(),
        }
    });
    Some(Calibration {
        layers: layers.collect(),
    })
}

/// Keeps a model's calibration.
pub(super) fn save(model: &Model, folder: &Path, calibration: &Calibration) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| Error::file(folder, &error))?;
    let numbers = calibration.layers.iter().flat_map(|layer| {
        let parts = [&layer.key_mean, &layer.key_square, &layer.query_square];
        parts.into_iter().flatten()
    });
    let bytes = numbers.flat_map(|x| x.to_le_bytes()).collect();
    let sections = vec![Section::of(MOMENTS, bytes)];
    container::write(&path(model, folder)?, KIND, model.origin()?, sections)
}
