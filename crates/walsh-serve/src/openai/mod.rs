//! OpenAI's interface.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod models;
pub(crate) mod responses;

use serde_json::{Value, json};
use walsh_runtime::tokenizer::Tokenizer;
use walsh_runtime::{Finish, Logprobs};

use crate::answer::{Ended, Usage};

/// Why an answer ended, in OpenAI's words.
fn finish_reason(ended: &Ended) -> &'static str {
    match ended.finish {
        Finish::MaxTokens | Finish::ContextFull | Finish::Cancelled => "length",
        Finish::End | Finish::Stop if ended.called => "tool_calls",
        Finish::End | Finish::Stop => "stop",
    }
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.generated,
        "total_tokens": usage.prompt + usage.generated,
        "prompt_tokens_details": { "cached_tokens": usage.cached },
        "completion_tokens_details": { "reasoning_tokens": usage.reasoning },
    })
}

/// How long an answer took, in llama-server's words.
pub(crate) fn timings(ended: &Ended) -> Value {
    let figures = &ended.figures;
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    json!({
        "cache_n": figures.reused_tokens,
        "prompt_n": figures.prompt_tokens - figures.reused_tokens,
        "prompt_ms": ms(figures.prompt_time),
        "prompt_per_second": figures.prompt_rate(),
        "predicted_n": figures.generated_tokens,
        "predicted_ms": ms(figures.generated_time),
        "predicted_per_second": figures.generated_rate(),
        "first_token_ms": ms(figures.first_token_time),
    })
}

/// A token and its log-probability; JSON has no −∞.
pub(crate) fn token_logprob(tokenizer: &Tokenizer, token: i32, logprob: f32) -> Value {
    let bytes = tokenizer.token_bytes(token);
    json!({
        "token": tokenizer.token_name(token),
        "logprob": finite(logprob),
        "bytes": bytes.as_ref(),
    })
}

/// What JSON can say of a log-probability.
fn finite(logprob: f32) -> f32 {
    logprob.max(-9999.0)
}

/// What chats tell of a token.
fn chat_logprobs(tokenizer: &Tokenizer, (token, known): &(i32, Logprobs)) -> Value {
    let mut entry = token_logprob(tokenizer, *token, known.token);
    let top = known.top.iter();
    let top = top.map(|(id, logprob)| token_logprob(tokenizer, *id, *logprob));
    entry["top_logprobs"] = top.collect();
    entry
}
