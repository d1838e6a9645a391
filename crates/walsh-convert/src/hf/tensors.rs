//! Tensors of safetensors files, by their names and in the order of rows that they have in GGUF.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use walsh_formats::{DType, ggml};

use super::config::Shape;
use super::family::Family;
use crate::source::{Data, Part, Tensor, turned};
use crate::{Error, Result};

/// A tensor as the folder has it.
pub(super) struct Stored<'a> {
    pub(super) path: &'a PathBuf,
    pub(super) dtype: DType,
    pub(super) shape: Vec<u64>,
    pub(super) data: Part<'a>,
}

/// What a tensor becomes.
struct Place {
    name: String,
    shape: Vec<u64>,
    /// The heads whose rows change their order.
    heads: Option<u32>,
    /// Whether it is added to one.
    is_shifted: bool,
    /// Its number in a stack of experts.
    expert: Option<u32>,
}

/// A tensor, and the file that it is in.
pub(super) type View<'a> = (&'a PathBuf, TensorView<'a>);

/// All tensors of files by their names.
///
/// # Errors
/// When a shard is damaged, or a tensor is there twice.
pub(super) fn views(shards: &[(PathBuf, Mmap)]) -> Result<HashMap<String, View<'_>>> {
    let mut views: HashMap<String, View<'_>> = HashMap::new();
    for (path, map) in shards {
        let file = SafeTensors::deserialize(map)
            .map_err(|error| Error::file(path, format!("{error}: download it again")))?;
        for (name, view) in file.tensors() {
            if let Some((other, _)) = views.insert(name.clone(), (path, view)) {
                return Err(Error::file(
                    path,
                    format!("tensor {name} is in {} too", other.display()),
                ));
            }
        }
    }
    Ok(views)
}

/// Tensors that are no part of others.
///
/// # Errors
/// When numbers are of a type that is not read.
pub(super) fn stored(views: HashMap<String, View<'_>>) -> Result<HashMap<String, Stored<'_>>> {
    let opened = views.into_iter().map(|(name, (path, view))| {
        let tensor = open(path, &name, &view)?;
        Ok((name, tensor))
    });
    opened.collect()
}

/// The tensors of a model.
///
/// # Errors
/// When a tensor is missing, unknown, or of another shape than the configuration says.
pub(super) fn read<'a>(
    mut stored: HashMap<String, Stored<'a>>,
    family: Family,
    shape: &Shape,
) -> Result<Vec<Tensor<'a>>> {
    let mut tensors = Vec::new();
    let mut stacks: BTreeMap<String, BTreeMap<u32, (Place, Stored<'a>)>> = BTreeMap::new();
    let mut names: Vec<String> = stored.keys().cloned().collect();
    names.sort();
    for name in names {
        let Some(tensor) = stored.remove(&name) else {
            continue;
        };
        let Some(place) = place(&name, family, shape).map_err(|what| {
            let name: String = name.chars().take(80).collect();
            Error::file(tensor.path, format!("tensor {name:?} {what}"))
        })?
        else {
            continue;
        };
        if place.shape != tensor.shape {
            return Err(Error::file(
                tensor.path,
                format!(
                    "tensor {name} has the shape {:?}, but config.json asks for {:?}: the files are not of one model",
                    tensor.shape, place.shape
                ),
            ));
        }
        match place.expert {
            None => tensors.push(made(place, &tensor)?),
            Some(expert) => {
                let stack = stacks.entry(place.name.clone()).or_default();
                stack.insert(expert, (place, tensor));
            }
        }
    }
    for (name, stack) in stacks {
        tensors.push(stacked(name, stack, shape)?);
    }
    check_whole(&tensors, shape)?;
    Ok(tensors)
}

/// The tensor of what the frequencies of rotary embeddings are divided by.
pub(super) fn rope_factors(factors: Vec<f32>) -> Tensor<'static> {
    let bytes = factors.iter().flat_map(|factor| factor.to_le_bytes());
    Tensor {
        name: "rope_freqs.weight".to_owned(),
        dtype: DType::F32,
        shape: vec![factors.len() as u64],
        data: Data::Made(bytes.collect()),
        additions: Vec::new(),
    }
}

/// The type of a tensor's numbers.
pub(super) fn dtype(path: &Path, name: &str, dtype: Dtype) -> Result<DType> {
    match dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::BF16),
        other => Err(Error::file(
            path,
            format!("tensor {name} is {other:?}: weights in F32, F16 or BF16 are converted"),
        )),
    }
}

fn open<'a>(path: &'a PathBuf, name: &str, view: &TensorView<'a>) -> Result<Stored<'a>> {
    Ok(Stored {
        path,
        dtype: dtype(path, name, view.dtype())?,
        shape: view.shape().iter().map(|length| *length as u64).collect(),
        data: Part::Stored(view.data()),
    })
}

/// Whose heads a product's rows are of, where their order may be another in GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heads {
    None,
    Queries,
    Keys,
}

/// What a product of a layer is called in GGUF.
pub(super) fn product(part: &str, family: Family) -> Option<(&'static str, Heads)> {
    let is_fused = family == Family::Phi3;
    Some(match (part, is_fused) {
        ("self_attn.q_proj", false) => ("attn_q", Heads::Queries),
        ("self_attn.k_proj", false) => ("attn_k", Heads::Keys),
        ("self_attn.v_proj", false) => ("attn_v", Heads::None),
        ("self_attn.qkv_proj", true) => ("attn_qkv", Heads::None),
        ("self_attn.o_proj", _) => ("attn_output", Heads::None),
        ("mlp.gate_proj", false) => ("ffn_gate", Heads::None),
        ("mlp.up_proj", false) => ("ffn_up", Heads::None),
        ("mlp.gate_up_proj", true) => ("ffn_up", Heads::None),
        ("mlp.down_proj", _) => ("ffn_down", Heads::None),
        _ => return None,
    })
}

/// Where a tensor belongs; nowhere where GGUF has no use for it.
fn place(name: &str, family: Family, shape: &Shape) -> Result<Option<Place>, String> {
    let unknown = || "is of no part that its family is known to have".to_owned();
    let [width, inner, vocabulary] = [shape.width, shape.inner, shape.vocabulary].map(u64::from);
    let queries = u64::from(shape.heads) * u64::from(shape.head);
    let keys = u64::from(shape.kv_heads) * u64::from(shape.head);
    let plain = |name: &str, lengths: &[u64]| {
        Ok(Some(Place {
            name: name.to_owned(),
            shape: lengths.to_vec(),
            heads: None,
            is_shifted: false,
            expert: None,
        }))
    };
    let norm = |name: String, length: u64| {
        Ok(Some(Place {
            name,
            shape: vec![length],
            heads: None,
            is_shifted: family.has_shifted_norms(),
            expert: None,
        }))
    };
    match name {
        "model.embed_tokens.weight" => return plain("token_embd.weight", &[vocabulary, width]),
        "model.norm.weight" => return norm("output_norm.weight".to_owned(), width),
        // It is the embedding's.
        "lm_head.weight" if shape.is_tied => return Ok(None),
        "lm_head.weight" => return plain("output.weight", &[vocabulary, width]),
        _ => {}
    }
    let rest = name.strip_prefix("model.layers.").ok_or_else(unknown)?;
    let (layer, rest) = rest.split_once('.').ok_or_else(unknown)?;
    let layer: u32 = layer.parse().map_err(|_| unknown())?;
    if layer >= shape.layers {
        return Err(format!(
            "is of a layer that config.json does not have, which says {}",
            shape.layers
        ));
    }
    // Older files store what follows from the configuration.
    if rest == "self_attn.rotary_emb.inv_freq" {
        return Ok(None);
    }
    let (part, kind) = rest.rsplit_once('.').ok_or_else(unknown)?;
    if kind != "weight" && kind != "bias" {
        return Err(unknown());
    }
    let named = |part: &str| format!("blk.{layer}.{part}.{kind}");
    if let Some(part) = family.norm(part) {
        return norm(named(part), width);
    }
    let of_rows = family == Family::Olmo2;
    match part {
        "self_attn.q_norm" => {
            return norm(
                named("attn_q_norm"),
                if of_rows {
                    queries
                } else {
                    u64::from(shape.head)
                },
            );
        }
        "self_attn.k_norm" => {
            return norm(
                named("attn_k_norm"),
                if of_rows { keys } else { u64::from(shape.head) },
            );
        }
        _ => {}
    }
    let mut expert = None;
    let mut part = part.to_owned();
    let mut inner = inner;
    if let (Some((count, _)), "mlp.gate") = (shape.experts, &*part) {
        return plain(&named("ffn_gate_inp"), &[u64::from(count), width]);
    }
    let mut stack = None;
    if let (Some(rest), Some((count, width))) =
        (part.strip_prefix("mlp.switch_mlp."), shape.experts)
    {
        // All experts in one, as MLX has them.
        stack = Some(u64::from(count));
        inner = width.into();
        part = format!("mlp.{rest}");
    } else if let (Some(rest), Some((count, width))) = (part.strip_prefix("mlp."), shape.experts) {
        let rest = rest.strip_prefix("experts.").ok_or_else(unknown)?;
        let (number, rest) = rest.split_once('.').ok_or_else(unknown)?;
        let number: u32 = number.parse().map_err(|_| unknown())?;
        if number >= count {
            return Err(format!(
                "is of an expert that config.json does not have, which says {count}"
            ));
        }
        expert = Some(number);
        inner = width.into();
        part = format!("mlp.{rest}");
    }
    let (to, of) = product(&part, family).ok_or_else(unknown)?;
    let (rows, columns) = match to {
        "attn_q" => (queries, width),
        "attn_k" | "attn_v" => (keys, width),
        "attn_qkv" => (queries + 2 * keys, width),
        "attn_output" => (width, queries),
        "ffn_down" => (width, inner),
        // Both in one.
        "ffn_up" if family == Family::Phi3 => (2 * inner, width),
        _ => (inner, width),
    };
    let heads = match of {
        Heads::None => None,
        Heads::Queries => Some(shape.heads),
        Heads::Keys => Some(shape.kv_heads),
    };
    let to = match expert.is_some() || stack.is_some() {
        true => format!("{to}_exps"),
        false => to.to_owned(),
    };
    let lengths = match kind {
        "bias" => vec![rows],
        _ => vec![rows, columns],
    };
    Ok(Some(Place {
        name: named(&to),
        shape: stack.into_iter().chain(lengths).collect(),
        heads: heads.filter(|_| family.turns_neighbours()),
        is_shifted: false,
        expert,
    }))
}

/// A tensor in its place. Vectors are single precision in GGUF, and so is what chooses experts.
fn made<'a>(place: Place, stored: &Stored<'a>) -> Result<Tensor<'a>> {
    let is_vector = place.shape.len() == 1;
    if !is_vector && !place.name.ends_with("ffn_gate_inp.weight") {
        return Ok(Tensor {
            name: place.name,
            dtype: stored.dtype,
            data: Data::Rows {
                parts: vec![stored.data],
                turned: place.heads.map(|heads| place.shape[0] / u64::from(heads)),
            },
            shape: place.shape,
            additions: Vec::new(),
        });
    }
    let count = place.shape.iter().product::<u64>() as usize;
    let mut values = vec![0.0; count];
    match stored.data {
        Part::Stored(data) => {
            ggml::decode(stored.dtype, data, &mut values).map_err(|error| Error::Values {
                tensor: place.name.clone(),
                error,
            })?;
        }
        Part::Mlx(groups) => {
            for (row, values) in values.chunks_exact_mut(groups.columns).enumerate() {
                groups.decode(row, values);
            }
        }
        Part::Fp8(rows) => {
            for (row, values) in values.chunks_exact_mut(rows.columns).enumerate() {
                rows.decode(row, values);
            }
        }
    }
    if place.is_shifted {
        values.iter_mut().for_each(|value| *value += 1.0);
    }
    let head = place.heads.map(|heads| place.shape[0] / u64::from(heads));
    let source = |index: usize| match head {
        Some(head) => turned(index as u64, head) as usize,
        None => index,
    };
    Ok(Tensor {
        name: place.name,
        dtype: DType::F32,
        data: Data::Made(
            (0..count)
                .flat_map(|index| values[source(index)].to_le_bytes())
                .collect(),
        ),
        shape: place.shape,
        additions: Vec::new(),
    })
}

fn stacked<'a>(
    name: String,
    stack: BTreeMap<u32, (Place, Stored<'a>)>,
    shape: &Shape,
) -> Result<Tensor<'a>> {
    let count = shape.experts.map_or(0, |(count, _)| count);
    let incomplete = |what: String| Error::Asked(format!("{name}: {what}"));
    if stack.len() != count as usize {
        return Err(incomplete(format!(
            "there are {} experts of {count}: shards are missing",
            stack.len()
        )));
    }
    let mut parts = Vec::with_capacity(stack.len());
    let mut kind = None;
    for (_, (place, stored)) in stack {
        let (lengths, dtype) = kind.get_or_insert((place.shape, stored.dtype));
        if *dtype != stored.dtype {
            return Err(incomplete(format!(
                "experts are {dtype} and {}: convert them to one type",
                stored.dtype
            )));
        }
        parts.push((stored.data, lengths.clone()));
    }
    let (lengths, dtype) = kind.ok_or_else(|| incomplete("there are no experts".to_owned()))?;
    let mut whole = vec![u64::from(count)];
    whole.extend(lengths);
    Ok(Tensor {
        name,
        dtype,
        shape: whole,
        data: Data::Rows {
            parts: parts.into_iter().map(|(data, _)| data).collect(),
            turned: None,
        },
        additions: Vec::new(),
    })
}

/// Every layer has what the first one has, and the rest is there.
fn check_whole(tensors: &[Tensor<'_>], shape: &Shape) -> Result<()> {
    let names: HashSet<&str> = tensors.iter().map(|tensor| &*tensor.name).collect();
    let mut expected = vec![
        "token_embd.weight".to_owned(),
        "output_norm.weight".to_owned(),
    ];
    if !shape.is_tied {
        expected.push("output.weight".to_owned());
    }
    let all = names.iter().filter_map(|name| {
        let rest = name.strip_prefix("blk.")?;
        Some(rest.split_once('.')?.1)
    });
    let parts: BTreeSet<&str> = all.collect();
    for needed in ["attn_output.weight", "ffn_up"] {
        if !parts.iter().any(|part| part.starts_with(needed)) {
            expected.push(format!("blk.0.{needed}"));
        }
    }
    // One name after the other: how many layers there are is a claim so far.
    let layers = (0..shape.layers).flat_map(|layer| {
        let parts = parts.iter();
        parts.map(move |part| format!("blk.{layer}.{part}"))
    });
    let mut expected = expected.into_iter().chain(layers);
    match expected.find(|name| !names.contains(name.as_str())) {
        None => Ok(()),
        Some(name) => Err(Error::Asked(format!(
            "there is nothing for {name}: a file with tensors is missing, or config.json is of another model"
        ))),
    }
}
