//! What a question is.

use crate::Result;
use crate::fidelity::answer::Expected;

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::fidelity) struct Case {
    /// What the user of a chat says.
    pub(in crate::fidelity) question: String,
    /// What stands behind it where a model goes on with plain text: the beginning of the answer.
    pub(in crate::fidelity) cue: &'static str,
    /// What a right answer says.
    pub(in crate::fidelity) expected: Expected,
    /// The most tokens of an answer.
    pub(in crate::fidelity) most_tokens: usize,
}

/// How many tokens a question has, the way it is put to the model.
pub(in crate::fidelity) type Measure<'a> = dyn Fn(&Case) -> Result<usize> + 'a;
