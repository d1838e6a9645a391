//! What Windows says of memory.

use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};

/// The memory that nothing is in that would have to be written elsewhere first, no more than this process may still commit
/// or has addresses for.
pub(super) fn available_bytes() -> Option<u64> {
    let mut status = MEMORYSTATUSEX {
        dwLength: size_of::<MEMORYSTATUSEX>() as u32,
        ..MEMORYSTATUSEX::default()
    };
    // SAFETY: the function writes one struct of the size that stands in it.
    if unsafe { GlobalMemoryStatusEx(&raw mut status) } == 0 {
        return None;
    }
    let limits = [status.ullAvailPageFile, status.ullAvailVirtual];
    Some(limits.into_iter().fold(status.ullAvailPhys, u64::min))
}
