//! What KV caches change about a model's predictions of a text: bytes per token against KL divergence.
//!
//! ```sh
//! cargo run --release -p walsh-runtime --example caches -- model.gguf book.txt f16 tq4 tq3 q8_0 q4_0
//! ```

use std::error::Error;
use std::sync::Arc;

use walsh_runtime::{Model, PerplexityOptions, TextReader, perplexity};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, text, specs @ ..] = &arguments[..] else {
        return Err("give a GGUF file, a text, and SPECs of KV caches, what the others are compared to first".into());
    };
    // 8-bit activations alone would make two equal caches differ.
    let device = walsh::open("cpu:activations=f32")?;
    let model = Model::open(&device, path)?;
    let options = PerplexityOptions {
        context: 512,
        chunks: Some(2),
        kv: specs
            .iter()
            .map(|spec| spec.parse())
            .collect::<Result<_, _>>()?,
        cancel: Arc::default(),
    };
    let mut told = |progress: &walsh_runtime::PerplexityProgress| {
        eprintln!("chunk {} of {}", progress.chunk, progress.chunks);
    };
    let report = perplexity(&model, &mut TextReader::open(text)?, &options, &mut told)?;
    println!(
        "{:<16} {:>12} {:>11} {:>13} {:>9}",
        "SPEC", "bytes/token", "perplexity", "KL divergence", "same top"
    );
    for row in &report.results {
        println!(
            "{:<16} {:>12} {:>11.3} {:>13.5} {:>8.2}%",
            row.kv,
            row.kv_bytes_per_token,
            row.ppl,
            row.kld_mean,
            100.0 * row.same_top
        );
    }
    report
        .warnings
        .iter()
        .for_each(|warning| eprintln!("{warning}"));
    Ok(())
}
