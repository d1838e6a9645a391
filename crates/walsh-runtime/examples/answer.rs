//! An answer, word by word as it comes.
//!
//! ```sh
//! cargo run --release -p walsh-runtime --example answer -- model.gguf 4bit "Why is the sky blue?"
//! ```

use std::error::Error;
use std::io::{Write, stdout};

use walsh_runtime::{Conversation, GenerateOptions, Model, SessionOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, kv, question] = &arguments[..] else {
        return Err("give a GGUF file, a SPEC of its KV cache such as 4bit, and a question".into());
    };
    let device = walsh::open("cpu")?;
    let model = Model::open(&device, path)?;
    let options = SessionOptions {
        kv: kv.parse()?,
        ..SessionOptions::default()
    };
    let mut conversation = Conversation::new(&model, options, None)?;
    let options = GenerateOptions {
        max_tokens: Some(200),
        sampling: model.recommended_sampling().or_usual(),
        ..GenerateOptions::default()
    };
    let mut reply = conversation.say(question, options)?;
    for piece in &mut reply {
        print!("{}", piece?);
        stdout().flush()?;
    }
    println!("\n\n{:?}", reply.figures());
    drop(reply);
    println!(
        "{} bytes of keys and values",
        conversation.session().kv_bytes()
    );
    Ok(())
}
