//! Many requests at once: they share each step of the model, and the pages of what they have in common. One has to answer
//! in a form.
//!
//! ```sh
//! cargo run --release -p walsh-runtime --example many -- model.gguf
//! ```

use std::error::Error;

use walsh_runtime::tokenizer::Special;
use walsh_runtime::{Constraint, Engine, EngineOptions, Model, Request, Sampling};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("give a GGUF file")?;
    let device = walsh::open("cpu")?;
    let options = EngineOptions {
        sequences: 4,
        context: 256,
        kv: "tq4".parse()?,
        ..EngineOptions::default()
    };
    let engine = Engine::new(Model::open(&device, path)?, options)?;

    let number = Constraint::Regex("[0-9]".into());
    let asked = [
        ("The capital of France is", None),
        ("The capital of Italy is", None),
        ("The number of days in a week is ", Some(number)),
        ("Once upon a time", None),
    ];
    let mut streams = Vec::new();
    for (text, constraint) in asked {
        let prompt = engine
            .model()
            .tokenizer()
            .encode_prompt(text, Special::Text)?;
        let request = Request {
            max_tokens: Some(16),
            sampling: Sampling::greedy(),
            constraint,
            ..Request::new(prompt)
        };
        streams.push((text, engine.submit(request)?));
    }
    // Streams can be read in any order, from any thread; one that is dropped ends its request.
    for (text, mut stream) in streams {
        let answer = stream.text()?;
        println!("{text}{answer}  [{:?}]", stream.finish());
    }
    println!("{:?}", engine.end());
    Ok(())
}
