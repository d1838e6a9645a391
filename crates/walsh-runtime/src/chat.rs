//! temp
use crate::Result;
use crate::tokenizer::Tokenizer;
use walsh::gguf::Gguf;
/// t
pub struct Template;
impl Template {
    /// x
    pub fn from_gguf(_: &Gguf<'_>, _: &Tokenizer) -> Result<Template> {
        Ok(Template)
    }
}
