//! What becomes of each tensor.

use std::str::FromStr;

use regex::Regex;
use walsh_formats::gguf::write::{NewValue, Writer};
use walsh_formats::{DType, ggml};

use crate::mix::{self, Mix, Picker};
use crate::source::{Source, Tensor};
use crate::{Error, Imatrix, Result};

/// The version of GGML's block types, which files state.
const QUANTIZATION_VERSION: u32 = 2;

/// A type for the tensors whose names an expression is found in: `REGEX=TYPE`.
#[derive(Clone, Debug)]
pub struct Override {
    expression: Regex,
    dtype: DType,
}

impl FromStr for Override {
    type Err = Error;

    fn from_str(text: &str) -> Result<Override> {
        let asked = |what: String| Error::Asked(format!("{text:?}: {what}"));
        let Some((expression, dtype)) = text.rsplit_once('=') else {
            return Err(asked("give REGEX=TYPE, such as ffn_down=q6_k".to_owned()));
        };
        let expression = Regex::new(expression).map_err(|error| {
            let error = error.to_string();
            asked(format!(
                "no regular expression: {}",
                error.lines().last().unwrap_or_default()
            ))
        })?;
        let dtype: DType = dtype.parse().map_err(|error| asked(format!("{error}")))?;
        if !ggml::encodes(dtype) {
            return Err(asked(format!(
                "{dtype} is read but not written, use another type"
            )));
        }
        Ok(Override { expression, dtype })
    }
}

/// What a plan is made of.
#[derive(Clone, Debug)]
pub struct PlanOptions<'a> {
    /// The types of all tensors but those that are named; `None` for those that they have.
    pub mix: Option<Mix>,
    /// Types of named tensors; the first that fits counts, and each counts for one at least. Tensors that a mix keeps as
    /// they are stay so.
    pub overrides: &'a [Override],
    /// How much each column of each tensor matters.
    pub imatrix: Option<&'a Imatrix>,
    /// Whether tensors that are quantised already may be quantised again, which loses more than quantising the original.
    pub allow_requantize: bool,
}

/// A tensor and what becomes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its lengths, outermost first.
    pub shape: Vec<u64>,
    /// How it is stored.
    pub from: DType,
    /// How it is to be stored.
    pub to: DType,
    /// The bytes that it takes.
    pub bytes_from: u64,
    /// The bytes that it is to take.
    pub bytes_to: u64,
    /// Whether an importance is there for it.
    pub is_weighted: bool,
}

/// What becomes of a model.
#[derive(Debug)]
pub struct Plan<'a> {
    pub(crate) source: &'a Source<'a>,
    pub(crate) imatrix: Option<&'a Imatrix>,
    mix: Option<Mix>,
    /// The tensors, in their order in the file.
    pub tensors: Vec<Planned>,
    /// What the user may want to know, in sentences.
    pub notes: Vec<String>,
}

impl<'a> Plan<'a> {
    /// Decides on every tensor.
    ///
    /// # Errors
    /// When a tensor is quantised already and that is not allowed, the importance does not fit the model, a type cannot be
    /// written, or an override is of no tensor.
    pub fn new(source: &'a Source<'a>, options: &PlanOptions<'a>) -> Result<Plan<'a>> {
        let mut is_used = vec![false; options.overrides.len()];
        let has_imatrix = options.imatrix.is_some();
        let mut picker = options.mix.map(|mix| Picker::new(mix, source, has_imatrix));
        let mut tensors = Vec::with_capacity(source.tensors.len());
        let mut replaced = 0;
        for tensor in &source.tensors {
            let (to, is_replaced) = decide(tensor, (options, &mut is_used), picker.as_mut());
            replaced += usize::from(is_replaced);
            let planned = planned(tensor, to, options)?;
            if to.ggml_id().is_none() && !source.own_types {
                return Err(Error::Asked(format!(
                    "tensor {} is {to}, which is no type of GGUF files: give it another with --type or --tensor, such as q8_0",
                    tensor.name
                )));
            }
            tensors.push(planned);
        }
        let mut overrides = options.overrides.iter().zip(is_used);
        if let Some((unused, _)) = overrides.find(|(_, is_used)| !is_used) {
            return Err(Error::Asked(format!(
                "{:?}: no tensor gets its type by this expression: it is found in no name, in those of tensors that stay as they are, or an earlier expression takes them all; leave it out or give another",
                unused.expression.as_str()
            )));
        }
        let mut notes = source.notes.clone();
        let again = |tensor: &&Tensor<'_>| tensor.is_merged() && tensor.dtype.is_quantised();
        let again = source.tensors.iter().filter(again).count();
        if again > 0 {
            notes.push(format!(
                "{again} tensors that an adapter is added to are quantised, and so again behind that, which loses more than merging into the original"
            ));
        }
        let recoded =
            |planned: &&Planned| planned.from.is_quantised() && planned.from != planned.to;
        let recoded = tensors.iter().filter(recoded).count();
        if recoded > 0 {
            notes.push(format!(
                "{recoded} tensors are quantised and get another type, which loses more than quantising the original"
            ));
        }
        if replaced > 0 {
            notes.push(format!(
                "{replaced} tensors have rows that are no whole blocks of their type, and get one with smaller blocks"
            ));
        }
        if options.imatrix.is_none() {
            let is_blind = |planned: &&Planned| planned.from != planned.to && is_small(planned.to);
            let blind = tensors.iter().filter(is_blind).count();
            if blind > 0 {
                notes.push(format!(
                    "{blind} tensors get types of about three bits and fewer without an importance matrix, which loses much: make one with 'walsh imatrix' and give it with --imatrix"
                ));
            }
        }
        if options.imatrix.is_some() {
            // Embeddings have none, and the output's weight seldom has one.
            let without = |planned: &&Planned| {
                let is_usual = planned.name.starts_with("blk.") && !planned.is_weighted;
                is_usual && planned.from != planned.to && ggml::searches(planned.to)
            };
            let names = tensors.iter().filter(without).map(|planned| &*planned.name);
            let names: Vec<&str> = names.collect();
            if !names.is_empty() {
                notes.push(format!(
                    "the importance matrix has nothing for {} of the tensors, such as {}",
                    names.len(),
                    names[0]
                ));
            }
        }
        Ok(Plan {
            source,
            imatrix: options.imatrix,
            mix: options.mix,
            tensors,
            notes,
        })
    }

    /// The bytes of all tensors as they are, and as they will be.
    pub fn bytes(&self) -> (u64, u64) {
        let sum = |of: fn(&Planned) -> u64| self.tensors.iter().map(of).sum();
        (
            sum(|tensor| tensor.bytes_from),
            sum(|tensor| tensor.bytes_to),
        )
    }

    /// The number of weights.
    pub fn values(&self) -> u64 {
        let shapes = self.tensors.iter().map(|tensor| &tensor.shape);
        shapes.map(|shape| shape.iter().product::<u64>()).sum()
    }

    /// The head of the file to be written.
    pub(crate) fn writer(&self) -> Result<Writer<'static>> {
        let mut writer = Writer::new();
        for (key, value) in &self.source.metadata {
            // What is written is aligned to GGUF's default.
            if key != "general.alignment" {
                writer.set(key, value.clone())?;
            }
        }
        writer.set("general.quantization_version", QUANTIZATION_VERSION)?;
        if let Some(mix) = self.mix {
            writer.set("general.file_type", mix.file_type())?;
        }
        if let Some(imatrix) = self.imatrix {
            writer.set("quantize.imatrix.entries_count", imatrix.len() as u32)?;
            writer.set("quantize.imatrix.chunks_count", imatrix.chunks())?;
            if let Some(dataset) = imatrix.datasets().first() {
                writer.set(
                    "quantize.imatrix.dataset",
                    NewValue::String(dataset.clone()),
                )?;
            }
        }
        for tensor in &self.tensors {
            writer.declare(&tensor.name, tensor.to, &tensor.shape)?;
        }
        Ok(writer)
    }
}

/// Whether what a type loses depends much on an importance.
fn is_small(dtype: DType) -> bool {
    ggml::grid(dtype).is_some()
}

/// The type of a tensor, and whether it is another than was chosen because of its rows' length.
fn decide(
    tensor: &Tensor<'_>,
    (options, is_used): (&PlanOptions<'_>, &mut [bool]),
    picker: Option<&mut Picker>,
) -> (DType, bool) {
    if !mix::is_chosen(tensor) {
        return (tensor.dtype, false);
    }
    let mut overrides = options.overrides.iter();
    let named = overrides.position(|named| named.expression.is_match(&tensor.name));
    let wanted = match named {
        Some(index) => {
            is_used[index] = true;
            options.overrides[index].dtype
        }
        None => picker.map_or(tensor.dtype, |picker| picker.pick(tensor)),
    };
    let to = mix::fitting(wanted, tensor.columns());
    (to, to != wanted)
}

fn planned(tensor: &Tensor<'_>, to: DType, options: &PlanOptions<'_>) -> Result<Planned> {
    let from = tensor.dtype;
    if from.is_quantised() && from != to && !options.allow_requantize {
        return Err(Error::Asked(format!(
            "tensor {} is {from}, and to quantise it again loses more than to quantise the original: start from an f16, bf16 or f32 file, or give --allow-requantize",
            tensor.name
        )));
    }
    if tensor.is_merged() && !ggml::encodes(to) {
        return Err(Error::Asked(format!(
            "tensor {} is {to}, which is read but not written: give its values another type with --type or --tensor",
            tensor.name
        )));
    }
    let row_bytes = to.row_bytes(tensor.columns());
    let bytes_to = row_bytes.and_then(|bytes| bytes.checked_mul(tensor.rows()));
    let importance = options
        .imatrix
        .and_then(|imatrix| imatrix.get(&tensor.name));
    let expected = tensor.columns() * tensor.matrices();
    if let Some(found) = importance.map(<[f32]>::len)
        && found as u64 != expected
    {
        return Err(Error::Asked(format!(
            "the importance matrix has {found} numbers for tensor {}, which has {expected} columns: it is of another model",
            tensor.name
        )));
    }
    Ok(Planned {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        from,
        to,
        bytes_from: tensor.bytes(),
        bytes_to: bytes_to
            .ok_or_else(|| Error::Asked(format!("tensor {} is too large for {to}", tensor.name)))?,
        is_weighted: importance.is_some(),
    })
}
