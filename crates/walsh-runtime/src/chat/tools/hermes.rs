//! `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

use super::calls::{Calls, Took};
use super::family::{Family, Lookout, Out};

const BEGIN: &str = "<tool_call>";
const END: &str = "</tool_call>";

#[derive(Debug, Default)]
pub(super) struct Hermes {
    text: Lookout,
    calls: Option<Calls>,
}

impl Family for Hermes {
    fn push(&mut self, c: char, out: &mut Out) {
        if let Some(calls) = &mut self.calls {
            match calls.push(c, out) {
                Took::More => return,
                Took::Last => {
                    self.calls = None;
                    return;
                }
                Took::Not => self.calls = None,
            }
        }
        if self.text.push(c, &[BEGIN], &mut |c| out.char(c)).is_some() {
            self.calls = Some(Calls::new(BEGIN, Some(END), false));
        }
    }

    fn finish(&mut self, out: &mut Out) {
        out.text(&self.text.finish());
        if let Some(mut calls) = self.calls.take() {
            calls.finish(out);
        }
    }
}
