//! A real nats-server for tests, gone with the test's process.

pub mod network;

use crate::media;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server with JetStream. Dropping it ends it.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    folder: TempDir,
    /// Runs the command in another network namespace.
    namespace: Option<String>,
    /// Further lines of its configuration.
    configuration: String,
    program: PathBuf,
    process: Option<Child>,
}

/// The server's program, which `make setup` fetched.
pub fn program() -> PathBuf {
    media::cached("nats/nats-server")
}

/// Ports that are free now.
pub fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"))
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().expect("its address").port())
        .collect()
}

impl Server {
    /// One on loopback.
    pub fn start() -> Self {
        Self::with("")
    }

    /// One on loopback with further lines of configuration.
    pub fn with(configuration: &str) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports(1)[0]));
        Self::configured(configuration, address, None)
    }

    /// One on loopback that is another program.
    pub fn of(program: PathBuf) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports(1)[0]));
        Self::of_program(program, "", address, None)
    }

    /// One at this address, in that network namespace, with further lines of configuration.
    pub fn configured(configuration: &str, address: SocketAddr, namespace: Option<String>) -> Self {
        Self::of_program(program(), configuration, address, namespace)
    }

    fn of_program(
        program: PathBuf,
        configuration: &str,
        address: SocketAddr,
        namespace: Option<String>,
    ) -> Self {
        let mut server = Self {
            address,
            folder: tempfile::tempdir().expect("a folder for the server"),
            namespace,
            configuration: configuration.to_owned(),
            program,
            process: None,
        };
        server.run();
        server
    }

    /// `nats://address:port`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Starts it, on whatever it kept.
    pub fn run(&mut self) {
        let file = self.folder.path().join("server.conf");
        let text = format!(
            "{}\nlisten: \"{}\"\njetstream {{ store_dir: {:?} }}\nlog_file: {:?}\n",
            self.configuration,
            self.address,
            self.store(),
            self.folder.path().join("log"),
        );
        std::fs::write(&file, text).expect("its configuration");
        let mut command = match &self.namespace {
            Some(name) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", name]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command
            .arg("-c")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: prctl(2) is async-signal-safe. The server goes when the test does, however that ends.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        self.process = Some(command.spawn().expect("nats-server starts"));
        if self.namespace.is_none() {
            self.await_port();
        }
    }

    fn await_port(&self) {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "no answer; its log: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it says of itself.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Where it keeps what must last.
    pub fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Forgets everything it kept.
    pub fn wipe(&self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.store()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
