//! Chat templates: from a conversation to the text that the model was trained to see.
//!
//! A template is a Jinja program in the model file's metadata. It is run as Hugging Face's libraries run
//! it: blocks trimmed, Python's string and list methods, `raise_exception`, `strftime_now` and `tojson`.

mod functions;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};
use walsh::formats::gguf::Gguf;

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks: `system`, `user` or `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// Instructions for the whole conversation.
    pub fn system(content: impl Into<String>) -> Message {
        Message {
            role: "system".to_string(),
            content: content.into(),
        }
    }

    /// What the user says.
    pub fn user(content: impl Into<String>) -> Message {
        Message {
            role: "user".to_string(),
            content: content.into(),
        }
    }

    /// What the model says.
    pub fn assistant(content: impl Into<String>) -> Message {
        Message {
            role: "assistant".to_string(),
            content: content.into(),
        }
    }
}

/// A model's chat template.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
    bos: String,
    eos: String,
    /// Whether encoding a prompt puts BOS in front, so that the text must not.
    strip_bos: bool,
}

/// How many steps a template may take: far more than any conversation needs, and an end for one that
/// loops.
const FUEL: u64 = 5_000_000;

impl Template {
    /// The template in a model file's metadata.
    ///
    /// # Errors
    /// When there is none, as in base models, or when it is not valid Jinja.
    pub fn from_gguf(gguf: &Gguf<'_>, tokenizer: &Tokenizer) -> Result<Template> {
        let source = gguf.metadata().opt_str("tokenizer.chat_template")?.ok_or_else(|| {
            Error::template(
                "this model has none, it completes text: use generate, or a model trained to chat",
            )
        })?;
        Template::from_source(source, tokenizer)
    }

    /// A template of one's own, for a model with this tokenizer.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn from_source(source: &str, tokenizer: &Tokenizer) -> Result<Template> {
        let name = |token: Option<i32>| -> String {
            let bytes = token
                .map(|token| tokenizer.token_bytes(token))
                .unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Template::new(
            source,
            name(tokenizer.bos()),
            name(tokenizer.eos()),
            tokenizer.add_bos(),
        )
    }

    fn new(source: &str, bos: String, eos: String, strip_bos: bool) -> Result<Template> {
        environment()?
            .template_from_str(source)
            .map_err(|error| readable(&error))?;
        Ok(Template {
            source: source.to_string(),
            bos,
            eos,
            strip_bos,
        })
    }

    /// The text of a conversation, to be encoded as a prompt with its special tokens parsed. With
    /// `add_generation_prompt` it ends where the assistant's answer begins.
    ///
    /// The text has no BOS in front where encoding a prompt adds one.
    ///
    /// # Errors
    /// When the template refuses the conversation, such as two user messages in a row.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                let Message { role, content } = message;
                context! { role => role.as_str(), content => content.as_str() }
            })
            .collect();
        let context = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => Value::from(()),
            documents => Value::from(()),
        };
        let text = environment()?
            .render_str(&self.source, context)
            .map_err(|error| readable(&error))?;
        match text.strip_prefix(&self.bos) {
            Some(rest) if self.strip_bos => Ok(rest.to_string()),
            _ => Ok(text),
        }
    }
}

fn environment<'source>() -> Result<Environment<'source>> {
    let mut syntax = SyntaxConfig::builder();
    // A block takes the line end after it and the spaces before it along.
    syntax.trim_blocks(true).lstrip_blocks(true);
    let mut environment = Environment::new();
    environment.set_syntax(syntax.build().map_err(|error| readable(&error))?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    functions::add(&mut environment);
    Ok(environment)
}

/// The error in one line.
fn readable(error: &minijinja::Error) -> Error {
    let words: Vec<String> = error
        .to_string()
        .split_whitespace()
        .map(String::from)
        .collect();
    Error::template(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> Template {
        Template::new(source, "<s>".to_string(), "</s>".to_string(), false).unwrap()
    }

    fn talk() -> Vec<Message> {
        vec![
            Message::user(" Hi <b>"),
            Message::assistant("Hello"),
            Message::user("Bye\n"),
        ]
    }

    #[test]
    fn a_chatml_template_renders() {
        let template = template(
            "{%- for message in messages %}\n    {%- if loop.first and message['role'] != 'system' %}\n        {{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}\n    {%- endif %}\n    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n{%- endif %}\n",
        );
        assert_eq!(
            template.render(&talk()[..1], true).unwrap(),
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Hi <b><|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(
            template.render(&[Message::system("x")], false).unwrap(),
            "<|im_start|>system\nx<|im_end|>\n"
        );
    }

    #[test]
    fn blocks_are_trimmed_and_python_methods_work() {
        let template = template(
            "{% for m in messages %}\n  {% set text = m['content'].strip() %}\n  {% if text.startswith('H') and loop.index0 % 2 == 0 %}\n[{{ text.upper() }}]\n  {% else %}\n{{ text | trim }}{{ eos_token }}\n  {% endif %}\n{% endfor %}\n",
        );
        assert_eq!(
            template.render(&talk(), false).unwrap(),
            "[HI <B>]\nHello</s>\nBye</s>\n"
        );
    }

    #[test]
    fn the_bos_that_encoding_adds_is_not_doubled() {
        let source = "{{ bos_token }}{{ messages[0].content }}";
        let keep = template(source);
        assert_eq!(keep.render(&talk(), false).unwrap(), "<s> Hi <b>");
        let strip = Template {
            strip_bos: true,
            ..keep
        };
        assert_eq!(strip.render(&talk(), false).unwrap(), " Hi <b>");
    }

    #[test]
    fn templates_can_refuse_and_absent_things_are_none() {
        let refuse = template("{{ raise_exception('Roles must\\nalternate') }}");
        let error = refuse.render(&talk(), true).unwrap_err().to_string();
        assert!(error.contains("Roles must alternate"), "{error}");
        let absent = template("{{ tools is none }} {{ enable_thinking is defined }}");
        assert_eq!(
            absent.render(&[], true).unwrap().to_lowercase(),
            "true false"
        );
    }

    #[test]
    fn bad_templates_are_errors_and_endless_ones_end() {
        for source in ["{% if %}", "{{ x", "{% nonsense %}"] {
            let error = Template::new(source, String::new(), String::new(), false).unwrap_err();
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        let many = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
        assert!(template(many).render(&[], false).is_err());
    }
}
