//! Detects kills by the kernel's out-of-memory (OOM) killer.
//!
//! A process that dies of SIGKILL was killed either from outside (an operator, a scheduler) or by the OOM killer. The kernel
//! counts its own kills per machine and per memory control group; these counters distinguish the two.

use crate::host::boot_id;
use crate::mounts::{Mount, mounts};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The machine's counter.
const MACHINE: &str = "/proc/vmstat";

/// The kernel's counter of OOM kills that covers a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomCounter(PathBuf);

impl OomCounter {
    /// The counter of the process's control group, or of the machine when it has none.
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let groups = folders(&read("cgroup"), &read("mountinfo")).into_iter();
        // Only kills in this group; older kernels with cgroup v2 also count those of child groups.
        let files = ["memory.events.local", "memory.events", "memory.oom_control"];
        let mut files = groups.flat_map(|group| files.map(|name| group.join(name)));
        let counts = |file: &PathBuf| kills_in(file).is_some();
        Self(files.find(counts).unwrap_or_else(|| MACHINE.into()))
    }

    /// Kills so far.
    pub fn kills(&self) -> u64 {
        kills_in(&self.0).unwrap_or(0)
    }
}

/// OOM kills counted at one moment. A later record shows whether processes that died together with their supervisor may have
/// been killed for lack of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OomRecord {
    /// Id of the machine's boot.
    boot: String,
    /// Control group of this process, with its inode, because names are reused.
    group: String,
    /// Kills in that group.
    group_kills: u64,
    /// Kills on the machine.
    kills: Option<u64>,
}

impl OomRecord {
    /// The counters now.
    pub fn now() -> Self {
        let OomCounter(file) = OomCounter::of(std::process::id());
        let folder = file.parent().unwrap_or(Path::new("/"));
        let inode = fs::metadata(folder).map_or(0, |meta| meta.ino());
        Self {
            boot: boot_id().unwrap_or_default(),
            group: format!("{} {inode}", file.display()),
            group_kills: kills_in(&file).unwrap_or(0),
            kills: kills_in(Path::new(MACHINE)),
        }
    }

    /// Whether the OOM killer cannot have killed any process between this record and `now`: same boot, same counters.
    pub fn excludes(&self, now: &Self) -> bool {
        let same_boot = !self.boot.is_empty() && self.boot == now.boot;
        same_boot
            && if self.group == now.group {
                self.group_kills == now.group_kills
            } else {
                self.kills.is_some() && self.kills == now.kills
            }
    }
}

/// Folders of the memory control groups of a process, by its `cgroup` (cgroups(7)) and `mountinfo` (proc(5)).
fn folders(cgroup: &str, mountinfo: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for Mount {
        root,
        point,
        kind,
        options,
    } in mounts(mountinfo)
    {
        let has_memory = |names: &str| names.split(',').any(|name| name == "memory");
        for line in cgroup.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
                continue;
            };
            let fits = match kind {
                "cgroup2" => controllers.is_empty(),
                "cgroup" => has_memory(controllers) && has_memory(options),
                _ => false,
            };
            // In a container the group itself may be the mount.
            if let Ok(below) = Path::new(path).strip_prefix(&root)
                && fits
            {
                found.push(point.join(below));
            }
        }
    }
    found
}

fn kills_in(file: &Path) -> Option<u64> {
    count(&fs::read_to_string(file).ok()?)
}

fn count(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn reads_the_kernels_counter() {
        assert_eq!(count("pgfault 12\noom_kill 3\noom_kill_x 9\n"), Some(3));
        assert_eq!(count("low 0\nhigh 0\noom 2\noom_kill 1\n"), Some(1));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"), Some(2));
        assert_eq!(count(""), None);
    }

    #[test]
    fn finds_the_group_of_a_process_in_containers_and_out_of_them() {
        let v2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
        let v1 = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                  35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                  37 31 0:34 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let bound = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory";
        let cases = [
            (
                "0::/user.slice/run-1.scope\n",
                v2,
                vec!["/sys/fs/cgroup/user.slice/run-1.scope"],
            ),
            ("0::/\n", v2, vec!["/sys/fs/cgroup"]),
            (
                "4:memory:/slurm/job_7\n1:cpu,cpuacct:/slurm\n0::/init\n",
                v1,
                vec!["/sys/fs/cgroup/memory/slurm/job_7", "/sys/fs/cgroup/unified/init"],
            ),
            (
                "4:memory:/docker/abc/step\n",
                bound,
                vec!["/sys/fs/cgroup/memory/step"],
            ),
            ("4:memory:/docker/abc\n", bound, vec!["/sys/fs/cgroup/memory"]),
            ("4:memory:/elsewhere\n", bound, vec![]),
            ("", "", vec![]),
        ];
        for (cgroup, mountinfo, expected) in cases {
            let expected: Vec<PathBuf> = expected.into_iter().map(PathBuf::from).collect();
            assert_eq!(folders(cgroup, mountinfo), expected, "{cgroup}");
        }
    }

    /// A group of this process's own below its own, with little memory; `None` where this user may not make any.
    fn small_group() -> Option<PathBuf> {
        let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap();
        let above = folders(&read("cgroup"), &read("mountinfo")).into_iter().next()?;
        let group = above.join(format!("affectmill-test-{}", std::process::id()));
        fs::create_dir(&group).ok()?;
        let limits = [("memory.max", "64M"), ("memory.limit_in_bytes", "64M")];
        let limited = limits
            .iter()
            .any(|(name, limit)| fs::write(group.join(name), limit).is_ok());
        let _ = fs::write(group.join("memory.swap.max"), "0");
        let _ = fs::write(group.join("memory.memsw.limit_in_bytes"), "64M");
        if !limited {
            let _ = fs::remove_dir(&group);
        }
        limited.then_some(group)
    }

    /// Starts a shell in the group.
    fn within(group: &Path, script: &str) -> std::process::Child {
        let script = format!("echo $$ >'{}/cgroup.procs' && echo && {script}", group.display());
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        child
    }

    #[test]
    fn a_kill_for_want_of_memory_is_counted_in_its_group_and_no_other_is() {
        let Some(group) = small_group() else {
            println!("NOT TESTED: this user may make no memory control group");
            return;
        };
        // It waits for a moment after it was killed by hand, and fills its memory.
        let mut innocent = within(&group, "exec sleep 100");
        let counter = OomCounter::of(innocent.id());
        assert!(counter.0.starts_with(&group), "{counter:?}");
        let own = OomCounter::of(std::process::id());
        assert_ne!(own, counter);
        let (before, own_before) = (counter.kills(), own.kills());
        innocent.kill().unwrap();
        innocent.wait().unwrap();
        assert_eq!(counter.kills(), before, "killed by hand");
        let mut hungry = within(&group, "exec head -c 1000000000 /dev/zero | tail");
        assert_eq!(OomCounter::of(hungry.id()), counter);
        hungry.wait().unwrap();
        assert!(counter.kills() > before, "killed by the kernel");
        assert_eq!(own.kills(), own_before, "what befalls others is not ours");
        fs::remove_dir(&group).unwrap();
    }

    #[test]
    fn only_a_count_that_stood_still_on_one_boot_excludes_want_of_memory() {
        let record = |boot: &str, group: &str, group_kills, kills| OomRecord {
            boot: boot.into(),
            group: group.into(),
            group_kills,
            kills,
        };
        let before = record("b", "/a 1", 2, Some(5));
        assert!(
            before.excludes(&record("b", "/a 1", 2, Some(9))),
            "others were killed"
        );
        assert!(!before.excludes(&record("b", "/a 1", 3, Some(5))));
        assert!(
            before.excludes(&record("b", "/a 2", 0, Some(5))),
            "a new container, and no kill"
        );
        assert!(!before.excludes(&record("b", "/a 2", 0, Some(6))));
        assert!(
            !before.excludes(&record("other", "/a 1", 2, Some(5))),
            "another machine, or boot"
        );
        let unknown = record("", "/a 1", 2, None);
        assert!(!unknown.excludes(&unknown.clone()));
        let now = OomRecord::now();
        assert!(now.excludes(&now));
    }
}
