//! Where calibrations are kept, and who is told of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::Error;

/// What happens while a model's calibration is looked for.
#[derive(Debug)]
pub enum CalibrationNotice<'a> {
    /// It is measured: this many layers of so many are done.
    Measuring {
        /// Layers done.
        done: usize,
        /// Layers in all.
        layers: usize,
    },
    /// It was measured, but cannot be kept: the next time it is measured again.
    NotKept(&'a Error),
}

/// Who is told what happens.
pub type CalibrationListener = dyn Fn(CalibrationNotice<'_>) + Send + Sync;

/// Where calibrations are kept, and who is told of them.
#[derive(Clone, Default)]
pub struct CalibrationOptions {
    /// The folder; `None` to keep them in memory alone, while the model is open.
    pub folder: Option<PathBuf>,
    /// Is told what happens.
    pub notice: Option<Arc<CalibrationListener>>,
    /// Setting it ends a measurement with [`Error::Cancelled`] before the next layer.
    pub cancel: Arc<AtomicBool>,
}

impl std::fmt::Debug for CalibrationOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CalibrationOptions")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
