//! What instrumented code calls. It runs on a fiber, for the machine that the thread is running.

use std::cell::Cell;
use std::ffi::c_void;

use crate::machine::Machine;
use crate::shadow::Kind;

/// As `instrumentation.cpp` lays it out.
#[repr(C)]
pub(crate) struct Hooks {
    access: extern "C" fn(*const c_void, usize, u32),
    collective: extern "C" fn(u32, u32, u32, u32) -> u32,
    atomic_min: extern "C" fn(*mut u32, u32),
    slip: extern "C" fn(u32),
    misaligned: extern "C" fn(*const c_void, usize),
}

pub(crate) const HOOKS: Hooks = Hooks {
    access,
    collective,
    atomic_min,
    slip,
    misaligned,
};

thread_local! {
    static CURRENT: Cell<*const Machine> = const { Cell::new(std::ptr::null()) };
}

/// Runs `work` with the machine as the one that this thread's kernels ask.
pub(crate) fn with<T>(machine: &Machine, work: impl FnOnce() -> T) -> T {
    struct Restore(*const Machine);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(machine));
    work()
}

/// The machine that runs on this thread.
#[inline]
fn machine<'a>() -> &'a Machine {
    let machine = CURRENT.get();
    debug_assert!(!machine.is_null());
    // SAFETY: kernels run within `with` alone, which keeps the machine borrowed for that long; fibers stay on the
    // thread that resumes them.
    unsafe { &*machine }
}

extern "C" fn access(at: *const c_void, bytes: usize, kind: u32) {
    let touch = if kind & 1 == 0 {
        Kind::Read
    } else {
        Kind::Write
    };
    machine().access(at as usize, bytes, touch, kind < 2);
}

extern "C" fn collective(what: u32, bits: u32, operand: u32, line: u32) -> u32 {
    machine().collective(what, bits, operand, line)
}

extern "C" fn atomic_min(at: *mut u32, value: u32) {
    machine().access(at as usize, 4, Kind::Atomic, true);
    // SAFETY: the access was allowed, or this fiber would not go on; one fiber runs at a time.
    unsafe { at.write(at.read().min(value)) }
}

extern "C" fn slip(what: u32) {
    machine().slip(what);
}

extern "C" fn misaligned(at: *const c_void, alignment: usize) {
    machine().misaligned(at as usize, alignment);
}
