//! temp
use crate::DType;
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("x")]
pub struct KvError;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvSpec {
    pub key: KvCodec,
    pub value: KvCodec,
}
impl std::fmt::Display for KvSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("x")
    }
}
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvCodec {
    Dense(DType),
}
#[derive(Debug, Clone)]
pub struct RowCodec;
impl RowCodec {
    pub fn new(_: KvCodec, _: usize) -> Result<RowCodec, KvError> {
        Ok(RowCodec)
    }
    pub fn code_bytes(&self) -> usize {
        1
    }
    pub fn groups(&self) -> usize {
        1
    }
    pub fn scale_dtype(&self) -> Option<DType> {
        None
    }
}
