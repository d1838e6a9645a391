use std::fmt;

/// How a backend will carry out one op: a value that can be printed, compared
/// and tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The kernel variant, such as `matmul.q4_1.avx512.tiled`.
    pub kernel: String,
    /// How many independent pieces the op is cut into.
    pub pieces: u64,
    /// Bytes of scratch memory beyond the op's own tensors.
    pub workspace: u64,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ×{}", self.kernel, self.pieces)?;
        if self.workspace > 0 {
            write!(f, ", {} B workspace", self.workspace)?;
        }
        Ok(())
    }
}
