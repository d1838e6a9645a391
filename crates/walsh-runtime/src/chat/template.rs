//! A model's template, and the text that it makes.

use walsh::formats::gguf::Gguf;

use super::context::Context;
use super::jinja::{self, Json};
use super::message::Message;
use super::tools::Form;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// A model's chat template.
#[derive(Clone, Debug)]
pub struct Template {
    pub(super) source: String,
    /// The special tokens that the template may name, such as `bos_token`.
    pub(super) tokens: Vec<(String, String)>,
    /// The text of BOS where encoding a prompt puts BOS in front, so that the text must not.
    strip: Option<String>,
    /// How the model is told of tools, and calls them.
    pub(super) form: Form,
}

impl Template {
    /// Where a model file's metadata has it.
    pub(crate) const KEY: &str = "tokenizer.chat_template";

    /// The template in a model file's metadata.
    ///
    /// # Errors
    /// When there is none, as in base models, or when it is not valid Jinja.
    pub fn from_gguf(gguf: &Gguf<'_>, tokenizer: &Tokenizer) -> Result<Template> {
        let source = gguf.metadata().opt_str(Self::KEY)?.ok_or_else(|| {
            Error::template(
                "this model has none, it completes text: use generate, or a model trained to chat",
            )
        })?;
        let mut template = Template::from_source(source, tokenizer)?;
        // Those that the tokenizer itself has no use for.
        for (name, key) in [
            ("pad_token", "tokenizer.ggml.padding_token_id"),
            // The format's own spelling.
            ("sep_token", "tokenizer.ggml.seperator_token_id"),
            ("cls_token", "tokenizer.ggml.cls_token_id"),
            ("mask_token", "tokenizer.ggml.mask_token_id"),
        ] {
            let id = gguf.metadata().opt_u32(key)?;
            template.name_token(name, id.and_then(|id| i32::try_from(id).ok()), tokenizer);
        }
        Ok(template)
    }

    /// A template of one's own, for a model with this tokenizer. Line ends of every kind are line feeds.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn from_source(source: &str, tokenizer: &Tokenizer) -> Result<Template> {
        let mut template = Template::new(source, Vec::new(), None)?;
        template.name_token("bos_token", tokenizer.bos(), tokenizer);
        template.name_token("eos_token", tokenizer.eos(), tokenizer);
        template.name_token("unk_token", tokenizer.unknown(), tokenizer);
        let bos = template.tokens.iter().find(|(name, _)| name == "bos_token");
        template.strip = bos
            .filter(|_| tokenizer.add_bos())
            .map(|(_, text)| text.clone());
        template.form.learn(tokenizer);
        Ok(template)
    }

    /// Its text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Lets the template name a special token. One that a model does not have stays undefined.
    fn name_token(&mut self, name: &str, token: Option<i32>, tokenizer: &Tokenizer) {
        if let Some(token) = token {
            self.tokens
                .push((name.to_string(), tokenizer.token_name(token)));
        }
    }

    pub(super) fn new(
        source: &str,
        tokens: Vec<(String, String)>,
        strip: Option<String>,
    ) -> Result<Template> {
        let knows_tools = jinja::mentions(source, "tools").map_err(Error::template)?;
        Ok(Template {
            source: source.to_string(),
            tokens,
            strip,
            form: Form::of(source, knows_tools),
        })
    }

    /// The text of a conversation, to be encoded as a prompt with its special tokens parsed. With
    /// `add_generation_prompt` it ends where the assistant's answer begins.
    ///
    /// The text has no BOS in front where encoding a prompt adds one.
    ///
    /// # Errors
    /// When the template refuses the conversation, such as two user messages in a row, asks for what
    /// there is not, or takes more time or memory than any conversation needs.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        Context::of(messages, add_generation_prompt).render(self)
    }

    /// The text of all that a template may be given: `messages` with whatever their fields are, `tools`,
    /// `documents` and more. The special tokens are added to it.
    pub(super) fn render_context(&self, mut context: Vec<(String, Json)>) -> Result<String> {
        for (name, token) in &self.tokens {
            context.push((name.clone(), token.as_str().into()));
        }
        let text = jinja::render(&self.source, &context).map_err(Error::template)?;
        match self.strip.as_deref().and_then(|bos| text.strip_prefix(bos)) {
            Some(rest) => Ok(rest.to_string()),
            None => Ok(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> Vec<(String, String)> {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let token = |(name, text): (&str, &str)| (name.to_string(), text.to_string());
        tokens.into_iter().map(token).collect()
    }

    fn template(source: &str) -> Template {
        Template::new(source, tokens(), None).unwrap()
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
            strip: Some("<s>".to_string()),
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
            let error = Template::new(source, Vec::new(), None).unwrap_err();
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        let many = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}";
        assert!(template(many).render(&[], false).is_err());
    }
}
