//! The threads of a group as fibers, which change places at collectives and barriers.

use std::ffi::c_void;

use corosensei::stack::{DefaultStack, Stack};
use corosensei::{Coroutine, CoroutineResult};
use walsh_core::Result;
use walsh_formats::random::SplitMix64;

use crate::compiler::{Position, failure};
use crate::machine::Machine;

/// A thread's stack: its arrays that are not in registers lie there.
const STACK_BYTES: usize = 256 << 10;

type Fiber = Coroutine<(), (), (), DefaultStack>;

/// Stacks that no fiber uses.
#[derive(Default)]
pub(crate) struct Stacks(Vec<DefaultStack>);

/// What a kernel's entry point is given.
#[derive(Clone, Copy)]
pub(crate) struct Given {
    pub(crate) args: *const c_void,
    pub(crate) buffers: *const *mut c_void,
    pub(crate) shared: *mut c_void,
    pub(crate) threads: u32,
}

impl Stacks {
    /// Runs a group to its end, or until the machine has a fault.
    ///
    /// # Errors
    /// When there is no memory for a stack.
    pub(crate) fn run(
        &mut self,
        machine: &Machine,
        given: Given,
        group: [u32; 3],
        random: &mut SplitMix64,
    ) -> Result<()> {
        machine.begin(group);
        let mut fibers = Vec::with_capacity(given.threads as usize);
        for thread in 0..given.threads {
            let stack = match self.0.pop() {
                Some(stack) => Ok(stack),
                None => DefaultStack::new(STACK_BYTES),
            };
            match stack {
                Ok(stack) => fibers.push(Some(fiber(machine, given, group, (thread, stack)))),
                Err(error) => {
                    self.take_back(fibers);
                    return Err(failure(format!("no stack for a thread: {error}")));
                }
            }
        }
        loop {
            let next = {
                let mut runnable = machine.runnable.borrow_mut();
                match runnable.len() {
                    0 => break,
                    len => runnable.swap_remove(random.below(len)),
                }
            };
            let Some(fiber) = &mut fibers[next as usize] else {
                continue;
            };
            machine.enter(next);
            if let CoroutineResult::Return(()) = fiber.resume(()) {
                machine.returned(next);
            }
            if machine.failed() {
                break;
            }
        }
        let waiting = |fiber: &Option<Fiber>| fiber.as_ref().is_some_and(|f| !f.done());
        if !machine.failed() && fibers.iter().any(waiting) {
            machine.stuck();
        }
        self.take_back(fibers);
        Ok(())
    }

    fn take_back(&mut self, fibers: Vec<Option<Fiber>>) {
        for mut fiber in fibers.into_iter().flatten() {
            // SAFETY: what a suspended fiber has on its stack is a kernel's plain values and calls of the hooks that
            // hold nothing to drop while they are suspended.
            unsafe { fiber.force_reset() };
            self.0.push(fiber.into_stack());
        }
    }
}

fn fiber(
    machine: &Machine,
    given: Given,
    [x, y, z]: [u32; 3],
    (thread, stack): (u32, DefaultStack),
) -> Fiber {
    let range = stack.limit().get()..stack.base().get();
    let machine: *const Machine = machine;
    Coroutine::with_stack(stack, move |yielder, ()| {
        // SAFETY: fibers are resumed, and taken back, while `run` borrows the machine.
        let machine = unsafe { &*machine };
        machine.started(thread, yielder, range.clone());
        let position = Position {
            x,
            y,
            z,
            index: thread,
            lane: thread % 32,
            simd: thread / 32,
        };
        // SAFETY: the entry point of a module that the machine keeps loaded, given what its table entry says; each
        // load and store asks the machine first.
        unsafe {
            (machine.module.entry)(given.args, given.buffers, given.shared, position);
        }
    })
}
