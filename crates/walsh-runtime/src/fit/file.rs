//! Fits in files, one per model, in the folder of calibrations. One that is not whole yet lies in a file of its own, which
//! nothing but another run of the same fit reads.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{Fit, Sensitivity};
use crate::container::{self, Kind, Section, Sections, Tag};
use crate::{Error, Model, Result};

/// The version goes up with the built-in text, with what is measured, and with what codes are.
const KIND: Kind = Kind {
    tag: *b"FITS",
    version: 2,
    oldest: 2,
    name: "a fit",
};

/// The number of tokens, 8 bytes, and the sensitivities of keys and values, layer after layer, as doubles.
const SENSITIVITIES: Tag = *b"SENS";

/// The fits of the catalogue's models, each the file that `walsh fit` writes (docs/book/src/kv.md has the command).
const SHIPPED: [(&str, &[u8]); 3] = [
    (
        "smollm2-135m.fit",
        include_bytes!("shipped/smollm2-135m.fit"),
    ),
    ("gemma3-270m.fit", include_bytes!("shipped/gemma3-270m.fit")),
    (
        "qwen2.5-coder-1.5b.fit",
        include_bytes!("shipped/qwen2.5-coder-1.5b.fit"),
    ),
];

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
    parse(container::read(path, KIND, model.origin()?)?)
}

/// The fit that comes with Walsh for a model of the catalogue, none for every other.
///
/// # Errors
/// When it has not all of the model's layers.
pub(super) fn shipped(model: &Model) -> Result<Option<Fit>> {
    let origin = model.origin()?;
    let is_its =
        |(_, bytes): &&(&str, &[u8])| container::fingerprint_of(bytes) == Some(origin.fingerprint);
    let Some((name, bytes)) = SHIPPED.iter().find(is_its) else {
        return Ok(None);
    };
    let path = Path::new(name);
    let fit = parse(container::read_bytes((path, bytes), KIND, origin)?)?;
    match fit.layers.len() == model.config().layers.len() {
        true => Ok(Some(fit)),
        false => Err(Error::saved(
            path,
            "the fit that comes with Walsh has not all of the model's layers: this is a fault of Walsh, report it",
        )),
    }
}

fn parse(mut sections: Sections<impl Read>) -> Result<Fit> {
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

fn sections(fit: &Fit) -> Vec<Section<'static>> {
    let mut bytes = (fit.tokens as u64).to_le_bytes().to_vec();
    for layer in &fit.layers {
        bytes.extend(layer.keys.to_le_bytes());
        bytes.extend(layer.values.to_le_bytes());
    }
    vec![Section::of(SENSITIVITIES, bytes)]
}

/// Keeps what is known of a fit; a whole one takes the place of an earlier one, and of its own part.
pub(super) fn save(model: &Model, folder: &Path, fit: &Fit) -> Result<()> {
    let [whole, part] = paths(model, folder)?;
    let sections = sections(fit);
    if fit.layers.len() < model.config().layers.len() {
        return container::write(&part, KIND, model.origin()?, sections);
    }
    container::write(&whole, KIND, model.origin()?, sections)?;
    match fs::remove_file(&part) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::file(&part, &error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Origin;
    use crate::model::fingerprint::Fingerprint;
    use crate::store::Catalogue;

    #[test]
    fn fits_of_the_catalogue_are_files_as_they_are_written_today() {
        let catalogue = Catalogue::builtin();
        let names = catalogue
            .models()
            .iter()
            .map(|entry| format!("{}.fit", entry.name));
        let shipped = SHIPPED.iter().map(|(name, _)| (*name).to_owned());
        assert_eq!(names.collect::<Vec<_>>(), shipped.collect::<Vec<_>>());

        let folder = tempfile::tempdir().expect("a folder");
        let mut fingerprints = Vec::new();
        for (name, bytes) in SHIPPED {
            let fingerprint = container::fingerprint_of(bytes).expect("a header");
            assert!(!fingerprints.contains(&fingerprint), "{name} is another's");
            fingerprints.push(fingerprint);
            let model = &bytes[52..][..usize::from(bytes[20])];
            let origin = Origin {
                fingerprint,
                name: std::str::from_utf8(model).expect("a name"),
            };
            let path = folder.path().join(name);
            let fit = container::read_bytes((&path, bytes), KIND, origin).and_then(parse);
            let fit = fit.expect("a fit of this version");
            // Gemma 3's layers have windows of 512 tokens.
            let window = if name.starts_with("gemma3") { 512 } else { 0 };
            assert_eq!(fit.tokens, window + crate::FitOptions::TOKENS, "{name}");
            container::write(&path, KIND, origin, sections(&fit)).expect("written");
            assert!(fs::read(&path).expect("read") == bytes, "{name}");

            let other = Origin {
                fingerprint: Fingerprint::from_bytes([0; 16]),
                ..origin
            };
            assert!(container::read_bytes((&path, bytes), KIND, other).is_err());
        }
    }
}
