//! Text from a session, token by token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::sampling::{Sampler, Sampling};
use crate::tokenizer::{Decoder, Special};
use crate::{Error, Result, Session};

/// How a text is generated.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// The most tokens to generate; `None` until the model ends its text or the
    /// context is full.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Whether the names of special tokens in the prompt stand for them, as chat
    /// templates need, or are plain text.
    pub special: Special,
    /// Setting it ends the generation before the next token.
    pub cancel: Arc<AtomicBool>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: None,
            sampling: Sampling::default(),
            special: Special::Text,
            cancel: Arc::default(),
        }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its text.
    End,
    /// The number of tokens that was asked for is reached.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// It was cancelled.
    Cancelled,
}

/// What a generation took.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Tokens that were read before the first was generated.
    pub prompt_tokens: usize,
    /// How long reading them took.
    pub prompt_time: Duration,
    /// Tokens that were generated, the one that ended the text included.
    pub generated_tokens: usize,
    /// From the end of the prompt to the latest token.
    pub generated_time: Duration,
    /// From the call to the first token.
    pub first_token_time: Duration,
}

impl Figures {
    /// Prompt tokens per second.
    #[must_use]
    pub fn prompt_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prompt_time.as_secs_f64().max(1e-9)
    }

    /// Generated tokens per second, the first not counted: its logits belong to
    /// the prompt.
    #[must_use]
    pub fn generated_rate(&self) -> f64 {
        let tokens = self.generated_tokens.saturating_sub(1);
        tokens as f64 / self.generated_time.as_secs_f64().max(1e-9)
    }
}

/// A text being generated: an iterator over its pieces, each of whole
/// characters and possibly empty.
///
/// The session holds the text when the generation is dropped, so that it can be
/// continued; a token that ends the text is not part of it.
pub struct Generation<'s> {
    session: &'s mut Session,
    sampler: Sampler,
    options: GenerateOptions,
    decoder: Decoder,
    history: Vec<i32>,
    tokens: Vec<i32>,
    finish: Option<Finish>,
    started: Instant,
    prompt_read: Instant,
    figures: Figures,
}

impl Session {
    /// Reads a prompt and generates what follows it. The beginning-of-text token
    /// is put first when the session is empty and the model asks for it.
    ///
    /// # Errors
    /// When the prompt is empty, does not fit into the context, or an option is
    /// out of range.
    pub fn generate(&mut self, prompt: &str, options: GenerateOptions) -> Result<Generation<'_>> {
        let tokenizer = self.model().tokenizer();
        let tokens = if self.position() == 0 {
            tokenizer.encode_prompt(prompt, options.special)?
        } else {
            tokenizer.encode(prompt, options.special)?
        };
        self.generate_from(&tokens, options)
    }

    /// Reads tokens and generates what follows them.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn generate_from(
        &mut self,
        tokens: &[i32],
        options: GenerateOptions,
    ) -> Result<Generation<'_>> {
        let started = Instant::now();
        let sampler = Sampler::new(&options.sampling)?;
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        self.prefill(tokens)?;
        let prompt_read = Instant::now();
        Ok(Generation {
            session: self,
            sampler,
            options,
            decoder: Decoder::new(),
            history: tokens.to_vec(),
            tokens: Vec::new(),
            finish: None,
            started,
            prompt_read,
            figures: Figures {
                prompt_tokens: tokens.len(),
                prompt_time: prompt_read - started,
                ..Figures::default()
            },
        })
    }
}

impl Generation<'_> {
    /// Why the text ended; `None` while it goes on.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// What it took so far.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The tokens so far, the one that ended the text included.
    #[must_use]
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// Whether to stop before another token.
    fn due(&self) -> Option<Finish> {
        if self.options.cancel.load(Ordering::Relaxed) {
            return Some(Finish::Cancelled);
        }
        if self
            .options
            .max_tokens
            .is_some_and(|most| self.tokens.len() >= most)
        {
            return Some(Finish::MaxTokens);
        }
        let full = self.session.held().is_some() && self.session.room() == 0;
        full.then_some(Finish::ContextFull)
    }

    /// The next token. Where the likeliest is always taken, or one of the few likeliest,
    /// the device looks for them: the logits need not come to the host, or be computed.
    fn choose(&mut self) -> Result<i32> {
        let sampling = &self.options.sampling;
        if sampling.takes_likeliest()
            && let Some(token) = self.session.read_held_likeliest()?
        {
            return Ok(token);
        }
        if let Some(count) = sampling.considers()
            && let Some(few) = self.session.read_held_few(count)?
        {
            return self.sampler.sample_few(&few);
        }
        self.session.read_held()?;
        self.sampler.sample(self.session.logits(), &self.history)
    }

    /// Chooses the next token, and returns its text.
    fn step(&mut self) -> Result<String> {
        let token = self.choose()?;
        let now = Instant::now();
        if self.tokens.is_empty() {
            self.figures.first_token_time = now - self.started;
        }
        self.tokens.push(token);
        self.history.push(token);
        self.figures.generated_tokens = self.tokens.len();
        self.figures.generated_time = now - self.prompt_read;
        let model = self.session.model().clone();
        if model.tokenizer().is_end(token) {
            self.finish = Some(Finish::End);
            return Ok(self.decoder.finish());
        }
        self.session.hold(token);
        Ok(self.decoder.push(model.tokenizer(), token))
    }
}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        // A device that fails here says so again on the next call.
        let _ = self.session.fetch_waiting_logits();
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() {
            return None;
        }
        if let Some(finish) = self.due() {
            self.finish = Some(finish);
            let rest = self.decoder.finish();
            return (!rest.is_empty()).then_some(Ok(rest));
        }
        let piece = self.step();
        if piece.is_err() {
            self.finish = Some(Finish::Cancelled);
        }
        Some(piece)
    }
}
