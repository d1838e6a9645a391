//! Prints a text as it is generated, and what it took.

mod page;

use serde_json::json;
use walsh_runtime::{Error, Figures, Finish, Sampling, Session};

use crate::failure::Outcome;
use crate::output::{self, Notes};
pub(crate) use page::Page;

/// How a text ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) figures: Figures,
    pub(crate) finish: Option<Finish>,
}

/// What the figures are printed with.
#[derive(Debug)]
pub(crate) struct Run {
    seed: u64,
    greedy: bool,
    kv: String,
    kv_bytes: u64,
}

impl Run {
    pub(crate) fn new(session: &Session, sampling: &Sampling) -> Self {
        Self {
            seed: session.seed(),
            greedy: sampling.temperature == 0.0,
            kv: session.options().kv.to_string(),
            kv_bytes: session.kv_bytes(),
        }
    }
}

/// Prints each piece at once, and ends the last line.
pub(crate) fn print_pieces(
    pieces: impl Iterator<Item = Result<String, Error>>,
    mut page: Page,
) -> Outcome {
    for piece in pieces {
        match piece {
            Ok(piece) => page.print(&piece)?,
            Err(error) => {
                page.end()?;
                return Err(error.into());
            }
        }
    }
    page.end()
}

impl Ended {
    fn reason(&self) -> &'static str {
        self.finish.unwrap_or(Finish::Cancelled).name()
    }

    /// Prints the figures on standard error, for people or as one line of JSON
    /// with the remarks that were kept for it.
    pub(crate) fn report(&self, run: &Run, notes: &Notes) {
        let figures = &self.figures;
        if !notes.are_printed() {
            let report = json!({
                "prompt_tokens": figures.prompt_tokens,
                "prompt_seconds": figures.prompt_time.as_secs_f64(),
                "prompt_tokens_per_second": figures.prompt_rate(),
                "generated_tokens": figures.generated_tokens,
                "generated_seconds": figures.generated_time.as_secs_f64(),
                "generated_tokens_per_second": figures.generated_rate(),
                "first_token_seconds": figures.first_token_time.as_secs_f64(),
                "finish": self.reason(),
                "seed": (!run.greedy).then_some(run.seed),
                "kv": run.kv,
                "kv_bytes": run.kv_bytes,
                "notes": notes.kept(),
            });
            output::note(format_args!("{report}"));
            return;
        }
        output::note(format_args!("\n{}", self.summary()));
        if !run.greedy {
            output::note(format_args!("seed {}", run.seed));
        }
    }

    /// The figures in one line.
    pub(crate) fn summary(&self) -> String {
        let figures = &self.figures;
        let why = match self.finish {
            Some(Finish::Stop) => "; stopped at a --stop text",
            Some(Finish::MaxTokens) => "; stopped at --max-tokens",
            Some(Finish::ContextFull) => {
                "; stopped: the context is full, a larger --context holds more"
            }
            Some(Finish::Cancelled) | None => "; interrupted",
            Some(Finish::End) => "",
        };
        format!(
            "prompt {} tokens, {:.0} per second; text {} tokens, {:.1} per second; first token after {:.2} s{why}",
            figures.prompt_tokens,
            figures.prompt_rate(),
            figures.generated_tokens,
            figures.generated_rate(),
            figures.first_token_time.as_secs_f64(),
        )
    }
}
