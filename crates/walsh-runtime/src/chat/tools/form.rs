//! The forms in which models are told of tools and call them.

use std::sync::OnceLock;

use super::{gemma, harmony, pythonic, reasoning};
use crate::tokenizer::Tokenizer;

/// The form in which a model calls tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Hermes and Qwen have it.
    Hermes,
    /// `<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`, as Qwen3-Coder has it.
    Coder,
    /// `{"name": …, "parameters": {…}}` and nothing else, as Llama 3 has it.
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]`, or with names behind the marker, as Mistral's models have it.
    Mistral,
    /// `<start_function_call>call:name{key:<escape>text<escape>}<end_function_call>`, as FunctionGemma has it, and
    /// `<|tool_call>call:name{key:<|"|>text<|"|>}<tool_call|>`, as Gemma 4 has it.
    Gemma(gemma::Marks),
    /// `<|tool_call_start|>[name(key="text")]<|tool_call_end|>`, as LFM2 has it.
    Pythonic,
    /// Messages to `functions.name`, as gpt-oss has it.
    Harmony,
}

impl Format {
    /// The markers that a call consists of.
    pub(super) fn markers(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::Coder => &["<tool_call>", "</tool_call>"],
            Self::Llama => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
            Self::Gemma(marks) => marks.all(),
            Self::Pythonic => &[pythonic::BEGIN, pythonic::END],
            Self::Harmony => &harmony::MARKERS,
        }
    }
}

/// How a model is told of tools, and calls them.
#[derive(Clone, Debug)]
pub(in super::super) struct Form {
    pub(super) format: Format,
    /// Whether the template is told nothing of tools, and a system message describes them.
    pub(super) described: bool,
    /// Whether the template knows a system message, once that was asked.
    pub(super) system: OnceLock<bool>,
    /// Whether the template writes the calls of messages.
    pub(super) writes_calls: bool,
    /// Whether names lie behind markers, not in JSON, and ids behind them.
    pub(super) named: bool,
    pub(super) ids: bool,
    /// The marks of reasoning that the template has.
    pub(super) reasoning: Vec<reasoning::Marks>,
    /// The control tokens among all markers, by their names.
    pub(super) controls: Vec<(&'static str, i32)>,
}

impl Form {
    /// The form by the text of a template, and whether that looks at `tools`.
    pub(in super::super) fn of(source: &str, knows_tools: bool) -> Self {
        let has = |text: &str| source.contains(text);
        let gemmas = [gemma::Marks::FUNCTION_GEMMA, gemma::Marks::GEMMA_4];
        let gemma = gemmas
            .into_iter()
            .find(|marks| has(marks.begin()) && has(marks.escape()));
        let format = if has("<|channel|>") && has("<|message|>") {
            Some(Format::Harmony)
        } else if let Some(marks) = gemma {
            Some(Format::Gemma(marks))
        } else if has(pythonic::BEGIN) {
            Some(Format::Pythonic)
        } else if has("[TOOL_CALLS]") {
            Some(Format::Mistral)
        } else if has("<tool_call>") && has("<function=") {
            Some(Format::Coder)
        } else if has("<tool_call>") && !has("<arg_key>") {
            Some(Format::Hermes)
        } else if has("ipython") && has("\"parameters\": ") {
            Some(Format::Llama)
        } else if has("List of tools: ") {
            // Templates of such models that do not write calls.
            Some(Format::Pythonic)
        } else {
            None
        };
        let harmony = format == Some(Format::Harmony);
        let reasoning = reasoning::MARKS.into_iter();
        Self {
            // Messages of harmony are read whether or not its template knows tools.
            format: format
                .filter(|_| knows_tools || harmony)
                .unwrap_or(Format::Hermes),
            described: !harmony && (!knows_tools || format.is_none()),
            system: OnceLock::new(),
            writes_calls: has("tool_calls"),
            named: has("[ARGS]"),
            ids: has("[CALL_ID]"),
            reasoning: reasoning.filter(|marks| has(marks.end)).collect(),
            controls: Vec::new(),
        }
    }

    /// Notes which markers are control tokens.
    pub(in super::super) fn learn(&mut self, tokenizer: &Tokenizer) {
        let marks = reasoning::MARKS
            .iter()
            .flat_map(|marks| [marks.begin, marks.end]);
        let markers = self.format.markers().iter().copied().chain(marks);
        let token = |marker| {
            let token = tokenizer.token(marker)?;
            let steers = tokenizer.is_control(token) || tokenizer.is_end(token);
            steers.then_some((marker, token))
        };
        self.controls = markers.filter_map(token).collect();
    }

    /// Whether tools are described in a system message.
    pub(in super::super) fn is_described(&self) -> bool {
        self.described
    }

    /// The control token that a marker is, if it is one.
    pub(super) fn control(&self, marker: &str) -> Option<i32> {
        let mut controls = self.controls.iter();
        controls
            .find(|(name, _)| *name == marker)
            .map(|(_, token)| *token)
    }
}
