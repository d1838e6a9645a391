//! A decoded token, kernel by kernel.

use walsh::{CommandList, KernelTime};

use super::Session;
use super::place::StepKey;
use crate::Result;

impl Session {
    /// Appends one token as [`decode_likeliest`](Self::decode_likeliest) does, and hands
    /// out its list and what each kernel took.
    pub(crate) fn profile(
        &mut self,
        token: i32,
        each: &mut dyn FnMut(&CommandList, &[KernelTime]),
    ) -> Result<()> {
        self.read_held()?;
        self.hold(token);
        let wanted = self.how_to_find_likeliest();
        let read = self.read_one_with(StepKey::Token(wanted), |device, step| {
            each(step.list(), &device.profile(step)?);
            Ok(())
        });
        self.forget_logits();
        self.or_drop(read)
    }
}
