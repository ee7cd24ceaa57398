//! A real S3 server for tests: SeaweedFS, started on free loopback ports, gone with the test's process.
//!
//! What lies in it is looked at and put there by its filer's plain HTTP interface, so that no test trusts the code under
//! test, or S3 at all, for what it expects.

pub mod proxy;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Keys of the identity that may do everything.
pub const KEY: (&str, &str) = ("testkey", "testsecret");
/// Keys of one that may only read.
pub const READER: (&str, &str) = ("readkey", "readsecret");

/// Keys of one that may only list and read what lies below `in/` of the buckets `limited-0` to `limited-9`.
pub const LIMITED: (&str, &str) = ("limitedkey", "limitedsecret");

/// A server that runs.
pub struct Server {
    /// Where S3 is spoken.
    pub port: u16,
    /// Where it is spoken with TLS, of a server that has a certificate.
    pub tls: u16,
    filer: u16,
    // Closing its standard input ends it.
    _process: Option<Child>,
}

/// Names the ports of a server that another process of the test started.
const STARTED: &str = "AFFECTMILL_TEST_S3";

/// The one server of this test process.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| match std::env::var(STARTED) {
        Ok(ports) => {
            let mut ports = ports.split(' ').map(|port| port.parse().expect("a port"));
            let mut port = || ports.next().expect("two ports");
            Server {
                port: port(),
                tls: 0,
                filer: port(),
                _process: None,
            }
        }
        Err(_) => Server::start(&[]),
    })
}

/// Runs a test's body in a process of its own with a server's credentials and address in its environment: that is where
/// they belong, and a test binary must not change its own.
pub fn with_environment(test: &str, environment: Vec<(&'static str, String)>, body: impl FnOnce()) {
    const INSIDE: &str = "AFFECTMILL_TEST_INSIDE";
    if std::env::var(INSIDE).is_ok_and(|inside| inside == test) {
        return body();
    }
    let program = std::env::current_exe().expect("this program");
    // Scratch space of its own: in a user's one, whatever was ever killed on this machine may have left files.
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let output = Command::new(program)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, test)
        .env(STARTED, format!("{} {}", server().port, server().filer))
        .env("TMPDIR", temporary.path())
        .envs(environment)
        .output()
        .expect("it starts again");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    assert!(
        out.contains("1 passed"),
        "{test} is no test of this program: {out}"
    );
}

impl Server {
    /// A server that also speaks TLS, with a certificate and its key.
    pub fn with_certificate(certificate: &Path, key: &Path) -> Self {
        let file = |name: &str, path: &Path| format!("-s3.{name}.file={}", path.display());
        Self::start(&[file("cert", certificate), file("key", key)])
    }

    fn start(more: &[String]) -> Self {
        for _ in 0..5 {
            if let Some(server) = Self::try_start(more) {
                return server;
            }
            // A port was taken in the moment between finding and using it.
        }
        panic!("SeaweedFS does not start");
    }

    fn try_start(more: &[String]) -> Option<Self> {
        let weed = cache().join("seaweedfs/weed");
        assert!(
            weed.exists(),
            "{} is missing: run `make test`, which fetches it",
            weed.display()
        );
        let ports = free_ports(9);
        let folder = format!("affectmill-seaweedfs-{}-{}", std::process::id(), ports[0]);
        let folder = std::env::temp_dir().join(folder);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(folder.join("data")).expect("a folder for the server");
        std::fs::write(folder.join("identities.json"), identities()).expect("its identities");
        let flags = [
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "s3.port",
            "s3.port.grpc",
        ];
        let ports_given = flags
            .iter()
            .zip(&ports)
            .map(|(flag, port)| format!("-{flag}={port}"));
        // When this process ends, however it does, its end of the pipe closes and the shell clears up.
        let script = r#"folder=$1; shift
            "$@" >"$folder/log" 2>&1 </dev/null &
            cat >/dev/null
            kill -9 $!
            rm -rf "$folder""#;
        let process = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(&folder)
            .arg(weed)
            .args([
                "-logtostderr=true",
                "server",
                "-dir=data",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
            ])
            .args([
                "-filer",
                "-s3",
                "-s3.config=identities.json",
                "-s3.iam=false",
                "-s3.autoCreateBucket=false",
            ])
            .args([
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-master.telemetry=false",
            ])
            .args([
                "-volume.max=400",
                "-master.volumeSizeLimitMB=64",
                "-volume.minFreeSpace=1",
            ])
            .args(ports_given)
            .args(
                more.iter()
                    .cloned()
                    .chain((!more.is_empty()).then(|| format!("-s3.port.https={}", ports[8]))),
            )
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .process_group_of_its_own()
            .spawn()
            .expect("sh starts");
        let server = Self {
            port: ports[6],
            tls: ports[8],
            filer: ports[4],
            _process: Some(process),
        };
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(60) {
            let ready = request(server.port, "GET", "/healthz", &[]).is_ok_and(|(status, _)| status == 200)
                && request(server.filer, "PUT", "/buckets/ready/x", b"x")
                    .is_ok_and(|(status, _)| status == 201);
            if ready {
                return Some(server);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
        eprintln!("{log}");
        None
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a program's environment takes to speak to it, and to nothing else of the user's.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        environment(&self.endpoint(), KEY)
    }

    /// An empty bucket of its own for each call.
    pub fn bucket(&self, name: &str) -> String {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let bucket = format!("{name}-{count}");
        let (status, _) = request(self.filer, "POST", &format!("/buckets/{bucket}/"), &[]).expect("filer");
        assert!(status < 300, "bucket {bucket}: {status}");
        bucket
    }

    /// Puts an object.
    pub fn put(&self, bucket: &str, key: &str, bytes: &[u8]) {
        let path = format!("/buckets/{bucket}/{}", encoded(key));
        let (status, _) = request(self.filer, "PUT", &path, bytes).expect("filer");
        assert!(status < 300, "{path}: {status}");
    }

    /// Puts every file of a folder.
    pub fn put_tree(&self, bucket: &str, prefix: &str, folder: &Path) {
        for entry in std::fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
            if path.is_dir() {
                self.put_tree(bucket, &format!("{prefix}/{name}"), &path)
            } else {
                self.put(
                    bucket,
                    &format!("{prefix}/{name}"),
                    &std::fs::read(&path).expect("file"),
                )
            }
        }
    }

    /// Removes an object.
    pub fn remove(&self, bucket: &str, key: &str) {
        let path = format!("/buckets/{bucket}/{}", encoded(key));
        let (status, _) = request(self.filer, "DELETE", &path, &[]).expect("filer");
        assert!(status < 300, "{path}: {status}");
    }

    /// The bytes of an object.
    pub fn get(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let path = format!("/buckets/{bucket}/{}", encoded(key));
        let (status, bytes) = request(self.filer, "GET", &path, &[]).expect("filer");
        match status {
            200 => Some(bytes),
            404 => None,
            other => panic!("{path}: {other}"),
        }
    }

    /// Every object below a prefix with its bytes, by key relative to it.
    pub fn tree(&self, bucket: &str, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        self.descend(bucket, prefix, "", &mut found);
        found
    }

    fn descend(&self, bucket: &str, prefix: &str, below: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        let folder = format!("{prefix}/{below}");
        let mut last = String::new();
        loop {
            let path = format!(
                "/buckets/{bucket}/{}/?limit=1000&lastFileName={}",
                encoded(folder.trim_matches('/')),
                encoded(&last)
            );
            let (status, json) = request(self.filer, "GET", &path, &[]).expect("filer");
            if status == 404 {
                return;
            }
            let json: serde_json::Value = serde_json::from_slice(&json).expect("a listing");
            for entry in json["Entries"].as_array().into_iter().flatten() {
                let name = entry["FullPath"]
                    .as_str()
                    .expect("path")
                    .rsplit('/')
                    .next()
                    .expect("name");
                let key = format!("{below}{name}");
                // Directories have the mode bit of Go's `os.ModeDir`.
                if entry["Mode"].as_u64().expect("mode") & (1 << 31) != 0 {
                    self.descend(bucket, prefix, &format!("{key}/"), found);
                } else {
                    let bytes = self.get(bucket, &format!("{prefix}/{key}")).expect("listed");
                    found.insert(key, bytes);
                }
            }
            last = json["LastFileName"].as_str().unwrap_or_default().into();
            if !json["ShouldDisplayLoadMore"].as_bool().unwrap_or_default() {
                return;
            }
        }
    }
}

/// As [`Server::environment`], for any endpoint and keys.
pub fn environment(endpoint: &str, (key, secret): (&str, &str)) -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", key.into()),
        ("AWS_SECRET_ACCESS_KEY", secret.into()),
        ("AWS_ENDPOINT_URL", endpoint.into()),
        ("AWS_REGION", "us-east-1".into()),
        ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ("AWS_CONFIG_FILE", "/nonexistent".into()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".into()),
    ]
}

fn identities() -> String {
    let all = r#"["Admin", "Read", "Write", "List", "Tagging"]"#;
    let identity = |name: &str, (key, secret): (&str, &str), actions: &str| {
        format!(
            r#"{{"name": "{name}", "credentials": [{{"accessKey": "{key}", "secretKey": "{secret}"}}], "actions": {actions}}}"#
        )
    };
    let limited: Vec<String> = (0..10)
        .map(|n| format!(r#""Read:limited-{n}/in/*", "List:limited-{n}/in/*""#))
        .collect();
    let anonymous: Vec<String> = (0..10)
        .map(|n| format!(r#""Read:public-{n}", "List:public-{n}""#))
        .collect();
    format!(
        r#"{{"identities": [{}, {}, {}, {{"name": "anonymous", "actions": [{}]}}]}}"#,
        identity("all", KEY, all),
        identity("reader", READER, r#"["Read", "List"]"#),
        identity("limited", LIMITED, &format!("[{}]", limited.join(", "))),
        anonymous.join(", ")
    )
}

/// The folder that `make setup` fills.
fn cache() -> PathBuf {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("AFFECTMILL_CACHE").unwrap_or_else(|| {
        let base = set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").expect("HOME is set").join(".cache"));
        base.join("affectmill")
    })
}

fn free_ports(count: usize) -> Vec<u16> {
    // All are held until all are found, so that they differ.
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    held.iter()
        .map(|one| one.local_addr().expect("bound").port())
        .collect()
}

/// RFC 3986: everything but unreserved characters and `/`, percent-encoded.
pub fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// One HTTP request on a connection of its own; status and body.
pub fn request(port: u16, method: &str, path: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    // A folder is made by a request that has neither.
    let about_body = match method {
        "PUT" => format!(
            "Content-Type: application/octet-stream\r\nContent-Length: {}\r\n",
            body.len()
        ),
        _ => String::new(),
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: application/json\r\n{about_body}Connection: close\r\n\r\n"
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let bad = || std::io::Error::other("no HTTP answer");
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .ok_or_else(bad)?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(bad)?;
    let body = answer.split_off(end + 4);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { unchunked(&body) } else { body }))
}

/// RFC 9112, 7.1.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).expect("a chunk's size");
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default(), 16).expect("hex");
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 2 + size + 2..];
    }
    whole
}

/// Ctrl-C in a terminal reaches the tests, whose end then ends the server.
trait OwnGroup {
    fn process_group_of_its_own(&mut self) -> &mut Self;
}

impl OwnGroup for Command {
    fn process_group_of_its_own(&mut self) -> &mut Self {
        use std::os::unix::process::CommandExt;
        self.process_group(0)
    }
}
