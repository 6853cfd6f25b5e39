//! Memory of the machine, as far as the system tells.

use std::fs;
use std::path::Path;

/// Memory that programs on this machine can use, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it, swap space included: what one program could have at most.
    pub total: u64,
    /// Part of it that is free without swapping.
    pub available: u64,
}

/// Memory of this machine, within the limits of the control groups of this process (containers have one); none where it
/// cannot be known: on systems other than Linux.
pub fn machine() -> Option<Memory> {
    let found = of_text(&fs::read_to_string("/proc/meminfo").ok()?)?;
    Some(match group_limit() {
        Some(limit) => within(found, limit),
        None => found,
    })
}

/// Memory from the text of `/proc/meminfo`.
fn of_text(text: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib.saturating_mul(1024))
    };
    let swap = bytes("SwapTotal:").unwrap_or(0);
    Some(Memory {
        total: bytes("MemTotal:")?.saturating_add(swap),
        available: bytes("MemAvailable:")?,
    })
}

/// Memory within a limit, beside which there may be swap space.
fn within(found: Memory, limit: u64) -> Memory {
    Memory {
        total: found.total.min(limit),
        available: found.available.min(limit),
    }
}

/// Smallest limit of the control groups that this process is in, with the swap space that they allow.
fn group_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    limit_of(Path::new("/sys/fs/cgroup"), &groups)
}

/// [`group_limit`] by the text of `/proc/self/cgroup` and the folder of all groups.
fn limit_of(root: &Path, groups: &str) -> Option<u64> {
    let mut least: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(kind), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        // Version 2 has one tree for everything; in version 1 memory has one of its own.
        let tree = match kind {
            "" => root.to_path_buf(),
            "memory" => root.join("memory"),
            _ => continue,
        };
        for part in Path::new(group.trim_start_matches('/')).ancestors() {
            let folder = tree.join(part);
            let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
            let number = |text: String| text.trim().parse::<u64>().ok();
            let limit = read("memory.max").and_then(number);
            let limit = limit.map(|limit| {
                // No number is no limit ("max").
                let swap = read("memory.swap.max").and_then(number);
                limit.saturating_add(swap.unwrap_or(0))
            });
            let limit = limit.or_else(|| read("memory.limit_in_bytes").and_then(number));
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

/// Bytes for people: "850 MB", "1.2 GB".
pub fn in_words(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes < 999.5 {
        format!("{megabytes:.0} MB")
    } else {
        format!("{:.1} GB", megabytes / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_groups_and_of_those_around_them_count() {
        let text =
            "MemTotal:       24 kB\nMemFree: 1 kB\nMemAvailable:   12 kB\nSwapTotal:   8 kB\n";
        let found = of_text(text).expect("memory");
        let kib = |total: u64, available: u64| Memory {
            total: total << 10,
            available: available << 10,
        };
        assert_eq!(found, kib(32, 12));
        assert_eq!(within(found, 20 << 10), kib(20, 12));
        assert_eq!(within(found, 10 << 10), kib(10, 10));
        assert_eq!(of_text("MemTotal: many kB"), None);
        let root = tempfile::tempdir().expect("a folder");
        let put = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        put("a/memory.max", "5000\n");
        put("a/memory.swap.max", "1000\n");
        put("a/b/memory.max", "max\n");
        put("memory/old/memory.limit_in_bytes", "4000\n");
        let limit = |groups: &str| limit_of(root.path(), groups);
        assert_eq!(limit("0::/a/b\n"), Some(6000));
        assert_eq!(limit("0::/c\n"), None);
        assert_eq!(limit("7:memory:/old/x\n3:cpu:/a\n0::/a\n"), Some(4000));
        assert_eq!(limit(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_machine_has_memory() {
        let found = machine().expect("Linux");
        assert!(
            found.total >= found.available && found.available > 1 << 20,
            "{found:?}"
        );
    }

    #[test]
    fn bytes_in_words() {
        let words = [3_000_000, 850_400_000, 1_234_000_000].map(in_words);
        assert_eq!(words, ["3 MB", "850 MB", "1.2 GB"]);
    }
}
