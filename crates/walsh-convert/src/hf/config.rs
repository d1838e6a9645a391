//! What `config.json` and its like say, as GGUF says it.

use std::path::Path;

use walsh_formats::gguf::write::NewValue;

use super::family::Family;
use super::files::GENERATION;
use super::json::Json;
use crate::Result;

/// Pairs of metadata.
pub(super) type Pairs = Vec<(String, NewValue)>;

/// The sizes that tensors have.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) layers: u32,
    pub(super) width: u32,
    pub(super) inner: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) head: u32,
    pub(super) vocabulary: u32,
    pub(super) is_tied: bool,
    /// How many experts, and their width.
    pub(super) experts: Option<(u32, u32)>,
}

impl Shape {
    pub(super) fn read(config: &Json, family: Family) -> Result<Shape> {
        let width = config.size("hidden_size")?;
        let heads = config.size("num_attention_heads")?;
        let default = match family {
            Family::Gemma3 => 256,
            _ => width.checked_div(heads).unwrap_or(0),
        };
        let head = config.opt_size("head_dim")?.unwrap_or(default);
        let experts = match family {
            Family::Qwen3Moe => Some((
                match config.opt_size("num_local_experts")? {
                    Some(count) => count,
                    None => config.size("num_experts")?,
                },
                config.size("moe_intermediate_size")?,
            )),
            _ => None,
        };
        let shape = Shape {
            layers: config.size("num_hidden_layers")?,
            width,
            inner: config.size("intermediate_size")?,
            heads,
            kv_heads: config.opt_size("num_key_value_heads")?.unwrap_or(heads),
            head,
            vocabulary: config.size("vocab_size")?,
            // What transformers takes where nothing is said.
            is_tied: config
                .opt_bool("tie_word_embeddings")?
                .unwrap_or(family == Family::Gemma3),
            experts,
        };
        let (experts, expert_width) = shape.experts.unwrap_or((1, 1));
        let sizes = [
            experts,
            expert_width,
            shape.layers,
            width,
            shape.inner,
            heads,
            shape.kv_heads,
            head,
            shape.vocabulary,
        ];
        if sizes.contains(&0) || !heads.is_multiple_of(shape.kv_heads) || head % 2 != 0 {
            return Err(config.wrong(
                "its sizes contradict each other: none is zero, heads share keys evenly, and a head has an even size",
            ));
        }
        Ok(shape)
    }
}

/// The settings of rotary embeddings, wherever a version of transformers has put them.
fn rope(config: &Json) -> Json {
    let current = config.within("rope_parameters");
    let current = match current.get("full_attention") {
        Some(_) => current.within("full_attention"),
        None => current,
    };
    match current.get("rope_theta").or(current.get("rope_type")) {
        Some(_) => current,
        None => config.within("rope_scaling"),
    }
}

fn rope_type(rope: &Json) -> Result<Option<&str>> {
    Ok(match rope.opt_str("rope_type")? {
        Some(kind) => Some(kind),
        None => rope.opt_str("type")?,
    })
}

/// The metadata of a model without its tokenizer.
pub(super) fn metadata(
    folder: &Path,
    config: &Json,
    (family, shape): (Family, &Shape),
) -> Result<Pairs> {
    check(config, family)?;
    let name = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let name = name
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let mut pairs = vec![
        (
            "general.architecture".to_owned(),
            family.architecture().into(),
        ),
        ("general.type".to_owned(), "model".into()),
        ("general.name".to_owned(), name.unwrap_or_default().into()),
    ];
    let mut set = |key: &str, value: NewValue| {
        pairs.push((format!("{}.{key}", family.architecture()), value));
    };
    set("block_count", shape.layers.into());
    let context = match family {
        Family::Gemma3 => config
            .opt_size("max_position_embeddings")?
            .unwrap_or(131_072),
        _ => config.size("max_position_embeddings")?,
    };
    set("context_length", context.into());
    set("embedding_length", shape.width.into());
    set("feed_forward_length", shape.inner.into());
    set("attention.head_count", shape.heads.into());
    set("attention.head_count_kv", shape.kv_heads.into());
    let epsilon = config.opt_float("rms_norm_eps")?;
    set(
        "attention.layer_norm_rms_epsilon",
        (epsilon.unwrap_or(1e-6) as f32).into(),
    );
    if config.get("head_dim").is_some() || family == Family::Gemma3 {
        set("attention.key_length", shape.head.into());
        set("attention.value_length", shape.head.into());
    }
    if let Some((count, inner)) = shape.experts {
        set("expert_count", count.into());
        set(
            "expert_used_count",
            config.size("num_experts_per_tok")?.into(),
        );
        set("expert_feed_forward_length", inner.into());
    }
    let rope = rope(config);
    let theta = match rope.opt_float("rope_theta")? {
        Some(theta) => Some(theta),
        None => config.opt_float("rope_theta")?,
    };
    let usual = match family {
        Family::Gemma3 => 1_000_000.0,
        Family::SmolLm3 => 2_000_000.0,
        Family::Olmo2 => 500_000.0,
        _ => 10_000.0,
    };
    set("rope.freq_base", (theta.unwrap_or(usual) as f32).into());
    match family {
        Family::Llama | Family::Mistral | Family::SmolLm3 => {
            set("vocab_size", shape.vocabulary.into());
            set("rope.dimension_count", shape.head.into());
        }
        Family::Phi3 => {
            let part = match rope.opt_float("partial_rotary_factor")? {
                Some(part) => part,
                None => config.opt_float("partial_rotary_factor")?.unwrap_or(1.0),
            };
            set(
                "rope.dimension_count",
                ((part * f64::from(shape.head)) as u32).into(),
            );
            let original = match rope.opt_size("original_max_position_embeddings")? {
                Some(original) => Some(original),
                None => config.opt_size("original_max_position_embeddings")?,
            };
            set(
                "rope.scaling.original_context_length",
                original.unwrap_or(context).into(),
            );
            let window = config.opt_size("sliding_window")?.unwrap_or(0);
            set("attention.sliding_window", window.into());
        }
        Family::Gemma3 => {
            set(
                "attention.sliding_window",
                config.size("sliding_window")?.into(),
            );
            let local = config.within("rope_parameters").within("sliding_attention");
            let local = match local.opt_float("rope_theta")? {
                Some(theta) => Some(theta),
                None => config.opt_float("rope_local_base_freq")?,
            };
            if let Some(theta) = local {
                set("rope.freq_base_swa", (theta as f32).into());
            }
            if let Some(cap) = config.opt_float("final_logit_softcapping")? {
                set("final_logit_softcapping", (cap as f32).into());
            }
        }
        _ => {}
    }
    for (key, value) in scaling(config, &rope)? {
        set(key, value);
    }
    pairs.extend(sampling(folder)?);
    Ok(pairs)
}

/// How a context is stretched.
fn scaling(config: &Json, rope: &Json) -> Result<Vec<(&'static str, NewValue)>> {
    let factor = rope.opt_float("factor")?;
    let mut pairs: Vec<(&'static str, NewValue)> = Vec::new();
    match (rope_type(rope)?, factor) {
        (None | Some("default" | "llama3"), _) => {}
        (Some("linear"), Some(factor)) => {
            pairs.push(("rope.scaling.type", "linear".into()));
            pairs.push(("rope.scaling.factor", (factor as f32).into()));
        }
        (Some("yarn"), Some(factor)) => {
            pairs.push(("rope.scaling.type", "yarn".into()));
            pairs.push(("rope.scaling.factor", (factor as f32).into()));
            let original = match rope.opt_size("original_max_position_embeddings")? {
                Some(original) => original,
                None => config.size("original_max_position_embeddings")?,
            };
            pairs.push(("rope.scaling.original_context_length", original.into()));
            for (name, key) in [
                ("extrapolation_factor", "rope.scaling.yarn_ext_factor"),
                ("attention_factor", "rope.scaling.yarn_attn_factor"),
                ("beta_fast", "rope.scaling.yarn_beta_fast"),
                ("beta_slow", "rope.scaling.yarn_beta_slow"),
            ] {
                if let Some(value) = rope.opt_float(name)? {
                    pairs.push((key, (value as f32).into()));
                }
            }
        }
        (Some(kind @ ("linear" | "yarn")), None) => {
            return Err(config.wrong(format!(
                "its rotary embeddings are stretched by {kind:?}, but factor is missing, which says by how much"
            )));
        }
        (Some(other), _) => {
            return Err(config.wrong(format!(
                "its rotary embeddings are stretched by {other:?}, which is not converted: use a model without, or with linear, yarn or llama3"
            )));
        }
    }
    Ok(pairs)
}

/// The divisors that Llama 3.1's configurations give frequencies: those of waves that are long against the context that the
/// model was first trained for.
pub(super) fn rope_factors(config: &Json, family: Family, head: u32) -> Result<Option<Vec<f32>>> {
    let rope = rope(config);
    if rope_type(&rope)? != Some("llama3") {
        return Ok(None);
    }
    if !matches!(family, Family::Llama | Family::Mistral) {
        return Err(config.wrong("frequencies as Llama 3.1 has them are for Llama's family alone"));
    }
    let number =
        |key: &str, usual: f64| Ok::<_, crate::Error>(rope.opt_float(key)?.unwrap_or(usual));
    let theta = match rope.opt_float("rope_theta")? {
        Some(theta) => theta,
        None => config.opt_float("rope_theta")?.unwrap_or(10_000.0),
    };
    let factor = number("factor", 8.0)?;
    let (low, high) = (
        number("low_freq_factor", 1.0)?,
        number("high_freq_factor", 4.0)?,
    );
    let original = number("original_max_position_embeddings", 8192.0)?;
    let factor_of = |pair: u32| {
        let exponent = f64::from(2 * pair) / f64::from(head);
        let wave = std::f64::consts::TAU * libm::pow(theta, exponent);
        if wave < original / high {
            1.0
        } else if wave > original / low {
            factor as f32
        } else {
            let smooth = (original / wave - low) / (high - low);
            (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
        }
    };
    let factors: Vec<f32> = (0..head / 2).map(factor_of).collect();
    // Others lead to divisions by zero, or to frequencies that are not finite.
    let is_usable = factor > 0.0 && low < high;
    if !is_usable
        || factors
            .iter()
            .any(|factor| !(factor.is_finite() && *factor > 0.0))
    {
        return Err(config.wrong(
            "its frequencies cannot be divided: factor, rope_theta and original_max_position_embeddings are above zero, and low_freq_factor is below high_freq_factor",
        ));
    }
    Ok(Some(factors))
}

/// Refuses settings that change what is computed and have no place in GGUF.
fn check(config: &Json, family: Family) -> Result<()> {
    let mut activation = config.opt_str("hidden_act")?;
    if family == Family::Gemma3 {
        activation = config.opt_str("hidden_activation")?;
    }
    if let Some(activation) = activation
        && !family.activations().contains(&activation)
    {
        return Err(config.wrong(format!(
            "the activation {activation:?} is not what this family has in GGUF: {}",
            family.activations().join(" or ")
        )));
    }
    if family == Family::Qwen2 && config.opt_bool("use_sliding_window")? == Some(true) {
        return Err(
            config.wrong("use_sliding_window is true, which GGUF cannot say of this family")
        );
    }
    if config.opt_bool("quantize_activations")? == Some(true) {
        return Err(config.wrong("quantize_activations is true, which is not computed here"));
    }
    if let Some(layers) = config
        .get("layer_types")
        .and_then(|layers| layers.as_array())
        && family == Family::Gemma3
    {
        let is_usual = |(index, kind): (usize, &serde_json::Value)| {
            let is_global = (index + 1) % 6 == 0;
            kind.as_str()
                == Some(if is_global {
                    "full_attention"
                } else {
                    "sliding_attention"
                })
        };
        if !layers.iter().enumerate().all(is_usual) {
            return Err(config.wrong(
                "layer_types is not the family's pattern of six, which GGUF takes for granted",
            ));
        }
    }
    Ok(())
}

/// What the makers recommend for sampling.
fn sampling(folder: &Path) -> Result<Pairs> {
    let mut pairs = Vec::new();
    let Some(config) = Json::open_optional(&folder.join(GENERATION))? else {
        return Ok(pairs);
    };
    // Without sampling the others say nothing.
    if config.opt_bool("do_sample")? != Some(true) {
        return Ok(pairs);
    }
    for (name, key) in [
        ("temperature", "temp"),
        ("top_p", "top_p"),
        ("min_p", "min_p"),
    ] {
        if let Some(value) = config.opt_float(name)? {
            pairs.push((format!("general.sampling.{key}"), (value as f32).into()));
        }
    }
    if let Some(count) = config.opt_size("top_k")? {
        pairs.push(("general.sampling.top_k".to_owned(), (count as i32).into()));
    }
    Ok(pairs)
}
