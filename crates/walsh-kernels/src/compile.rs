//! What backends share when they compile texts.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The most threads that compile at once.
const MOST_THREADS: usize = 16;

/// The stack of a thread that compiles: NVRTC takes more than a thread of Rust's has.
const STACK: usize = 64 << 20;

/// Calls `work` with each number below `count`, on threads on which a compiler may be called. What no thread could be had
/// for is left out.
pub fn in_parallel(count: usize, work: &(dyn Fn(usize) + Sync)) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let take_turns = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                return;
            }
            work(at);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(MOST_THREADS).min(count) {
            let thread = std::thread::Builder::new().stack_size(STACK);
            if thread.spawn_scoped(scope, take_turns).is_err() {
                return;
            }
        }
    });
}

/// What a compiler's log says of a kernel, in one line.
#[must_use]
pub fn complaint(compiler: &str, symbol: &str, log: &str) -> String {
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.take(3).collect();
    format!(
        "{compiler} does not compile {symbol}: {}",
        lines.join(" / ")
    )
}
