//! Weights as 8-bit floats: `quantization_config` in `config.json`, and a tensor of scales beside each matrix.

use std::collections::{BTreeSet, HashMap};

use safetensors::Dtype;
use serde_json::{Map, Value};
use walsh_formats::DType;
use walsh_formats::fp8::Rows;

use super::json::Json;
use super::tensors::{self, Stored, View};
use crate::source::Part;
use crate::{Error, Result};

/// How the matrices of a model are quantised.
#[derive(Debug)]
pub(super) struct Scheme {
    config: Json,
    layout: Layout,
    /// Modules that are said not to be.
    others: BTreeSet<String>,
    /// Whether the inputs of products have scales in the files.
    has_input_scales: bool,
}

/// What shares a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Matrix,
    Row,
    /// So many rows and columns.
    Block([u64; 2]),
}

/// What is behind the names of modules.
const WEIGHT: &str = ".weight";
/// What weights are multiplied by, by the names that it has.
const SCALES: [&str; 2] = [".weight_scale_inv", ".weight_scale"];
/// What inputs are divided by before they are rounded to 8 bits, by the names that it has.
const INPUT_SCALES: [&str; 2] = [".input_scale", ".activation_scale"];

/// The key of configurations.
const KEY: &str = "quantization_config";

impl Scheme {
    /// What a configuration says of it; `None` where it says nothing.
    pub(super) fn read(config: &Json) -> Result<Option<Scheme>> {
        if config.get(KEY).is_none() {
            return Ok(None);
        }
        config.object(KEY)?;
        let own = config.within(KEY);
        match own.opt_str("quant_method")? {
            Some("fp8") => Scheme::plain(own).map(Some),
            Some("compressed-tensors") => Scheme::compressed(own).map(Some),
            method => Err(config.wrong(format!(
                "its weights are quantised ({KEY}: {}), of which \"fp8\" and \"compressed-tensors\" are read, and MLX's own quantization: convert the original, in f32, f16 or bf16",
                method.map_or("no quant_method".to_owned(), |method| format!("{method:.40?}"))
            ))),
        }
    }

    /// As DeepSeek's models have it, and transformers writes it.
    fn plain(own: Json) -> Result<Scheme> {
        one_of(&own, "", "fmt", &["e4m3", "float8_e4m3fn"])?;
        one_of(&own, "", "scale_fmt", &["float", "ue8m0"])?;
        one_of(&own, "", "expert_dtype", &["fp8"])?;
        let activations = one_of(&own, "", "activation_scheme", &["dynamic", "static"])?;
        let has_input_scales = activations == Some("static");
        let layout = match own.get("weight_block_size") {
            None => Layout::Matrix,
            Some(_) => block(&own, "", "weight_block_size")?,
        };
        let lists = ["modules_to_not_convert", "ignored_layers"];
        let mut others = BTreeSet::new();
        for list in lists {
            others.extend(names(&own, list)?);
        }
        // What is quantised is seen in the files, and so is what more is.
        let known = [
            "quant_method",
            "weight_block_size",
            "modules_to_convert",
            "dequantize",
        ];
        let known = known.into_iter().chain(lists);
        let read = ["fmt", "scale_fmt", "expert_dtype", "activation_scheme"];
        only(&own, "", known.chain(read))?;
        Ok(Scheme {
            config: own,
            layout,
            others,
            has_input_scales,
        })
    }

    /// As the library compressed-tensors writes it, by the name of `float-quantized`.
    fn compressed(own: Json) -> Result<Scheme> {
        const FORMAT: &str = "float-quantized";
        let refused = |what: String| Err(own.wrong(format!("{KEY}: {what}")));
        if one_of(&own, "", "format", &[FORMAT])?.is_none() {
            return refused(format!("format is missing: {FORMAT:?} is read"));
        }
        for key in ["kv_cache_scheme", "sparsity_config", "transform_config"] {
            let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
            if own.get(key).is_some_and(|value| !is_empty(value)) {
                return refused(format!("{key} is given, which is not converted"));
            }
        }
        let mut layouts = BTreeSet::new();
        let mut has_input_scales = false;
        for (name, _) in own.object("config_groups")? {
            let place = format!("config_groups of {name:.40?}: ");
            let group = own.within("config_groups").within(name);
            one_of(&group, &place, "format", &[FORMAT])?;
            only(
                &group,
                &place,
                [
                    "targets",
                    "format",
                    "weights",
                    "input_activations",
                    "output_activations",
                ],
            )?;
            if group.get("output_activations").is_some() {
                return refused(format!("{place}output_activations are not converted"));
            }
            let weights = floats(&group, &place, "weights")?;
            layouts.insert(
                match one_of(
                    &weights,
                    &place,
                    "strategy",
                    &["tensor", "channel", "block"],
                )? {
                    Some("block") => {
                        let Layout::Block(lengths) = block(&weights, &place, "block_structure")?
                        else {
                            return refused(format!("{place}block_structure is missing"));
                        };
                        lengths
                    }
                    Some("channel") => [1, 0],
                    _ => [0, 0],
                },
            );
            if group.get("input_activations").is_some() {
                let inputs = floats(&group, &place, "input_activations")?;
                has_input_scales |= inputs.get("dynamic") == Some(&Value::Bool(false));
            }
        }
        let layouts: Vec<[u64; 2]> = layouts.into_iter().collect();
        let layout = match layouts[..] {
            [[0, 0]] => Layout::Matrix,
            [[1, 0]] => Layout::Row,
            [lengths] => Layout::Block(lengths),
            _ => return refused("config_groups do not have weights of one strategy".to_owned()),
        };
        let others = names(&own, "ignore")?;
        only(
            &own,
            "",
            [
                "quant_method",
                "format",
                "kv_cache_scheme",
                "sparsity_config",
                "transform_config",
                "config_groups",
                "ignore",
                "quantization_status",
                "global_compression_ratio",
                "version",
            ],
        )?;
        Ok(Scheme {
            config: own,
            layout,
            others,
            has_input_scales,
        })
    }

    /// Takes the tensors of quantised modules out of `views`, and makes one of each module's.
    pub(super) fn join<'a>(
        &self,
        views: &mut HashMap<String, View<'a>>,
    ) -> Result<HashMap<String, Stored<'a>>> {
        let is_float = |(_, view): &View<'_>| view.dtype() == Dtype::F8_E4M3;
        let names = views.iter().filter(|(_, view)| is_float(view));
        let names: BTreeSet<String> = names.map(|(name, _)| name.clone()).collect();
        let mut joined = HashMap::new();
        for name in names {
            let module = name.strip_suffix(WEIGHT).unwrap_or(&name);
            if self.others.contains(module) {
                return Err(self.config.wrong(format!(
                    "the module {module:?} has 8-bit floats, but {KEY} says that it is not quantised"
                )));
            }
            let mut take = |kinds: [&str; 2]| {
                let mut all = kinds.iter();
                all.find_map(|kind| views.remove(&format!("{module}{kind}")))
            };
            let (scales, inputs) = (take(SCALES), take(INPUT_SCALES));
            if inputs.is_some() != self.has_input_scales {
                let what = match inputs {
                    Some(_) => "has a scale of its inputs, which {KEY} does not speak of",
                    None => "has no scale of its inputs, which {KEY} says are static",
                };
                return Err(self.config.wrong(format!(
                    "the module {module:?} {}",
                    what.replace("{KEY}", KEY)
                )));
            }
            let weight = views.remove(&name);
            joined.insert(name.clone(), self.matrix(&name, [weight, scales])?);
        }
        Ok(joined)
    }

    /// What users may want to know of tensors that have been joined.
    pub(super) fn notes(&self, joined: &HashMap<String, Stored<'_>>) -> Vec<String> {
        let mut notes = Vec::new();
        let is_rounded =
            |stored: &&Stored<'_>| matches!(stored.data, Part::Fp8(rows) if !rows.is_bfloat());
        let rounded = joined.values().filter(is_rounded).count();
        if rounded > 0 {
            notes.push(format!(
                "{rounded} tensors are 8-bit floats times scales that are no powers of two: as bf16 their products are rounded, in f32 they would be exact"
            ));
        }
        if self.has_input_scales {
            notes.push(
                "scales of the inputs of products are not needed: inputs are not rounded to 8-bit floats here".to_owned(),
            );
        }
        notes
    }

    /// A matrix of its codes and scales.
    fn matrix<'a>(
        &self,
        name: &str,
        [weight, scales]: [Option<View<'a>>; 2],
    ) -> Result<Stored<'a>> {
        let missing = |what: &str| Error::Asked(format!("tensor {name}: its {what} missing"));
        let (path, weight) = weight.ok_or_else(|| missing("codes are"))?;
        let (_, scales) = scales.ok_or_else(|| {
            missing("scales (weight_scale_inv or weight_scale), without which 8-bit floats say nothing, are")
        })?;
        let wrong = |what: String| Err(Error::file(path, format!("tensor {name}: {what}")));
        let &[rows, columns] = weight.shape() else {
            return wrong(format!(
                "8-bit floats are a matrix, not {:?}",
                weight.shape()
            ));
        };
        if rows == 0 || columns == 0 {
            return wrong(format!("it has the shape {:?}", weight.shape()));
        }
        let numbers = match scales.dtype() {
            Dtype::F8_E8M0 => DType::U8,
            other => tensors::dtype(path, &format!("{name} (its scales)"), other)?,
        };
        let (block, expected) = match self.layout {
            Layout::Matrix => ([rows, columns], vec![1]),
            Layout::Row => ([1, columns], vec![rows, 1]),
            Layout::Block([high, wide]) => {
                // What is larger than the matrix is the matrix.
                let length = |block: u64, all: usize| {
                    usize::try_from(block).map_or(all, |block| block.min(all))
                };
                let block = [length(high, rows), length(wide, columns)];
                (
                    block,
                    vec![rows.div_ceil(block[0]), columns.div_ceil(block[1])],
                )
            }
        };
        // Lengths of one say nothing.
        let long = |shape: &[usize]| {
            shape
                .iter()
                .copied()
                .filter(|length| *length != 1)
                .collect::<Vec<_>>()
        };
        if long(scales.shape()) != long(&expected) {
            return wrong(format!(
                "its scales have the shape {:?}, but {KEY} in config.json asks for {expected:?}",
                scales.shape()
            ));
        }
        Ok(Stored {
            path,
            dtype: DType::BF16,
            shape: vec![rows as u64, columns as u64],
            data: Part::Fp8(Rows {
                columns,
                block,
                codes: weight.data(),
                scales: scales.data(),
                numbers,
            }),
        })
    }
}

/// The value of a key that may be left out, and is one of those that are read.
fn one_of<'a>(own: &'a Json, place: &str, key: &str, read: &[&str]) -> Result<Option<&'a str>> {
    match own.opt_str(key)? {
        Some(value) if !read.contains(&value) => Err(own.wrong(format!(
            "{KEY}: {place}{key} is {value:.40?}, of which {} are read",
            read.join(" and ")
        ))),
        value => Ok(value),
    }
}

/// Refuses keys that are not known.
fn only<'a>(own: &Json, place: &str, known: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let known: BTreeSet<&str> = known.into_iter().collect();
    let mut unknown = own.all().filter(|(_, value)| !value.is_null());
    match unknown.find(|(key, _)| !known.contains(key.as_str())) {
        None => Ok(()),
        Some((key, _)) => Err(own.wrong(format!(
            "{KEY}: {place}{key:.40?} is not known: {}",
            known.into_iter().collect::<Vec<_>>().join(", ")
        ))),
    }
}

/// The lengths of a block.
fn block(own: &Json, place: &str, key: &str) -> Result<Layout> {
    let lengths: Vec<u64> = own.array(key)?.iter().filter_map(Value::as_u64).collect();
    match (&lengths[..], own.array(key)?.len()) {
        (&[high, wide], 2) if high > 0 && wide > 0 => Ok(Layout::Block([high, wide])),
        _ => Err(own.wrong(format!(
            "{KEY}: {place}{key} is not two whole numbers above zero"
        ))),
    }
}

/// A list of names; none where there is no list.
fn names(own: &Json, key: &str) -> Result<BTreeSet<String>> {
    if own.get(key).is_none() {
        return Ok(BTreeSet::new());
    }
    let names = own.array(key)?.iter();
    let names: Option<_> = names.map(|name| name.as_str().map(str::to_owned)).collect();
    names.ok_or_else(|| own.wrong(format!("{KEY}: {key} is no list of names")))
}

/// What compressed-tensors says of weights, or of inputs, as 8-bit floats that are symmetric about zero.
fn floats(group: &Json, place: &str, key: &str) -> Result<Json> {
    group.object(key)?;
    let own = group.within(key);
    let place = format!("{place}{key}: ");
    let wrong = |what: String| own.wrong(format!("{KEY}: {place}{what}"));
    one_of(&own, &place, "type", &["float"])?;
    if own.size("num_bits")? != 8 || own.opt_str("type")?.is_none() {
        return Err(wrong("8-bit floats are read".to_owned()));
    }
    if own.opt_bool("symmetric")? == Some(false) {
        return Err(wrong("symmetric is false, which is not read".to_owned()));
    }
    if key == "weights" && own.opt_bool("dynamic")? == Some(true) {
        return Err(wrong("dynamic is true, which weights are not".to_owned()));
    }
    // How scales were found says nothing of what they mean; groups of inputs have none in the files.
    let read = [
        "type",
        "num_bits",
        "symmetric",
        "dynamic",
        "strategy",
        "block_structure",
    ];
    let known = [
        "observer",
        "observer_kwargs",
        "scale_dtype",
        "zp_dtype",
        "group_size",
    ];
    only(&own, &place, read.into_iter().chain(known))?;
    if key == "weights" && own.get("group_size").is_some() {
        return Err(wrong(
            "group_size is given, which weights by tensor, channel or block have not".to_owned(),
        ));
    }
    Ok(own)
}
