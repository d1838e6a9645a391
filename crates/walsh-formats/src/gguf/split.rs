//! Models that are split over several files: `name-00001-of-00003.gguf` and so on.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::error::{GgufError, shown};
use super::{Gguf, Metadata};

/// Which part of a split model a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// The part's number, from 0 on (file names count from 1 on).
    pub no: u16,
    /// The number of parts, at least 1.
    pub count: u16,
    /// The number of tensors of all parts together, where the file states it.
    pub tensors: Option<u64>,
}

/// Whether the file with this metadata is a part of a split model, and which. A file that says of itself
/// to be the only part is not one.
///
/// # Errors
/// [`GgufError::Split`] when its number is not below the count of parts, or they are too many; and when a key of the
/// split is missing or of a wrong type.
pub fn split_info(metadata: &Metadata<'_>) -> Result<Option<Split>, GgufError> {
    let Some(count) = metadata.opt_u32("split.count")? else {
        return Ok(None);
    };
    let no = metadata.u32("split.no")?;
    let tensors = metadata.opt_u64("split.tensors.count")?;
    if count <= 1 && no == 0 {
        return Ok(None);
    }
    match (u16::try_from(no), u16::try_from(count)) {
        (Ok(no), Ok(count)) if no < count => Ok(Some(Split { no, count, tensors })),
        _ => Err(GgufError::Split {
            what: format!("split.no {no} is not below split.count {count}: split the model again"),
        }),
    }
}

/// The path of part `no` (from 0 on) of a model of `count` parts, given the path of any of them. `None`
/// when the file name does not end in `-NNNNN-of-NNNNN.gguf` with this count, or `no` is too large.
pub fn split_path(any: &Path, no: u16, count: u16) -> Option<PathBuf> {
    let name = any.file_name()?.to_str()?;
    let stem = name.strip_suffix(&format!("-of-{count:05}.gguf"))?;
    let (prefix, number) = stem.rsplit_once('-')?;
    let digits = number.len() == 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    let given: u16 = number.parse().ok().filter(|_| digits)?;
    if given == 0 || given > count || no >= count {
        return None;
    }
    let part = u32::from(no) + 1;
    Some(any.with_file_name(format!("{prefix}-{part:05}-of-{count:05}.gguf")))
}

/// Checks that these files, in order, are all parts of one model: numbers, count, the total of tensors,
/// and that no tensor is in two of them.
///
/// # Errors
/// [`GgufError::Split`] for what does not fit together, [`GgufError::DuplicateTensor`] for a tensor in two parts.
pub fn check_split(parts: &[Gguf<'_>]) -> Result<(), GgufError> {
    let fail = |what: String| Err(GgufError::Split { what });
    let mut names = HashSet::new();
    let mut stated = None;
    for (index, part) in parts.iter().enumerate() {
        let number = index + 1;
        let Some(split) = split_info(part.metadata())? else {
            if parts.len() == 1 {
                return Ok(());
            }
            return fail(format!(
                "file {number} is not a part of a split model: check the file names"
            ));
        };
        if usize::from(split.no) != index {
            return fail(format!(
                "file {number} says that it is part {}: check the file names",
                u32::from(split.no) + 1
            ));
        }
        if usize::from(split.count) != parts.len() {
            return fail(format!(
                "file {number} says that there are {} parts, but there are {}: get the parts of one model",
                split.count,
                parts.len()
            ));
        }
        stated = stated.or(split.tensors);
        for tensor in part.tensors() {
            if !names.insert(tensor.name) {
                return fail(format!(
                    "tensor {} is in two parts: get the parts of one model",
                    shown(tensor.name)
                ));
            }
        }
    }
    match stated {
        Some(stated) if stated != names.len() as u64 => fail(format!(
            "the parts have {} tensors together, but {stated} are stated: get the parts of one model",
            names.len()
        )),
        _ => Ok(()),
    }
}
