//! What a model is, what it weighs, and what a token of its cache costs.

use serde::Serialize;
use serde_json::Value as Json;
use walsh::formats::gguf::{Gguf, Value};
use walsh::formats::kv::{Budget, KvCodec, KvCodecs, KvSpec, LayerKv};

use crate::{LayerConfig, Model, ModelConfig, Pooling, Result, SessionOptions};

/// A model's description.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// What the file calls the model.
    pub name: String,
    /// The file.
    pub path: String,
    /// The size of the file, or of all its parts.
    pub file_bytes: u64,
    /// The family.
    pub architecture: &'static str,
    /// How many weights it has.
    pub parameters: u64,
    /// Its shape.
    pub shape: Shape,
    /// Its tensors by storage type, the largest share first.
    pub tensors: Vec<TypeShare>,
    /// The context whose cost is named, in tokens.
    pub context: usize,
    /// The bytes that the device can still hold, where it can tell.
    pub available_bytes: Option<u64>,
    /// The cost of a token, and of a session of that context, by SPEC.
    pub kv: Vec<KvCost>,
    /// Its metadata; of long arrays only the start.
    pub metadata: Vec<MetadataEntry>,
}

/// A model's sizes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shape {
    /// Blocks.
    pub layers: usize,
    /// The width of the residual stream.
    pub width: usize,
    /// The width inside the feed-forward part of the layer that has most, or inside each expert of it.
    pub feed_forward: usize,
    /// How many experts a layer has, where its feed-forward part is a mixture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<usize>,
    /// How many of them a token goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts_used: Option<usize>,
    /// The width inside each expert, where they stand beside a feed-forward part that all tokens pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts_beside: Option<usize>,
    /// The layers without experts where others have some, counted from 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dense_layers: Vec<usize>,
    /// The width inside their feed-forward parts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_feed_forward: Option<usize>,
    /// The numbers of a token's embedding for each layer, where there are such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_layer_width: Option<usize>,
    /// How the model makes one vector of a text, where it makes those instead of texts: `mean` or `last`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pooling: Option<&'static str>,
    /// Query heads.
    pub heads: usize,
    /// KV heads of the first layer.
    pub kv_heads: usize,
    /// Numbers per head of the first layer.
    pub head_dim: usize,
    /// The heads of all layers, where they are not alike.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unlike_heads: Vec<LayerHeads>,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// The context that the model was trained for, in tokens.
    pub context: usize,
    /// How many positions a query of a sliding layer sees, where there are some.
    pub window: Option<usize>,
    /// The layers that slide, counted from 0; all others attend globally.
    pub sliding_layers: Vec<usize>,
    /// The layers that keep a state of fixed size instead of keys and values, counted from 0: no SPEC changes what they
    /// take.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recurrent_layers: Vec<usize>,
    /// The layers without keys and values of their own, counted from 0: they attend to those of an earlier layer, and no SPEC
    /// changes what they take, which is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sharing_layers: Vec<usize>,
    /// The bytes of a text's state in all of the layers that keep one, whatever its length.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_bytes: Option<u64>,
}

/// What heads some layers have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerHeads {
    /// The layers, counted from 0.
    pub layers: Vec<usize>,
    /// KV heads of each.
    pub kv_heads: usize,
    /// Numbers per head.
    pub head_dim: usize,
}

/// The tensors of one storage type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TypeShare {
    /// The storage type.
    pub dtype: &'static str,
    /// How many tensors have it.
    pub count: usize,
    /// How many numbers they hold.
    pub elements: u64,
    /// How many bytes they take.
    pub bytes: u64,
}

/// What a KV codec costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KvCost {
    /// The SPEC.
    pub kv: String,
    /// What it stands for.
    pub meaning: String,
    /// Bytes for a token, over all layers, overlays not counted. `None` where
    /// the SPEC does not fit the model.
    pub bytes_per_token: Option<u64>,
    /// Bits for a number, overlays not counted.
    pub bits_per_value: Option<f64>,
    /// Bytes for a session whose [context](Inspection::context) is full, overlays
    /// included; states of layers that keep one are not.
    pub session_bytes: Option<u64>,
    /// Why the SPEC does not fit.
    pub why_not: Option<String>,
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetadataEntry {
    /// Its key.
    pub key: String,
    /// The value; of a long array the first elements.
    pub value: Json,
    /// How many elements an array has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
}

/// Describes a model, and what its KV cache costs in some SPECs: the common ones
/// where none is given. `context` is how many tokens a session would hold, 0 for as
/// many as one holds that is not told (see [`SessionOptions::context`]).
///
/// # Errors
/// When a context is out of range, or the file was damaged since it was opened.
pub fn inspect(model: &Model, specs: &[KvSpec], context: usize) -> Result<Inspection> {
    let config = model.config();
    let defaults = SessionOptions {
        context,
        ..SessionOptions::default()
    };
    let context = defaults.resolved(model)?.context;
    let listed = if specs.is_empty() {
        common_specs().collect()
    } else {
        specs.to_vec()
    };
    let kv = listed.into_iter().map(|spec| {
        let policy = model.kv_policy(&spec);
        let cost = model.kv_bytes_per_token(&spec);
        let session = SessionOptions {
            kv: spec.clone(),
            ..defaults.clone()
        };
        KvCost {
            kv: spec.to_string(),
            meaning: policy
                .as_ref()
                .unwrap_or(&spec)
                .describe(config.layers[0].head_dim),
            bytes_per_token: cost.as_ref().ok().copied(),
            bits_per_value: model.kv_bits_per_value(&spec).ok(),
            session_bytes: model.kv_bytes(&session).ok(),
            why_not: cost.err().map(|error| error.to_string()),
        }
    });
    let first = &config.layers[0];
    let layers = config.layers.iter().enumerate();
    let sharing = layers.clone().filter(|(_, layer)| layer.shares.is_some());
    let recurrent = layers.clone().filter(|(_, layer)| layer.recurrent);
    let has_mixtures = config.layers.iter().any(|layer| layer.mixture);
    let is_dense = |layer: &LayerConfig| has_mixtures && !layer.mixture;
    let dense = layers.clone().filter(|(_, layer)| is_dense(layer));
    let sliding = layers.filter(|(_, layer)| layer.window.is_some());
    Ok(Inspection {
        name: model.name().to_owned(),
        path: model.path().display().to_string(),
        file_bytes: model.file_bytes(),
        architecture: config.architecture.name(),
        parameters: model.tensors().iter().map(|share| share.elements).sum(),
        shape: Shape {
            layers: config.layers.len(),
            width: config.width,
            feed_forward: config.most(|layer| match is_dense(layer) {
                true => 0,
                false => layer.feed_forward,
            }),
            dense_feed_forward: dense.clone().map(|(_, layer)| layer.feed_forward).max(),
            dense_layers: dense.map(|(index, _)| index).collect(),
            experts: config.experts.map(|experts| experts.count),
            experts_used: config.experts.map(|experts| experts.used),
            experts_beside: config.experts.and_then(|experts| experts.beside),
            per_layer_width: config.per_layer_width,
            pooling: config.pooling.map(Pooling::name),
            heads: config.heads,
            kv_heads: first.kv_heads,
            head_dim: first.head_dim,
            unlike_heads: unlike_heads(config),
            vocabulary: config.vocabulary,
            context: config.context,
            window: config.layers.iter().find_map(|layer| layer.window),
            sliding_layers: sliding.map(|(index, _)| index).collect(),
            recurrent_layers: recurrent.map(|(index, _)| index).collect(),
            sharing_layers: sharing.map(|(index, _)| index).collect(),
            state_bytes: Some(config.state_bytes()).filter(|bytes| *bytes > 0),
        },
        tensors: model
            .tensors()
            .iter()
            .map(|share| TypeShare {
                dtype: share.dtype.name(),
                count: share.count,
                elements: share.elements,
                bytes: share.bytes,
            })
            .collect(),
        context,
        available_bytes: model.device().available_bytes(),
        kv: kv.collect(),
        metadata: model.with_metadata(metadata)?,
    })
}

/// The heads of all layers, none where they are alike.
fn unlike_heads(config: &ModelConfig) -> Vec<LayerHeads> {
    let mut kinds: Vec<LayerHeads> = Vec::new();
    for (index, layer) in config.layers.iter().enumerate() {
        let shape = (layer.kv_heads, layer.head_dim);
        match kinds
            .iter_mut()
            .find(|kind| (kind.kv_heads, kind.head_dim) == shape)
        {
            Some(kind) => kind.layers.push(index),
            None => kinds.push(LayerHeads {
                layers: vec![index],
                kv_heads: layer.kv_heads,
                head_dim: layer.head_dim,
            }),
        }
    }
    if kinds.len() == 1 {
        kinds.clear();
    }
    kinds
}

/// The floats and ggml's types, the codebook codecs with the policy that goes
/// with them, and the budget that is none of these.
fn common_specs() -> impl Iterator<Item = KvSpec> {
    let (own, others): (Vec<_>, Vec<_>) = KvCodec::all().partition(|codec| codec.dense().is_none());
    let all = others.into_iter().chain(own.into_iter().rev());
    all.map(|codec| LayerKv::standard(KvCodecs::both(codec)).into())
        .chain([Budget::B3Half.kv().into()])
}

fn metadata(gguf: &Gguf<'_>) -> Vec<MetadataEntry> {
    gguf.metadata()
        .iter()
        .map(|(key, value)| MetadataEntry {
            key: key.to_string(),
            length: match value {
                Value::Array(array) => Some(array.len()),
                _ => None,
            },
            value: json(value, 0),
        })
        .collect()
}

/// Elements that are shown of an array.
const SHOWN: usize = 6;
/// Arrays deeper than this are shown as their length.
const SHOWN_DEPTH: usize = 2;

fn json(value: &Value<'_>, depth: usize) -> Json {
    match *value {
        Value::F32(number) => float(number.into()),
        Value::F64(number) => float(number),
        Value::Bool(truth) => truth.into(),
        Value::String(text) => text.into(),
        Value::Array(array) if depth < SHOWN_DEPTH => array
            .values()
            .take(SHOWN)
            .map(|value| value.map_or(Json::Null, |value| json(&value, depth + 1)))
            .collect(),
        Value::Array(array) => format!("{} elements", array.len()).into(),
        Value::U64(number) => number.into(),
        _ => value
            .integer()
            .and_then(|number| i64::try_from(number).ok())
            .map_or(Json::Null, Json::from),
    }
}

/// JSON has no NaN and no infinity: those become text.
fn float(number: f64) -> Json {
    serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Json::Number)
}
