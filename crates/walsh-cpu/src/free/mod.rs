//! How much memory this process can still have.

#[cfg(not(windows))]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(not(windows))]
use linux as system;
#[cfg(windows)]
use windows as system;

/// The bytes that the system can still give this process without swapping, no more than what limits this process leaves.
/// `None` where the system does not say.
///
/// Swap is left out: memory that a token reads from end to end is of no use there.
pub(crate) fn available_bytes() -> Option<u64> {
    system::available_bytes()
}

#[cfg(all(test, any(target_os = "linux", windows)))]
mod tests {
    #[test]
    fn this_process_can_have_more() {
        assert!(super::available_bytes().is_some_and(|bytes| bytes > 0));
    }
}
