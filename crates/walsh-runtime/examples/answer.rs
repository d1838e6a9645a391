//! An answer, word by word as it comes.
//!
//! ```sh
//! cargo run --release --example answer -- smollm2-135m 4bit "Why is the sky blue?"
//! ```

use std::error::Error;
use std::io::{Write, stdout};

use walsh_runtime::store::{Store, StoreOptions};
use walsh_runtime::{Conversation, GenerateOptions, Model, SessionOptions, Watch};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, kv, question] = &arguments[..] else {
        return Err("give a model, a SPEC of its KV cache such as 4bit, and a question".into());
    };
    // A path, a name of `walsh list`, or hf:OWNER/REPO: what is not here is fetched.
    let store = Store::open(StoreOptions::default())?;
    let path = store.resolve(model, &Watch::default(), &mut |_| ())?;

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
