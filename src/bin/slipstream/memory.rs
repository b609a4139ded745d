//! How much memory there is: the cgroup's limit, or the machine's.

use std::fs;
use std::path::Path;

/// The bytes this process may use, as far as the system tells: the smallest limit of its cgroups, and at most
/// what the machine has. `None` where neither can be read.
pub(crate) fn available_bytes() -> Option<u64> {
    available_bytes_under(Path::new("/"))
}

/// The same below another root, so that tests can lay out a machine.
fn available_bytes_under(root: &Path) -> Option<u64> {
    [machine_bytes(root), cgroup_bytes(root)].into_iter().flatten().min()
}

/// `MemTotal` of `/proc/meminfo`, which is in kibibytes.
fn machine_bytes(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest limit that a cgroup of this process, or a parent of it, sets.
///
/// A line of `/proc/self/cgroup` is `0::/path` under cgroup v2 and `7:memory:/path` under v1. Inside a
/// container the path may be the host's, which does not exist below the container's mount: the walk up to the
/// mount's root then still finds the container's own limit.
fn cgroup_bytes(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    groups.lines().filter_map(|line| limit_of_group(root, line)).min()
}

fn limit_of_group(root: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_hierarchy, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (mount, file) = if controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|controller| controller == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return None;
    };
    // Without a limit v2 says "max", and v1 a number near 2^63, which the machine's memory undercuts.
    Path::new(path.trim_start_matches('/'))
        .ancestors()
        .filter_map(|group| fs::read_to_string(root.join(mount).join(group).join(file)).ok())
        .filter_map(|limit| limit.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lays out a machine with these files, and asks it.
    fn available(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        available_bytes_under(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:       1024 kB\nMemFree:  7 kB\n");

    #[test]
    fn the_machine_is_the_limit_without_a_cgroup() {
        assert_eq!(available(&[MACHINE]), Some(1 << 20));
        assert_eq!(available(&[]), None);
    }

    #[test]
    fn a_cgroup_v2_and_its_parents_limit() {
        let own = ("proc/self/cgroup", "0::/a/b\n");
        let files = [MACHINE, own, ("sys/fs/cgroup/a/b/memory.max", "max\n")];
        assert_eq!(available(&files), Some(1 << 20));
        let files = [MACHINE, own, ("sys/fs/cgroup/a/memory.max", "4096\n"), files[2]];
        assert_eq!(available(&files), Some(4096));
    }

    #[test]
    fn a_path_of_the_host_falls_back_to_the_containers_root() {
        let own = ("proc/self/cgroup", "0::/on/the/host\n");
        assert_eq!(available(&[MACHINE, own, ("sys/fs/cgroup/memory.max", "8192")]), Some(8192));
    }

    #[test]
    fn a_cgroup_v1_limits_by_its_memory_controller() {
        let own = ("proc/self/cgroup", "4:cpu,cpuacct:/x\n7:memory:/x\n0::/\n");
        let limit = ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "2048\n");
        assert_eq!(available(&[MACHINE, own, limit]), Some(2048));
        let none = ("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(available(&[MACHINE, own, none]), Some(1 << 20));
    }
}
