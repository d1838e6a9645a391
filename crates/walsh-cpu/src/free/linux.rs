//! What Linux says of memory, in files. Other systems have no such files.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// What the system calls available, which counts pages of files that can go, no more than this process's control groups and
/// the limit of its address space leave.
pub(super) fn available_bytes() -> Option<u64> {
    let info = read_to_string("/proc/meminfo").ok()?;
    let whole = field(&info, "MemAvailable:")?.checked_mul(KB)?;
    let limits = [group_bytes(), address_bytes()];
    Some(limits.into_iter().flatten().fold(whole, u64::min))
}

/// What the files of `/proc` count in.
const KB: u64 = 1024;

/// What this process's control groups leave it.
fn group_bytes() -> Option<u64> {
    let groups = read_to_string("/proc/self/cgroup").ok()?;
    let left = folders(&groups).into_iter().filter_map(|(folder, files)| {
        let read = |name| read_to_string(folder.join(name)).ok();
        let [limit, used, stat] = files.0.map(read);
        left(&limit?, &used?, &stat?, files.1)
    });
    left.min()
}

/// The files of a group that hold its limit, what it uses and of what that consists, and the name there of pages of
/// files that were not used of late.
type Files = ([&'static str; 3], &'static str);

const VERSION_1: Files = (
    [
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "memory.stat",
    ],
    "total_inactive_file",
);
const VERSION_2: Files = (
    ["memory.max", "memory.current", "memory.stat"],
    "inactive_file",
);

/// The folders of the groups that may limit a process's memory: its own and those around it, which include, in a
/// container that sees no other, the root.
fn folders(groups: &str) -> Vec<(PathBuf, Files)> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, files) = match controllers {
            "" => ("/sys/fs/cgroup", VERSION_2),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", VERSION_1)
            }
            _ => continue,
        };
        let folder = Path::new(root).join(group.trim_start_matches('/'));
        let around = folder.ancestors().take_while(|path| path.starts_with(root));
        folders.extend(around.map(|path| (path.to_owned(), files)));
    }
    folders
}

/// What a limit leaves: pages of files that were not used of late go when others are asked for.
fn left(limit: &str, used: &str, stat: &str, inactive: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    let used: u64 = used.trim().parse().ok()?;
    let files = field(stat, inactive).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

/// What the limit of this process's address space leaves of it.
fn address_bytes() -> Option<u64> {
    let limits = read_to_string("/proc/self/limits").ok()?;
    let limit = field(&limits, "Max address space")?;
    let status = read_to_string("/proc/self/status").ok()?;
    Some(limit.saturating_sub(field(&status, "VmSize:")?.checked_mul(KB)?))
}

/// The number behind a name at a line's start.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut rest = text.lines().filter_map(|line| line.strip_prefix(name));
    let rest = rest.find(|rest| name.ends_with(':') || rest.starts_with(' '))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_without_a_limit_has_none() {
        assert_eq!(left("max\n", "5\n", "", "inactive_file"), None);
    }

    #[test]
    fn a_limit_leaves_what_is_not_used_and_what_files_take() {
        let stat = "anon 600\nfile 300\ninactive_file 200\nactive_file 100\n";
        assert_eq!(left("1000\n", "900\n", stat, "inactive_file"), Some(300));
        assert_eq!(left("1000\n", "1300\n", "", "inactive_file"), Some(0));
    }

    #[test]
    fn numbers_are_found_by_their_names() {
        let info = "MemFree:  7 kB\nMemAvailable:   42 kB\n";
        assert_eq!(field(info, "MemAvailable:"), Some(42));
        assert_eq!(field(info, "Swap:"), None);
        assert_eq!(field("files_more 1\nfiles 2\n", "files"), Some(2));
        let limits = "Max data size  unlimited  unlimited  bytes\n";
        assert_eq!(field(limits, "Max data size"), None);
    }

    #[test]
    fn groups_of_both_versions_limit_and_so_do_those_around_them() {
        let found = folders("5:cpu,memory:/a/b\n3:cpuset:/c\n0::/\n");
        let paths: Vec<_> = found.iter().map(|(path, _)| path.as_path()).collect();
        let expected = [
            "/sys/fs/cgroup/memory/a/b",
            "/sys/fs/cgroup/memory/a",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup",
        ];
        assert_eq!(paths, expected.map(Path::new));
        assert_eq!(found[2].1, VERSION_1);
        assert_eq!(found[3].1, VERSION_2);
    }
}
