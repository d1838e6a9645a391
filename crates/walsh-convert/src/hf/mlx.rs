//! Weights as `mlx-lm` quantises them: `quantization` in `config.json`, and two or three tensors for each matrix.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use safetensors::Dtype;
use serde_json::{Map, Value};
use walsh_formats::DType;
use walsh_formats::mlx::{Recipe, Rows};

use super::json::Json;
use super::tensors::{self, Stored, View};
use crate::source::Part;
use crate::{Error, Result};

/// How the modules of a model are quantised.
#[derive(Debug)]
pub(super) struct Recipes {
    config: Json,
    usual: How,
    /// Modules that differ; `None` where they are not quantised.
    others: BTreeMap<String, Option<How>>,
}

/// How a module is quantised.
#[derive(Clone, Copy, Debug)]
struct How {
    recipe: Recipe,
    /// Whether each of its matrices has a scale.
    has_global: bool,
}

/// The tensors of a module: codes, scales, biases and scales of whole matrices.
type Parts<'a> = [Option<View<'a>>; 4];

/// A recipe's own keys; that there is a scale of whole matrices is seen in the files, too.
const KEYS: [&str; 4] = ["group_size", "bits", "mode", GLOBAL];
const GLOBAL: &str = "global_scale";

/// What is behind the names of modules.
const WEIGHT: &str = ".weight";
const SCALES: &str = ".scales";
const BIASES: &str = ".biases";
const GLOBALS: &str = ".global_scale";

impl Recipes {
    /// What users may want to know of tensors that have been joined.
    pub(super) fn notes(joined: &HashMap<String, Stored<'_>>) -> Vec<String> {
        let is_rounded = |stored: &&Stored<'_>| matches!(stored.data, Part::Mlx(rows) if !rows.global.is_empty());
        match joined.values().filter(is_rounded).count() {
            0 => Vec::new(),
            rounded => vec![format!(
                "{rounded} tensors are nvfp4 with a {GLOBAL}, for which blocks have no place: as bf16 their values are rounded, in f32 they would be exact"
            )],
        }
    }

    /// What a configuration says of it; `None` where it says nothing.
    pub(super) fn read(config: &Json) -> Result<Option<Recipes>> {
        if config.get("quantization").is_none() {
            return Ok(None);
        }
        let whole = config.object("quantization")?;
        let mut others = BTreeMap::new();
        let mut usual = Map::new();
        for (key, value) in whole {
            let recipe = match value {
                _ if KEYS.contains(&&**key) => {
                    usual.insert(key.clone(), value.clone());
                    continue;
                }
                Value::Bool(false) => None,
                Value::Object(own) => Some(recipe(config, key, own)?),
                other => {
                    return Err(config.wrong(format!(
                        "quantization: {key:?} is {other}, neither a module's recipe nor false"
                    )));
                }
            };
            others.insert(key.clone(), recipe);
        }
        Ok(Some(Recipes {
            config: config.clone(),
            usual: recipe(config, "", &usual)?,
            others,
        }))
    }

    /// Takes the tensors of quantised modules out of `views`, and makes one of each module's.
    pub(super) fn join<'a>(
        &self,
        views: &mut HashMap<String, View<'a>>,
        own_types: bool,
    ) -> Result<HashMap<String, Stored<'a>>> {
        let modules = views.keys().filter_map(|name| name.strip_suffix(SCALES));
        let modules: BTreeSet<String> = modules.map(str::to_owned).collect();
        for (module, recipe) in &self.others {
            let is_there = views.contains_key(&format!("{module}{WEIGHT}"));
            if !is_there || recipe.is_some() != modules.contains(module) {
                let what = match recipe {
                    None if is_there => {
                        "has scales, but quantization says that it is not quantised"
                    }
                    _ => "is in quantization, but there are no weights with scales of this name",
                };
                return Err(self.config.wrong(format!("the module {module:?} {what}")));
            }
        }
        let mut joined = HashMap::new();
        for module in modules {
            let recipe = self.others.get(&module).copied().flatten();
            let how = recipe.unwrap_or(self.usual);
            let mut take = |kind: &str| views.remove(&format!("{module}{kind}"));
            let found = [take(WEIGHT), take(SCALES), take(BIASES), take(GLOBALS)];
            let name = format!("{module}{WEIGHT}");
            joined.insert(name.clone(), join(&name, how, found, own_types)?);
        }
        let mut left = views.iter();
        match left.find(|(_, (_, view))| view.dtype() == Dtype::U32) {
            None => Ok(joined),
            Some((name, (path, _))) => Err(Error::file(
                path,
                format!(
                    "tensor {name} is quantised, but has no scales: a file with tensors is missing"
                ),
            )),
        }
    }
}

/// The recipe of a module, or of all.
fn recipe(config: &Json, module: &str, own: &Map<String, Value>) -> Result<How> {
    let place = match module {
        "" => "quantization".to_owned(),
        module => format!("quantization of {module:?}"),
    };
    let wrong = |what: String| config.wrong(format!("{place}: {what}"));
    if let Some(unknown) = own.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(wrong(format!(
            "{unknown:?} is not known: {}",
            KEYS.join(", ")
        )));
    }
    // MLX takes what its modes usually have for what is not said, as mixed recipes leave it.
    let number = |key: &str, usual: u64| match own.get(key) {
        None | Some(Value::Null) => Ok(usual),
        Some(value) => {
            let number = value.as_u64();
            number.ok_or_else(|| wrong(format!("{key} is {value}, no whole number")))
        }
    };
    let mode = match own.get("mode") {
        None | Some(Value::Null) => "affine",
        Some(mode) => mode
            .as_str()
            .ok_or_else(|| wrong(format!("mode is {mode}, not text")))?,
    };
    let group = match mode {
        "mxfp4" | "mxfp8" => 32,
        "nvfp4" => 16,
        _ => 64,
    };
    let bits = if mode == "mxfp8" { 8 } else { 4 };
    let recipe = Recipe::new(mode, number("bits", bits)?, number("group_size", group)?)
        .map_err(|error| wrong(error.to_string()))?;
    let has_global = match own.get(GLOBAL) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) if recipe.has_global() => true,
        Some(Value::Bool(true)) => {
            return Err(wrong(format!("{GLOBAL} is for nvfp4, not for {recipe}")));
        }
        Some(other) => return Err(wrong(format!("{GLOBAL} is {other}, not true or false"))),
    };
    Ok(How { recipe, has_global })
}

/// A matrix of its codes, scales and biases.
fn join<'a>(
    name: &str,
    How { recipe, has_global }: How,
    [weight, scales, biases, global]: Parts<'a>,
    own_types: bool,
) -> Result<Stored<'a>> {
    let missing = |what: &str| Error::Asked(format!("tensor {name}: its {what} are missing"));
    let (path, weight) = weight.ok_or_else(|| missing("codes"))?;
    let (_, scales) = scales.ok_or_else(|| missing("scales"))?;
    let wrong = |what: String| Err(Error::file(path, format!("tensor {name}: {what}")));
    if weight.dtype() != Dtype::U32 {
        return wrong(format!(
            "it has scales, but is {:?}, not U32",
            weight.dtype()
        ));
    }
    let numbers = match recipe.has_biases() {
        true => tensors::dtype(path, &format!("{name} (its scales)"), scales.dtype())?,
        false if scales.dtype() == Dtype::U8 => DType::U8,
        false => return wrong(format!("its scales are {:?}, not U8", scales.dtype())),
    };
    let biases = match (biases, recipe.has_biases()) {
        (Some((_, biases)), true) => Some(biases),
        (None, false) => None,
        (None, true) => return Err(missing("biases")),
        (Some(_), false) => return wrong("it has biases, which its mode has not".to_owned()),
    };
    let global = match (global, has_global) {
        (Some((_, global)), true) => Some(global),
        (None, false) => None,
        (None, true) => return Err(missing("scales of whole matrices (global_scale)")),
        (Some(_), false) => {
            return wrong(format!(
                "it has a {GLOBAL}, which quantization does not speak of"
            ));
        }
    };
    let mut shape: Vec<u64> = weight.shape().iter().map(|length| *length as u64).collect();
    let words = shape.pop().unwrap_or(0);
    let columns = recipe.columns(words).unwrap_or(0);
    let groups = recipe.groups(columns).unwrap_or(0);
    let expected = shape.iter().copied().chain([groups]);
    let lengths = scales.shape().iter().map(|length| *length as u64);
    if groups == 0 || !expected.eq(lengths) {
        return wrong(format!(
            "its codes have the shape {:?} and its scales {:?}, which is not {recipe}: config.json's quantization is of another file",
            weight.shape(),
            scales.shape()
        ));
    }
    if let Some(biases) = &biases
        && (biases.shape(), biases.dtype()) != (scales.shape(), scales.dtype())
    {
        return wrong(format!(
            "its scales are {:?} {:?}, but its biases {:?} {:?}",
            scales.dtype(),
            scales.shape(),
            biases.dtype(),
            biases.shape()
        ));
    }
    if let Some(global) = &global {
        let matrices: u64 = shape.iter().rev().skip(1).product();
        let found: usize = global.shape().iter().product();
        if global.dtype() != Dtype::F32 || found as u64 != matrices {
            return wrong(format!(
                "its {GLOBAL} is {:?} {:?}, not F32 [{matrices}]",
                global.dtype(),
                global.shape()
            ));
        }
    }
    let dtype = match has_global {
        // Blocks have no place for it.
        true => DType::BF16,
        false => recipe.dtype(own_types),
    };
    if dtype.row_bytes(columns).is_none() {
        return wrong(format!(
            "its rows of {columns} values are no whole blocks of {dtype}, which have {}",
            dtype.block_len()
        ));
    }
    let matrix = shape.last().copied().unwrap_or(1) as usize;
    shape.push(columns);
    Ok(Stored {
        path,
        dtype,
        shape,
        data: Part::Mlx(Rows {
            recipe,
            columns: columns as usize,
            codes: weight.data(),
            scales: scales.data(),
            biases: biases.map_or(&[], |biases| biases.data()),
            numbers,
            global: global.map_or(&[], |global| global.data()),
            matrix,
        }),
    })
}
