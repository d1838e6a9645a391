//! Which files of a repository are models, and which of them a name means.

use std::path::Path;

use serde::{Deserialize, Serialize};
use walsh::formats::gguf::split_path;

use super::reference::check_part;
use crate::error::{Error, Result};

/// What is taken where nothing is asked for: what most repositories recommend, and a quarter of f16.
const USUAL: &str = "Q4_K_M";

/// How many models an error names.
const NAMED: usize = 24;

/// A file elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remote {
    /// Its path in the repository, with slashes.
    pub(super) name: String,
    /// Its size.
    pub(super) bytes: u64,
    /// Its SHA-256 in lower-case hexadecimal, where it is known.
    pub(super) sha256: Option<String>,
}

/// A model of a repository: one file, or the parts of a split one in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) files: Vec<Remote>,
}

/// The models among the files of a repository, in the order of their names.
///
/// # Errors
/// When the name of one is no name for a file here, or parts of one are missing.
pub(super) fn variants(files: &[Remote]) -> Result<Vec<Variant>> {
    let mut files: Vec<&Remote> = files.iter().filter(|file| is_model(&file.name)).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files.dedup_by(|a, b| a.name == b.name);
    let mut variants = Vec::new();
    for &file in &files {
        file.name.split('/').try_for_each(check_part)?;
        let Some(names) = parts(&file.name) else {
            let files = vec![file.clone()];
            variants.push(Variant { files });
            continue;
        };
        // The first part stands for all of them; without it, whichever comes first says what is missing.
        let find = |name: &String| files.iter().find(|other| other.name == *name);
        let first = names.iter().find_map(find);
        if first.is_none_or(|first| first.name != file.name) {
            continue;
        }
        let parts = names.iter().map(|name| {
            find(name).map(|&part| part.clone()).ok_or_else(|| {
                Error::store(format!(
                    "the repository has {} but not {name}: a model in parts needs all of them",
                    file.name
                ))
            })
        });
        variants.push(Variant {
            files: parts.collect::<Result<_>>()?,
        });
    }
    Ok(variants)
}

/// The names of all parts of the split model that a name is one of: `x-00001-of-00003.gguf` and so on.
pub(super) fn parts(name: &str) -> Option<Vec<String>> {
    let (_, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let count: u16 = count.parse().ok()?;
    // Slashes of names are not this system's.
    let (folder, file) = name.split_at(name.rfind('/').map_or(0, |slash| slash + 1));
    (0..count)
        .map(|number| {
            let part = split_path(Path::new(file), number, count)?;
            Some(format!("{folder}{}", part.to_str()?))
        })
        .collect()
}

/// The one that `quant` means, or where there is none, what is usual.
///
/// # Errors
/// When there is none, or several: then they are named.
pub(super) fn choose<'a>(variants: &'a [Variant], quant: Option<&str>) -> Result<&'a Variant> {
    let found = match quant {
        Some(quant) => named(variants, quant),
        None => match named(variants, USUAL) {
            usual if usual.len() == 1 => usual,
            _ => variants.iter().collect(),
        },
    };
    match (found.as_slice(), quant) {
        ([variant], _) => Ok(variant),
        ([], None) => Err(Error::store(
            "the repository has no GGUF files: look for one whose name ends in -GGUF",
        )),
        ([], Some(quant)) => Err(Error::store(format!(
            "the repository has no {quant}: put one of these behind the colon: {}",
            names(&variants.iter().collect::<Vec<_>>(), variants)
        ))),
        (several, Some(quant)) => Err(Error::store(format!(
            "the repository has several models with {quant} in their names: put one of these behind the colon: {}",
            names(several, variants)
        ))),
        (several, None) => Err(Error::store(format!(
            "the repository has several models: put one of these behind a colon: {}",
            names(several, variants)
        ))),
    }
}

/// Those that have a word in their names, or the one that is called nothing else.
fn named<'a>(variants: &'a [Variant], wanted: &str) -> Vec<&'a Variant> {
    let whole = |variant: &&Variant| variant.stem().eq_ignore_ascii_case(wanted);
    match variants.iter().find(whole) {
        Some(variant) => vec![variant],
        None => variants
            .iter()
            .filter(|variant| has_word(variant.stem(), wanted))
            .collect(),
    }
}

impl Variant {
    /// Its name without what all models and all parts have behind it.
    fn stem(&self) -> &str {
        let name = self.files.first().map_or("", |file| file.name.as_str());
        let stem = &name[..name.len().saturating_sub(".gguf".len())];
        match parts(name) {
            Some(_) => &stem[..stem.len() - "-00001-of-00001".len()],
            None => stem,
        }
    }

    /// The shortest end of its name that means it alone.
    pub(super) fn quant(&self, among: &[Variant]) -> String {
        let stem = self.stem();
        let ends = stem
            .char_indices()
            .rev()
            .filter(|(_, c)| "-./".contains(*c))
            .map(|(at, _)| &stem[at + 1..])
            .filter(|end| !end.is_empty());
        let mut ends = ends.filter(|end| named(among, end) == [self]);
        ends.next().unwrap_or(stem).to_owned()
    }

    /// The bytes of all its files.
    pub(super) fn bytes(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}

fn names(of: &[&Variant], among: &[Variant]) -> String {
    let mut names: Vec<String> = of
        .iter()
        .take(NAMED)
        .map(|variant| variant.quant(among))
        .collect();
    if of.len() > NAMED {
        names.push(format!("and {} more", of.len() - NAMED));
    }
    names.join(", ")
}

/// Whether a file is a model by its name: not what goes with one, or was used to make it.
fn is_model(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let base = name.rsplit('/').next().unwrap_or_default();
    let mut words = base.split(['-', '_', '.']);
    base.ends_with(".gguf") && !base.starts_with("imatrix") && !words.any(|word| word == "mmproj")
}

/// Whether a name has a word: between hyphens, dots and slashes, or behind an underscore. An underscore
/// behind it goes on with the word, as in `Q4_K_M_L` and `Q4_0_4_4`.
fn has_word(name: &str, word: &str) -> bool {
    let (name, word) = (name.to_ascii_lowercase(), word.to_ascii_lowercase());
    name.match_indices(&word).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let behind = name[at + word.len()..].chars().next();
        before.is_none_or(|c| "-./_".contains(c)) && behind.is_none_or(|c| "-./".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<Remote> {
        let file = |name: &&str| Remote {
            name: (*name).to_owned(),
            bytes: 1,
            sha256: None,
        };
        names.iter().map(file).collect()
    }

    fn chosen(names: &[&str], quant: Option<&str>) -> Result<String> {
        let variants = variants(&files(names))?;
        choose(&variants, quant).map(|variant| variant.files[0].name.clone())
    }

    #[test]
    fn a_quant_is_a_whole_word_of_one_name() {
        let usual = [
            "M-IQ4_K_M.gguf",
            "M-Q4_K_M.gguf",
            "M-Q4_K_M_L.gguf",
            "M-Q8_0.gguf",
            "M-Q4_0_4_4.gguf",
            "M-Q4_0.gguf",
            "mmproj-F16.gguf",
            "M-mmproj-Q8_0.gguf",
            "imatrix_x.gguf",
            "README.md",
        ];
        let dotted = ["m-1b.Q5_K_S.gguf", "m-1b.q4_k_m.gguf", "m_1b_Q6_K.gguf"];
        let ud = ["M-Q4_K_XL.gguf", "M-UD-Q4_K_XL.gguf", "M.gguf"];
        let folders = ["BF16/M-BF16.gguf", "M-Q2_K.gguf"];
        for (names, quant, expected) in [
            (&usual[..], None, "M-Q4_K_M.gguf"),
            (&usual, Some("q4_k_m"), "M-Q4_K_M.gguf"),
            (&usual, Some("Q4_K_M_L"), "M-Q4_K_M_L.gguf"),
            (&usual, Some("IQ4_K_M"), "M-IQ4_K_M.gguf"),
            (&usual, Some("Q8_0"), "M-Q8_0.gguf"),
            (&usual, Some("Q4_0"), "M-Q4_0.gguf"),
            (&usual, Some("M-Q8_0"), "M-Q8_0.gguf"),
            (
                &usual,
                Some("Q4_K"),
                "error: has no Q4_K: put one of these behind the colon: IQ4_K_M, Q4_0, Q4_0_4_4, Q4_K_M, Q4_K_M_L, Q8_0",
            ),
            (&usual, Some("F16"), "error: has no F16"),
            (&usual, Some("M"), "error: several models with M"),
            (&dotted, None, "m-1b.q4_k_m.gguf"),
            (&dotted, Some("q6_k"), "m_1b_Q6_K.gguf"),
            (&ud, Some("UD-Q4_K_XL"), "M-UD-Q4_K_XL.gguf"),
            (
                &ud,
                Some("Q4_K_XL"),
                "error: several models with Q4_K_XL in their names: put one of these behind the colon: M-Q4_K_XL, UD-Q4_K_XL",
            ),
            (&ud, Some("m-q4_k_xl"), "M-Q4_K_XL.gguf"),
            (&ud, Some("m"), "M.gguf"),
            (&folders, Some("bf16"), "BF16/M-BF16.gguf"),
            (&folders, Some("BF16/M-BF16"), "BF16/M-BF16.gguf"),
            (
                &folders,
                None,
                "error: several models: put one of these behind a colon: BF16, Q2_K",
            ),
            (&["M-f16.gguf", "mmproj-f16.gguf"], None, "M-f16.gguf"),
            (
                &["a-Q4_K_M.gguf", "b-Q4_K_M.gguf"],
                None,
                "error: several models: put one of these behind a colon: a-Q4_K_M, b-Q4_K_M",
            ),
            (&["README.md", "mmproj.gguf"], None, "error: no GGUF files"),
            (&["README.md"], Some("Q8_0"), "error: has no Q8_0"),
        ] {
            let found = chosen(names, quant);
            match (found, expected.strip_prefix("error: ")) {
                (Ok(name), None) => assert_eq!(name, expected, "{quant:?}"),
                (Err(error), Some(part)) => {
                    let error = error.to_string();
                    assert!(error.contains(part), "{quant:?}: {error}");
                }
                (found, _) => panic!("{quant:?}: {found:?}, not {expected}"),
            }
        }
    }

    #[test]
    fn parts_are_one_model_and_all_of_them_are_needed() {
        let names = [
            "Q8_0/M-Q8_0-00002-of-00003.gguf",
            "Q8_0/M-Q8_0-00001-of-00003.gguf",
            "Q8_0/M-Q8_0-00003-of-00003.gguf",
            "M-Q2_K.gguf",
        ];
        let all = variants(&files(&names)).unwrap();
        assert_eq!(all.len(), 2);
        let split = choose(&all, Some("q8_0")).unwrap();
        let parts: Vec<&str> = split.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(parts, [names[1], names[0], names[2]]);
        assert_eq!(split.bytes(), 3);
        assert_eq!(split.quant(&all), "Q8_0");
        for missing in 0..3 {
            let mut names = names.to_vec();
            let name = names.remove(missing);
            let error = variants(&files(&names)).unwrap_err().to_string();
            assert!(error.contains(&format!("not {name}")), "{error}");
        }
        // A name that only looks like it.
        let odd = variants(&files(&["M-of-2.gguf", "M-00000-of-00002.gguf"])).unwrap();
        assert_eq!(odd.len(), 2);
    }

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        let long = format!("{}.gguf", "x".repeat(300));
        for name in [
            "../x.gguf",
            "a/../x.gguf",
            "/etc/x.gguf",
            "a//x.gguf",
            ".x.gguf",
            "a\\x.gguf",
            "a/\u{1b}[2J.gguf",
            "\u{202e}x.gguf",
            "c:x.gguf",
            "-x.gguf",
            "nul\0.gguf",
            &long,
        ] {
            let error = chosen(&["M-Q4_K_M.gguf", name], None)
                .unwrap_err()
                .to_string();
            assert!(error.contains("cannot be part"), "{name}: {error}");
            assert!(!error.contains('\u{1b}') && error.len() < 300, "{error}");
        }
    }
}
