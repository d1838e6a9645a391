//! temp
use crate::Result; use walsh::gguf::Gguf; use crate::tokenizer::Tokenizer;
/// t
pub struct Template;
impl Template { /// x
pub fn from_gguf(_:&Gguf<'_>, _:&Tokenizer)->Result<Template>{Ok(Template)} }
