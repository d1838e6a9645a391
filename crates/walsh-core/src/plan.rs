use std::fmt;

/// What an op of a list became: a value that can be printed, compared and tested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The kernels that run for it, such as `matmul.q4_1.avx512.tiled`, in order and
    /// joined by ` + `. What it shares with an op before it runs for that op alone.
    pub kernel: String,
    /// How many independent pieces the most divided of them is cut into.
    pub pieces: u64,
    /// Bytes of workspace beyond the op's own tensors; ops may use the same one after
    /// the other.
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
