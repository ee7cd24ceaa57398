//! Whether the kernel killed somebody for want of memory.
//!
//! A worker that dies of SIGKILL was either killed from outside (an operator, a scheduler), which says nothing
//! about its video, or by the kernel because the video needs too much memory, which does. The kernel counts its
//! own kills; the counter tells the two apart.

use std::fs;

/// Kills for want of memory so far, on this host and in this process's control group.
pub fn kills() -> u64 {
    let host = fs::read_to_string("/proc/vmstat").map_or(0, |text| count(&text));
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("0::").map(String::from))
        })
        .and_then(|group| fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.events")).ok())
        .map_or(0, |text| count(&text));
    host + group
}

fn count(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn reads_the_kernels_counter() {
        assert_eq!(super::count("pgfault 12\noom_kill 3\noom_kill_x 9\n"), 3);
        assert_eq!(super::count("low 0\nhigh 0\noom 2\noom_kill 1\n"), 1);
        assert_eq!(super::count(""), 0);
    }
}
