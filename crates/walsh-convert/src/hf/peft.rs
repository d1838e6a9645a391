//! Folders that PEFT has saved a LoRA adapter in: `adapter_config.json` and `adapter_model.safetensors`.

use std::collections::BTreeMap;
use std::path::Path;

use regex::Regex;
use safetensors::SafeTensors;
use serde_json::Value;

use super::family::Family;
use super::json::Json;
use super::tensors::{self, Heads};
use crate::lora::pair::{Adapter, Base, Halves, Pair, Stored, alpha};
use crate::source::{map, turned};
use crate::{Error, Result};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";

/// Keys that change nothing of what a saved adapter computes: how it was trained, what it was trained on, and which modules
/// have one, which its tensors say.
const INERT: &[&str] = &[
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "loftq_config",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "parent_library",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
];

/// How adapters begin that leave the model's own weights as they are. Others take a part of these away.
const BEGINNINGS: &[&str] = &["true", "false", "gaussian", "orthogonal", "eva"];

/// What a configuration says of products.
struct Config {
    rank: u64,
    alpha: f64,
    /// Whether products are divided by the root of the rank, in the place of the rank (Kalajdzievski, arXiv 2312.03732).
    by_root: bool,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
    targets: Targets,
    layers: Option<Vec<u64>>,
}

/// Which modules have an adapter.
enum Targets {
    AllLinear,
    Matching(Regex),
    Named(Vec<String>),
}

impl Targets {
    fn names(&self, module: &str) -> bool {
        match self {
            Targets::AllLinear => true,
            Targets::Matching(expression) => expression.is_match(module),
            Targets::Named(names) => names.iter().any(|name| {
                let rest = module.strip_suffix(name.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
        }
    }
}

/// Reads an adapter of a model.
pub(crate) fn read(folder: &Path, base: &Base<'_>) -> Result<Adapter> {
    let path = folder.join(CONFIG);
    if !path.is_file() {
        return Err(Error::adapter(
            folder,
            format!("there is no {CONFIG}: give the folder of a PEFT adapter, or a GGUF file"),
        ));
    }
    let json = Json::open(&path)?;
    let config = Config::read(&json)?;
    let family = Family::of_architecture(base.architecture).ok_or_else(|| {
        Error::adapter(
            folder,
            format!(
                "PEFT's names are not known for {} models: make a GGUF file of the adapter with llama.cpp's convert_lora_to_gguf.py",
                base.architecture
            ),
        )
    })?;
    let path = folder.join(TENSORS);
    if !path.is_file() {
        return Err(Error::adapter(
            folder,
            format!("there is no {TENSORS}: save the adapter as safetensors"),
        ));
    }
    let bytes = map(&path)?;
    let wrong = |what: String| Error::adapter(&path, what);
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| wrong(format!("{error}: copy it again")))?;
    let mut halves = Halves::default();
    for (name, view) in file.tensors() {
        let (module, side) = half(&name).map_err(&wrong)?;
        config.check(module).map_err(&wrong)?;
        let stored = Stored {
            dtype: tensors::dtype(&path, &name, view.dtype())?,
            shape: view.shape().iter().map(|length| *length as u64).collect(),
            data: view.data(),
        };
        let module = module.to_owned();
        halves
            .put(module, side, (name.clone(), stored))
            .map_err(&wrong)?;
    }
    let mut pairs = BTreeMap::new();
    for (module, [(a_name, a), (b_name, b)]) in halves.whole().map_err(&wrong)? {
        let (product, heads) = product(&module, family).map_err(&wrong)?;
        let rank = config.rank_of(&module);
        if a.shape.first() != Some(&rank) {
            return Err(wrong(format!(
                "tensor {a_name} has the shape {:?}, but {CONFIG} says a rank of {rank}",
                a.shape
            )));
        }
        let scale = |_| config.scale_of(&module);
        let mut pair = Pair::new([&a_name, &b_name], [&a, &b], scale).map_err(&wrong)?;
        let heads = match heads {
            Heads::Queries => base.heads,
            Heads::Keys => base.kv_heads,
            Heads::None => 0,
        };
        if heads > 0 && family.turns_neighbours() {
            let rows = pair.rows as u64;
            if !rows.is_multiple_of(2 * heads) {
                return Err(wrong(format!(
                    "tensor {b_name} has {rows} rows, and the model {heads} heads for them: it is an adapter of another model"
                )));
            }
            pair.reorder(|row| turned(row, rows / heads));
        }
        pairs.insert(product, pair);
    }
    Ok(Adapter {
        path: folder.to_owned(),
        name: Adapter::name_of(folder),
        pairs,
    })
}

/// The module that a tensor is of, and whether it is A or B of it.
fn half(name: &str) -> Result<(&str, usize), String> {
    let shown = name.chars().take(80).collect::<String>();
    let inner = name.strip_prefix("base_model.model.");
    let module = inner.and_then(|inner| {
        let a = inner.strip_suffix(".lora_A.weight");
        let b = inner.strip_suffix(".lora_B.weight");
        a.map(|module| (module, 0)).or(b.map(|module| (module, 1)))
    });
    module.ok_or_else(|| {
        format!(
            "tensor {shown:?} is neither A nor B of a product, and leaving it out would change what the adapter does"
        )
    })
}

/// What a module's product is called in GGUF, and whose rows are a head's.
fn product(module: &str, family: Family) -> Result<(String, Heads), String> {
    let unknown = || {
        let shown = module.chars().take(80).collect::<String>();
        format!("{shown:?} is no product that adapters are applied to")
    };
    if module == "lm_head" {
        return Ok(("output".to_owned(), Heads::None));
    }
    let rest = module.strip_prefix("model.layers.").ok_or_else(unknown)?;
    let (layer, part) = rest.split_once('.').ok_or_else(unknown)?;
    let layer: u32 = layer.parse().map_err(|_| unknown())?;
    let (name, heads) = tensors::product(part, family).ok_or_else(unknown)?;
    Ok((format!("blk.{layer}.{name}"), heads))
}

impl Config {
    fn read(json: &Json) -> Result<Config> {
        match json.opt_str("peft_type")? {
            Some("LORA") => {}
            kind => {
                return Err(json.wrong(format!(
                    "peft_type is {:?}, and adapters of the type \"LORA\" are applied",
                    kind.unwrap_or("missing")
                )));
            }
        }
        for (key, value) in json.all() {
            let says_nothing = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(values) => values.is_empty(),
                Value::Object(values) => values.is_empty(),
                _ => false,
            };
            let is_read = matches!(
                key.as_str(),
                "alpha_pattern"
                    | "bias"
                    | "init_lora_weights"
                    | "layers_to_transform"
                    | "lora_alpha"
                    | "peft_type"
                    | "r"
                    | "rank_pattern"
                    | "target_modules"
                    | "use_rslora"
            );
            if !says_nothing && !is_read && !INERT.contains(&key.as_str()) {
                let value: String = value.to_string().chars().take(60).collect();
                return Err(json.wrong(format!(
                    "{key} is {value}, which is not supported: make an adapter without it"
                )));
            }
        }
        match json.opt_str("bias")? {
            None | Some("none") => {}
            Some(bias) => {
                return Err(json.wrong(format!(
                    "bias is {bias:?}, and adapters with biases are not supported"
                )));
            }
        }
        if let Some(beginning) = json.get("init_lora_weights") {
            let text = match beginning {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            if !BEGINNINGS.contains(&text.as_str()) {
                return Err(json.wrong(format!(
                    "init_lora_weights is {text:?}: such adapters are for weights that have lost a part to them, and not for the model's own"
                )));
            }
        }
        let rank = json.size("r")?;
        let missing = || json.wrong("lora_alpha is missing");
        let value = json.opt_float("lora_alpha")?.ok_or_else(missing)?;
        let alpha = alpha("lora_alpha", value).map_err(|what| json.wrong(what))?;
        Ok(Config {
            rank: rank.into(),
            alpha,
            by_root: json.opt_bool("use_rslora")?.unwrap_or(false),
            ranks: patterns(json, "rank_pattern")?,
            alphas: patterns(json, "alpha_pattern")?,
            targets: targets(json)?,
            layers: layers(json)?,
        })
    }

    fn rank_of(&self, module: &str) -> u64 {
        first(&self.ranks, module).map_or(self.rank, |rank| rank as u64)
    }

    fn scale_of(&self, module: &str) -> f64 {
        let alpha = first(&self.alphas, module).unwrap_or(self.alpha);
        let rank = self.rank_of(module) as f64;
        alpha / if self.by_root { rank.sqrt() } else { rank }
    }

    /// Refuses a module that the configuration gives no adapter.
    fn check(&self, module: &str) -> Result<(), String> {
        let layer = module.split('.').find_map(|part| part.parse::<u64>().ok());
        let in_layer = match (&self.layers, layer) {
            (Some(layers), Some(layer)) => layers.contains(&layer),
            _ => true,
        };
        match self.targets.names(module) && in_layer {
            true => Ok(()),
            false => {
                let shown = module.chars().take(80).collect::<String>();
                Err(format!(
                    "it has tensors of {shown:?}, to which {CONFIG} gives no adapter: the files are not of one adapter"
                ))
            }
        }
    }
}

/// What the first pattern says that a module's name ends with.
fn first(patterns: &[(Regex, f64)], module: &str) -> Option<f64> {
    let found = patterns
        .iter()
        .find(|(pattern, _)| pattern.is_match(module));
    found.map(|(_, value)| *value)
}

fn expression(json: &Json, key: &str, text: &str) -> Result<Regex> {
    Regex::new(text).map_err(|_| {
        let text: String = text.chars().take(60).collect();
        json.wrong(format!("{key} has {text:?}, which cannot be matched"))
    })
}

fn patterns(json: &Json, key: &str) -> Result<Vec<(Regex, f64)>> {
    if json.get(key).is_none() {
        return Ok(Vec::new());
    }
    let mut patterns = Vec::new();
    for (pattern, value) in json.object(key)? {
        let number = value.as_f64().filter(|value| *value != 0.0);
        let number = number
            .filter(|value| key == "alpha_pattern" || (*value >= 1.0 && value.fract() == 0.0));
        let number = number.ok_or_else(|| {
            let value: String = value.to_string().chars().take(60).collect();
            json.wrong(format!("{key} has {value} for {pattern:?}"))
        })?;
        let whole = format!("^(?:.*\\.)?(?:{pattern})$");
        patterns.push((expression(json, key, &whole)?, number));
    }
    Ok(patterns)
}

fn targets(json: &Json) -> Result<Targets> {
    let missing = || json.wrong("target_modules is missing, or neither a text nor texts");
    match json.get("target_modules").ok_or_else(missing)? {
        Value::String(all) if all.eq_ignore_ascii_case("all-linear") => Ok(Targets::AllLinear),
        Value::String(text) => {
            let whole = format!("^(?:{text})$");
            Ok(Targets::Matching(expression(
                json,
                "target_modules",
                &whole,
            )?))
        }
        Value::Array(names) => {
            let name = |name: &Value| name.as_str().map(str::to_owned).ok_or_else(missing);
            Ok(Targets::Named(
                names.iter().map(name).collect::<Result<_>>()?,
            ))
        }
        _ => Err(missing()),
    }
}

fn layers(json: &Json) -> Result<Option<Vec<u64>>> {
    let wrong = || json.wrong("layers_to_transform is neither a number nor numbers");
    match json.get("layers_to_transform") {
        None => Ok(None),
        Some(Value::Array(layers)) => {
            let layer = |layer: &Value| layer.as_u64().ok_or_else(wrong);
            Ok(Some(layers.iter().map(layer).collect::<Result<_>>()?))
        }
        Some(layer) => Ok(Some(vec![layer.as_u64().ok_or_else(wrong)?])),
    }
}
