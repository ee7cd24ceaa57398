//! Identity of a process, unique across machines and boots.

use crate::host::boot_id;
use serde::{Deserialize, Serialize};
use std::fs;

/// With a process id, it identifies one process. A process id is valid only within one PID namespace of one boot of one
/// machine and is reused there, so its start time is part of the identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The machine's boot, a random UUID of the kernel.
    pub boot_id: String,
    /// The PID namespace, such as `pid:[4026531836]`; a container usually has its own.
    pub pid_namespace: String,
    /// Start time of the process, in clock ticks since the boot.
    pub started: u64,
}

impl ProcessIdentity {
    /// The identity of a visible process; `None` when there is none, or `/proc` does not show it.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
        Some(Self {
            boot_id: boot_id()?,
            pid_namespace: namespace.to_string_lossy().into_owned(),
            started: started(&stat)?,
        })
    }

    /// The identity of this process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether that process is alive; `None` when it is not visible from here.
    pub fn lives(&self, pid: u32) -> Option<bool> {
        let here = Self::own()?;
        let seen = here.boot_id == self.boot_id && here.pid_namespace == self.pid_namespace;
        seen.then(|| Self::of(pid).as_ref() == Some(self))
    }
}

/// Field 22 of proc(5)'s `stat`, unless the process is a zombie. The program name, in parentheses, may contain any character.
fn started(stat: &str) -> Option<u64> {
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace();
    let lives = !matches!(fields.next()?, "Z" | "X");
    fields.nth(18)?.parse().ok().filter(|_| lives)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_while_it_lives_and_no_other_takes_its_place() {
        // Start times are in ticks of 10 ms; this process is of another one than its child.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        assert_eq!(identity.lives(child.id()), Some(true));
        assert_eq!(identity.lives(std::process::id()), Some(false), "another one");
        child.kill().unwrap();
        let ended = || {
            fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| stat.contains(") Z "))
        };
        while !ended() {
            std::thread::yield_now();
        }
        assert_eq!(
            identity.lives(child.id()),
            Some(false),
            "it is a zombie until its parent waits for it"
        );
        child.wait().unwrap();
        assert_eq!(identity.lives(child.id()), Some(false));
        for (boot_id, pid_namespace) in [("another", None), (&*identity.boot_id, Some("pid:[1]"))] {
            let elsewhere = ProcessIdentity {
                boot_id: boot_id.into(),
                pid_namespace: pid_namespace.unwrap_or(&identity.pid_namespace).into(),
                ..identity.clone()
            };
            assert_eq!(elsewhere.lives(child.id()), None, "it is not visible from here");
        }
    }

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 10";
        assert_eq!(started(stat), Some(4711));
        assert_eq!(started(&stat.replace(") S", ") Z")), None);
        assert_eq!(started("7 (a"), None);
    }
}
