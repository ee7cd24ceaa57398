//! Hosts of their own on one machine: network namespaces with addresses in 10.77.0.0/24, joined by a bridge in a
//! namespace of its own, so that nothing of the machine's own network is touched. Links can be cut and healed.

use std::process::Command;

/// Some hosts and the wires between them. Dropping it takes all away.
pub struct Network {
    prefix: String,
    hosts: Vec<String>,
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let done = Command::new("ip")
        .args(arguments)
        .output()
        .map_err(|error| format!("ip (iproute2): {error}"))?;
    if done.status.success() {
        Ok(())
    } else {
        Err(format!(
            "ip {arguments:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        ))
    }
}

impl Network {
    /// A network with these hosts, if this user may make one (root may).
    pub fn new(hosts: &[&str]) -> Result<Self, String> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let network = Self {
            prefix: format!("am{}-{count}", std::process::id()),
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        };
        let hub = network.namespace("hub");
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for (number, host) in hosts.iter().enumerate() {
            let name = network.namespace(host);
            ip(&["netns", "add", &name])?;
            ip(&[
                "-n", &hub, "link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", &name,
            ])?;
            ip(&["-n", &hub, "link", "set", host, "master", "bridge", "up"])?;
            let address = format!("10.77.0.{}/24", number + 1);
            ip(&["-n", &name, "address", "add", &address, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
            ip(&["-n", &name, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    /// The namespace of a host.
    pub fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// The address of a host.
    pub fn address(&self, host: &str) -> [u8; 4] {
        let number = self
            .hosts
            .iter()
            .position(|name| name == host)
            .expect("a host of this network");
        [10, 77, 0, number as u8 + 1]
    }

    /// The command, on that host.
    pub fn on(&self, host: &str, command: &Command) -> Command {
        let mut on = Command::new("ip");
        on.args(["netns", "exec", &self.namespace(host)])
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => on.env(name, value),
                None => on.env_remove(name),
            };
        }
        on
    }

    /// Cuts the wire of a host, or heals it.
    pub fn link(&self, host: &str, up: bool) {
        let state = if up { "up" } else { "down" };
        ip(&["-n", &self.namespace("hub"), "link", "set", host, state]).expect("the wire is there");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in self.hosts.iter().map(String::as_str).chain(["hub"]) {
            let _ = ip(&["netns", "del", &self.namespace(host)]);
        }
    }
}
