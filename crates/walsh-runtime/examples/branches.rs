//! One beginning, several ends: a session is forked where they part, cut back, saved and taken up.
//!
//! ```sh
//! cargo run --release -p walsh-runtime --example branches -- model.gguf "Once upon a time"
//! ```

use std::error::Error;

use walsh_runtime::tokenizer::Special;
use walsh_runtime::{GenerateOptions, Model, RestoreOptions, Sampling, Session, SessionOptions};

fn twenty(session: &mut Session, text: &str) -> walsh_runtime::Result<String> {
    let options = GenerateOptions {
        max_tokens: Some(20),
        sampling: Sampling::greedy(),
        ..GenerateOptions::default()
    };
    session.generate(text, options)?.collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, beginning] = &arguments[..] else {
        return Err("give a GGUF file and a text".into());
    };
    let device = walsh::open("cpu")?;
    let model = Model::open(&device, path)?;
    let options = SessionOptions {
        kv: "tq4".parse()?,
        ..SessionOptions::default()
    };
    let mut session = model.session(options)?;
    let tokens = model.tokenizer().encode_prompt(beginning, Special::Text)?;
    session.prefill(&tokens)?;

    // A fork has the same codes, and goes its own way from here.
    let position = session.position();
    let mut other = session.fork()?;
    println!("a: {}", twenty(&mut session, " a king")?);
    println!("b: {}", twenty(&mut other, " a dog")?);

    // Cut back to where they parted, which is where a call ended, the first says what it has said, to the bit.
    session.truncate(position)?;
    println!("a again: {}", twenty(&mut session, " a king")?);

    // A file has the codes too: nothing is read anew, and what follows is the same to the bit.
    let file = std::env::temp_dir().join(format!("branches-{}.walsh", std::process::id()));
    session.save(&file)?;
    let taken_up = model.restore(&file, RestoreOptions::default());
    std::fs::remove_file(&file)?;
    let mut taken_up = taken_up?;
    assert_eq!(twenty(&mut taken_up, "")?, twenty(&mut session, "")?);
    println!("saved and taken up: {} tokens", taken_up.position());
    Ok(())
}
