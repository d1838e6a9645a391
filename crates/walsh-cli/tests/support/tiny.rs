//! A tiny model with random weights: Llama's form, 2 layers, bytes as tokens.

use walsh::formats::DType;
use walsh::formats::gguf::write::{NewTensor, NewValue, Writer};

/// What a tiny model is like, apart from its fixed shape.
#[derive(Clone)]
pub(crate) struct Tiny {
    pub(crate) architecture: &'static str,
    pub(crate) name: &'static str,
    /// The value of the first weight of the first attention norm.
    pub(crate) first_norm: f32,
    pub(crate) chat_template: Option<&'static str>,
    /// A token whose embedding is no number, of types whose blocks begin with a scale in half precision.
    pub(crate) nan_token: Option<usize>,
    /// Leaves this tensor out.
    pub(crate) without: Option<&'static str>,
    /// The type of the matrices.
    pub(crate) dtype: DType,
    /// The sliding window of the first layer; `gemma2` has one.
    pub(crate) window: Option<u32>,
    pub(crate) layers: usize,
    pub(crate) head_dim: usize,
    /// Metadata beside the usual, or instead of it; `None` leaves a key out.
    pub(crate) metadata: Vec<(&'static str, Option<NewValue>)>,
    /// Tensors of ones beside the usual.
    pub(crate) extra: Vec<(&'static str, &'static [usize])>,
}

impl Default for Tiny {
    fn default() -> Self {
        Self {
            architecture: "llama",
            name: "Tiny",
            first_norm: 1.0,
            chat_template: Some(CHATML),
            nan_token: None,
            without: None,
            dtype: DType::Q8_0,
            window: None,
            layers: LAYERS,
            head_dim: HEAD_DIM,
            metadata: Vec::new(),
            extra: Vec::new(),
        }
    }
}

const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

pub(crate) const LAYERS: usize = 2;
pub(crate) const WIDTH: usize = 64;
pub(crate) const INNER: usize = 96;
pub(crate) const HEADS: usize = 2;
pub(crate) const KV_HEADS: usize = 1;
pub(crate) const HEAD_DIM: usize = 64;
pub(crate) const CONTEXT: u32 = 256;
pub(crate) const VOCABULARY: usize = 256 + 1 + 3;

impl Tiny {
    /// A model with control tokens of these names, instead of bytes that no text has.
    pub(crate) fn with_control(names: &[&str]) -> Self {
        const UNUSED: usize = 0xf5;
        let (mut tokens, mut types) = (tokens(), types());
        for (place, name) in names.iter().enumerate() {
            tokens[UNUSED + place] = (*name).to_owned();
            types[UNUSED + place] = 3;
        }
        Self {
            metadata: vec![
                ("tokenizer.ggml.tokens", Some(tokens.into())),
                ("tokenizer.ggml.token_type", Some(types.into())),
            ],
            ..Self::default()
        }
    }

    /// The model as a GGUF file.
    pub(crate) fn gguf(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        self.metadata(&mut writer);
        self.tensors(&mut writer);
        writer.to_bytes()
    }

    fn metadata(&self, writer: &mut Writer<'_>) {
        let set = |key: &str, value: NewValue| {
            if !self.metadata.iter().any(|(own, _)| *own == key) {
                writer.set(key, value).expect("a new key");
            }
        };
        self.usual_metadata(set);
        for (key, value) in &self.metadata {
            if let Some(value) = value {
                writer.set(key, value.clone()).expect("a new key");
            }
        }
    }

    fn usual_metadata(&self, mut set: impl FnMut(&str, NewValue)) {
        let architecture = self.architecture;
        let mut size = |key: &str, value: usize| {
            set(&format!("{architecture}.{key}"), (value as u32).into());
        };
        size("block_count", self.layers);
        size("embedding_length", WIDTH);
        size("feed_forward_length", INNER);
        size("attention.head_count", HEADS);
        size("attention.head_count_kv", KV_HEADS);
        size("attention.key_length", self.head_dim);
        size("attention.value_length", self.head_dim);
        size("context_length", CONTEXT as usize);
        if let Some(window) = self.window {
            size("attention.sliding_window", window as usize);
        }
        let epsilon = format!("{architecture}.attention.layer_norm_rms_epsilon");
        set(&epsilon, 1e-5_f32.into());
        set("general.architecture", architecture.into());
        set("general.name", self.name.into());
        set("tokenizer.ggml.model", "gpt2".into());
        set("tokenizer.ggml.pre", "smollm".into());
        set("tokenizer.ggml.tokens", tokens().into());
        set("tokenizer.ggml.token_type", types().into());
        set("tokenizer.ggml.merges", vec!["Ġ t".to_owned()].into());
        set("tokenizer.ggml.bos_token_id", 258_u32.into());
        set("tokenizer.ggml.eos_token_id", 259_u32.into());
        set("tokenizer.ggml.add_bos_token", false.into());
        if let Some(template) = self.chat_template {
            set("tokenizer.chat_template", template.into());
        }
    }

    fn tensors(&self, writer: &mut Writer<'_>) {
        let mut random = Random(7);
        let mut add = |name: String, shape: &[usize]| {
            let count: usize = shape.iter().product();
            let is_vector = shape.len() == 1;
            let mut values: Vec<f32> = (0..count)
                .map(|_| if is_vector { 1.0 } else { random.next() * 0.3 })
                .collect();
            if name == "blk.0.attn_norm.weight" {
                values[0] = self.first_norm;
            }
            if self.without == Some(name.as_str()) {
                return;
            }
            let dtype = if is_vector { DType::F32 } else { self.dtype };
            let bytes = dtype.row_bytes(count as u64).expect("whole blocks");
            let mut data = vec![0; bytes as usize];
            if is_vector {
                // The encoder refuses what a damaged file may hold.
                data = values
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
            } else {
                walsh::formats::ggml::encode(dtype, &values, &mut data).expect("encoded");
            }
            if let Some(token) = self.nan_token.filter(|_| name == "token_embd.weight") {
                let row = data.len() / VOCABULARY;
                data[token * row..][..2].copy_from_slice(&[0, 0x7e]);
            }
            let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
            writer
                .tensor(NewTensor {
                    name: &name,
                    dtype,
                    shape: &shape,
                    data: data.into(),
                })
                .expect("a new tensor");
        };
        add("token_embd.weight".into(), &[VOCABULARY, WIDTH]);
        let head_norms = ["qwen3", "gemma3"].contains(&self.architecture);
        let post_norms = self.architecture.starts_with("gemma");
        for layer in 0..self.layers {
            let mut add = |part: &str, shape: &[usize]| {
                add(format!("blk.{layer}.{part}.weight"), shape);
            };
            add("attn_norm", &[WIDTH]);
            add("attn_q", &[HEADS * self.head_dim, WIDTH]);
            add("attn_k", &[KV_HEADS * self.head_dim, WIDTH]);
            add("attn_v", &[KV_HEADS * self.head_dim, WIDTH]);
            add("attn_output", &[WIDTH, HEADS * self.head_dim]);
            add("ffn_norm", &[WIDTH]);
            add("ffn_gate", &[INNER, WIDTH]);
            add("ffn_up", &[INNER, WIDTH]);
            add("ffn_down", &[WIDTH, INNER]);
            if head_norms {
                add("attn_q_norm", &[self.head_dim]);
                add("attn_k_norm", &[self.head_dim]);
            }
            if post_norms {
                add("post_attention_norm", &[WIDTH]);
                add("post_ffw_norm", &[WIDTH]);
            }
        }
        add("output_norm.weight".into(), &[WIDTH]);
        for (name, shape) in &self.extra {
            add((*name).to_owned(), shape);
        }
    }
}

/// A LoRA adapter of the default tiny model as a GGUF file, which shows in what it says.
pub(crate) fn adapter(seed: u64) -> Vec<u8> {
    const RANK: usize = 2;
    let (mut random, mut writer) = (Random(seed), Writer::new());
    let mut set = |key: &str, value: NewValue| writer.set(key, value).expect("a new key");
    set("general.architecture", "llama".into());
    set("general.type", "adapter".into());
    set("adapter.type", "lora".into());
    set("adapter.lora.alpha", 4.0_f32.into());
    for layer in 0..LAYERS {
        for (part, rows, columns) in [
            ("attn_q", HEADS * HEAD_DIM, WIDTH),
            ("attn_output", WIDTH, HEADS * HEAD_DIM),
            ("ffn_down", WIDTH, INNER),
        ] {
            for (side, shape) in [("a", [RANK, columns]), ("b", [rows, RANK])] {
                let values = (0..shape[0] * shape[1]).flat_map(|_| random.next().to_le_bytes());
                let data: Vec<u8> = values.collect();
                writer
                    .tensor(NewTensor {
                        name: &format!("blk.{layer}.{part}.weight.lora_{side}"),
                        dtype: DType::F32,
                        shape: &shape.map(|size| size as u64),
                        data: data.into(),
                    })
                    .expect("a new tensor");
            }
        }
    }
    writer.to_bytes()
}

/// The 256 bytes as byte-level BPE writes them, one merge, and three control tokens.
fn tokens() -> Vec<String> {
    let mut next = 256;
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).expect("a character").to_string()
        })
        .collect();
    tokens.push("Ġt".to_owned());
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned));
    tokens
}

/// Which of them are control tokens.
fn types() -> Vec<i32> {
    let kind = |id| if id < 257 { 1 } else { 3 };
    (0..VOCABULARY).map(kind).collect()
}

/// Numbers between −1 and 1.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}
