//! Fits in files, one per model, in the folder of calibrations. One that is not whole yet lies in a file of its own, which
//! nothing but another run of the same fit reads.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{Fit, Sensitivity};
use crate::container::{self, Kind, Section, Tag};
use crate::{Error, Model, Result};

/// The version goes up with the built-in text and with what is measured.
const KIND: Kind = Kind {
    tag: *b"FITS",
    version: 1,
    oldest: 1,
    name: "a fit",
};

/// The number of tokens, 8 bytes, and the sensitivities of keys and values, layer after layer, as doubles.
const SENSITIVITIES: Tag = *b"SENS";

/// The file of a model's fit, and that of one that is not whole.
fn paths(model: &Model, folder: &Path) -> Result<[PathBuf; 2]> {
    let fingerprint = model.fingerprint()?;
    Ok(["fit", "part"].map(|ending| folder.join(format!("{fingerprint}.{ending}"))))
}

/// The fit that was kept for a model, if there is one.
///
/// # Errors
/// When the file cannot be read, or is damaged, another model's or of another version.
pub(super) fn load(model: &Model, folder: &Path) -> Result<Option<Fit>> {
    let [path, _] = paths(model, folder)?;
    match fs::symlink_metadata(&path).map_err(|error| (error.kind(), error)) {
        Ok(_) => {}
        // A folder that cannot be has nothing in it either.
        Err((ErrorKind::NotFound | ErrorKind::NotADirectory, _)) => return Ok(None),
        Err((_, error)) => return Err(Error::file(&path, &error)),
    }
    let refused = |what: &str| Error::saved(&path, format!("{what}; 'walsh fit' makes a new one"));
    let fit = read(model, &path).map_err(|error| match error {
        Error::Saved { what, .. } => refused(&what),
        other => other,
    })?;
    match fit.layers.len() == model.config().layers.len() {
        true => Ok(Some(fit)),
        false => Err(refused("the fit has not all of the model's layers")),
    }
}

/// What a run that was ended has left, none where nothing can be read.
pub(super) fn load_part(model: &Model, folder: &Path, tokens: usize) -> Vec<Sensitivity> {
    let part = paths(model, folder).and_then(|[_, path]| read(model, &path));
    let all = model.config().layers.len();
    match part {
        Ok(part) if part.tokens == tokens && part.layers.len() < all => part.layers,
        _ => Vec::new(),
    }
}

fn read(model: &Model, path: &Path) -> Result<Fit> {
    let mut sections = container::read(path, KIND, model.origin()?)?;
    let bytes = sections.bytes(SENSITIVITIES)?;
    let damaged = sections.damaged("its section SENS");
    sections.finish()?;
    let (words, rest) = bytes.as_chunks();
    let Some((tokens, sides)) = words.split_first().filter(|_| rest.is_empty()) else {
        return Err(damaged);
    };
    let sides: Vec<f64> = sides.iter().map(|word| f64::from_le_bytes(*word)).collect();
    let (layers, rest) = sides.as_chunks();
    let is_divergence = |side: &f64| side.is_finite() && *side >= 0.0;
    match usize::try_from(u64::from_le_bytes(*tokens)) {
        Ok(tokens) if rest.is_empty() && sides.iter().all(is_divergence) => Ok(Fit {
            tokens,
            layers: layers
                .iter()
                .map(|[keys, values]| Sensitivity {
                    keys: *keys,
                    values: *values,
                })
                .collect(),
        }),
        _ => Err(damaged),
    }
}

/// Finds out whether a fit can be kept, before it is measured.
pub(super) fn check(model: &Model, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| Error::file(folder, &error))?;
    paths(model, folder)?
        .iter()
        .try_for_each(container::check_writable)
}

/// Keeps what is known of a fit; a whole one takes the place of an earlier one, and of its own part.
pub(super) fn save(model: &Model, folder: &Path, fit: &Fit) -> Result<()> {
    let [whole, part] = paths(model, folder)?;
    let mut bytes = (fit.tokens as u64).to_le_bytes().to_vec();
    for layer in &fit.layers {
        bytes.extend(layer.keys.to_le_bytes());
        bytes.extend(layer.values.to_le_bytes());
    }
    let sections = vec![Section::of(SENSITIVITIES, bytes)];
    if fit.layers.len() < model.config().layers.len() {
        return container::write(&part, KIND, model.origin()?, sections);
    }
    container::write(&whole, KIND, model.origin()?, sections)?;
    match fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(&part, &error)),
        _ => Ok(()),
    }
}
