//! A proxy that makes trouble between a program and a server: what networks and overloaded stores do, at will.
//!
//! Each request travels on a connection of its own, so that every fault strikes exactly one.

use std::collections::BTreeMap;
use std::io::{Error, Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What can happen to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The connection closes after a while, without an answer.
    Drop,
    /// The answer comes late.
    Delay,
    /// The answer breaks off in the middle.
    Truncate,
    /// 500 InternalError; the request was not carried out.
    Internal,
    /// 500 InternalError, although the request was carried out.
    InternalAfter,
    /// 503 SlowDown.
    SlowDown,
    /// The connection is reset before the request is read.
    Reset,
    /// The request is carried out and the answer lost.
    AnswerLost,
    /// The answer announces more than comes.
    TooShort,
    /// The answer announces less than the whole.
    TooLong,
}

const ALL: [Fault; 10] = [
    Fault::Drop,
    Fault::Delay,
    Fault::Truncate,
    Fault::Internal,
    Fault::InternalAfter,
    Fault::SlowDown,
    Fault::Reset,
    Fault::AnswerLost,
    Fault::TooShort,
    Fault::TooLong,
];

/// A proxy that runs as long as the process.
pub struct Proxy {
    /// Where it listens on loopback.
    pub port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: u16,
    /// Of 1,000 requests, how many suffer.
    rate: AtomicUsize,
    outage: AtomicBool,
    dice: AtomicU64,
    requests: AtomicUsize,
    faults: Mutex<BTreeMap<Fault, usize>>,
    /// Requests whose first line holds one of these are forbidden.
    forbidden: Mutex<Vec<String>>,
    /// Whether tags look like MD5s and are none, and whether answers say that a key of KMS is why.
    turned_tags: AtomicBool,
    kms: AtomicBool,
    /// Another path that is asked for instead of one.
    alias: Mutex<Option<(String, String)>>,
    /// First line of every request, with the range that it asks for.
    lines: Mutex<Vec<String>>,
    completing: Mutex<Option<Act>>,
}

/// Takes the path of a request.
type Act = Box<dyn Fn(&str) + Send>;

impl Proxy {
    /// Starts a proxy to a port on loopback; no fault yet.
    pub fn start(upstream: u16, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            upstream,
            rate: AtomicUsize::new(0),
            outage: AtomicBool::new(false),
            dice: AtomicU64::new(seed | 1),
            requests: AtomicUsize::new(0),
            faults: Mutex::default(),
            forbidden: Mutex::default(),
            turned_tags: AtomicBool::new(false),
            kms: AtomicBool::new(false),
            alias: Mutex::default(),
            lines: Mutex::default(),
            completing: Mutex::default(),
        });
        let theirs = shared.clone();
        let accept = move || {
            for client in listener.incoming().flatten() {
                let shared = theirs.clone();
                let serve = move || {
                    // A client or a server that breaks off is what this is about.
                    let _ = shared.serve(client);
                };
                thread::Builder::new()
                    .name("proxied".into())
                    .spawn(serve)
                    .expect("a thread");
            }
        };
        thread::Builder::new()
            .name("proxy".into())
            .spawn(accept)
            .expect("a thread");
        Self { port, shared }
    }

    /// Where the program under test finds the store.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on so many requests of 1,000 suffer a fault of a kind chosen by chance.
    pub fn disturb(&self, of_thousand: usize) {
        self.shared.rate.store(of_thousand, Ordering::Relaxed);
    }

    /// From now on nothing gets through, or everything again.
    pub fn outage(&self, on: bool) {
        self.shared.outage.store(on, Ordering::Relaxed);
    }

    /// From now on requests whose first line holds one of these are answered 403.
    pub fn forbid(&self, parts: &[&str]) {
        let parts = parts.iter().map(|part| part.to_string());
        *self.shared.forbidden.lock().expect("rules") = parts.collect();
    }

    /// From now on tags look like MD5s and are none; `kms`: as of objects that a key of KMS encrypts, which answers say.
    /// Requests must not be signed.
    pub fn turn_tags(&self, kms: bool) {
        self.shared.turned_tags.store(true, Ordering::Relaxed);
        self.shared.kms.store(kms, Ordering::Relaxed);
    }

    /// From now on whoever asks for one path gets another. Requests must not be signed.
    pub fn alias(&self, path: &str, other: &str) {
        *self.shared.alias.lock().expect("alias") = Some((path.into(), other.into()));
    }

    /// First line of every request so far, with the range that it asked for.
    pub fn lines(&self) -> Vec<String> {
        self.shared.lines.lock().expect("lines").clone()
    }

    /// From now on this happens before an upload in parts is completed.
    pub fn before_completion(&self, act: impl Fn(&str) + Send + 'static) {
        *self.shared.completing.lock().expect("an act") = Some(Box::new(act));
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Faults so far, by kind.
    pub fn faults(&self) -> BTreeMap<Fault, usize> {
        self.shared.faults.lock().expect("counts").clone()
    }
}

impl Shared {
    /// xorshift64; races only make it more random.
    fn roll(&self, below: u64) -> u64 {
        let mut state = self.dice.load(Ordering::Relaxed);
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.dice.store(state, Ordering::Relaxed);
        state % below
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each fault")]
    fn serve(&self, mut client: TcpStream) -> Result<()> {
        client.set_read_timeout(Some(Duration::from_secs(60)))?;
        // A connection that is opened and never used is no request.
        if client.peek(&mut [0])? == 0 {
            return Ok(());
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.outage.load(Ordering::Relaxed) {
            // Closing with something unread resets the connection.
            return Ok(());
        }
        let strikes = (self.roll(1000) as usize) < self.rate.load(Ordering::Relaxed);
        let fault = strikes.then(|| ALL[self.roll(ALL.len() as u64) as usize]);
        if let Some(fault) = fault {
            *self.faults.lock().expect("counts").entry(fault).or_default() += 1;
        }
        if fault == Some(Fault::Reset) {
            return Ok(());
        }
        let (head, begun) = head(&mut client)?;
        let first = lines(&head).next().unwrap_or_default().to_owned();
        let range = header(&head, "range").unwrap_or_default();
        self.lines.lock().expect("lines").push(format!("{first} {range}"));
        let is_forbidden = |part: &String| first.contains(part.as_str());
        if self.forbidden.lock().expect("rules").iter().any(is_forbidden) {
            return refuse(&mut client, &head, begun, "403", "AccessDenied");
        }
        let mut asked = first.split(' ');
        if let (Some("POST"), Some(target)) = (asked.next(), asked.next())
            && let Some((path, query)) = target.split_once('?')
            && query.contains("uploadId=")
            && let Some(act) = &*self.completing.lock().expect("an act")
        {
            act(path);
        }
        let turned_tags = self.turned_tags.load(Ordering::Relaxed);
        let mut head = if turned_tags {
            with_turned_tags(&head)
        } else {
            head
        };
        if let Some((path, other)) = self.alias.lock().expect("alias").clone() {
            let text = String::from_utf8_lossy(&head).into_owned();
            let asks = [" ", "?"]
                .iter()
                .any(|end| first.contains(&format!(" {path}{end}")));
            if asks {
                head = text.replacen(&path, &other, 1).into_bytes();
            }
        }
        match fault {
            Some(Fault::Drop) => {
                thread::sleep(Duration::from_millis(1500));
                return client.shutdown(Shutdown::Both);
            }
            Some(Fault::Internal) => return refuse(&mut client, &head, begun, "500", "InternalError"),
            Some(Fault::SlowDown) => return refuse(&mut client, &head, begun, "503", "SlowDown"),
            Some(Fault::Delay) => thread::sleep(Duration::from_millis(200 + self.roll(1500))),
            _ => {}
        }
        let mut server = TcpStream::connect(("127.0.0.1", self.upstream))?;
        server.set_read_timeout(Some(Duration::from_secs(60)))?;
        forward(&head, begun, &mut client, &mut server)?;
        let (answer, begun) = self::head(&mut server)?;
        let length: Option<u64> = header(&answer, "content-length").and_then(|text| text.parse().ok());
        match fault {
            Some(Fault::InternalAfter) => {
                discard(&mut server);
                respond(&mut client, "500", "InternalError")
            }
            Some(Fault::AnswerLost) => {
                discard(&mut server);
                client.shutdown(Shutdown::Both)
            }
            Some(Fault::Truncate) => {
                let mut body = begun;
                server.read_to_end(&mut body)?;
                client.write_all(&answer)?;
                client.write_all(&body[..body.len() / 2])?;
                client.shutdown(Shutdown::Both)
            }
            Some(kind @ (Fault::TooShort | Fault::TooLong)) if length.is_some() => {
                let length = length.unwrap_or_default();
                let said = match kind {
                    Fault::TooShort => length + 7,
                    _ => length / 2,
                };
                client.write_all(&with_length(&answer, said))?;
                client.write_all(&begun)?;
                relay(&mut server, &mut client)
            }
            _ if turned_tags => {
                let mut body = begun;
                server.read_to_end(&mut body)?;
                let mut answer = with_turned_tags(&answer);
                if header(&answer, "etag").is_some() && self.kms.load(Ordering::Relaxed) {
                    let end = answer.len() - 2;
                    answer.splice(end..end, *b"x-amz-server-side-encryption: aws:kms\r\n");
                }
                client.write_all(&answer)?;
                client.write_all(&turned(&body, "<ETag>"))?;
                client.shutdown(Shutdown::Write)
            }
            _ => {
                client.write_all(&answer)?;
                client.write_all(&begun)?;
                relay(&mut server, &mut client)
            }
        }
    }
}

/// A head whose entity tags read backwards: hex digits still, and the MD5 of nothing.
fn with_turned_tags(head: &[u8]) -> Vec<u8> {
    let mut changed = Vec::new();
    for line in lines(head).filter(|line| !line.is_empty()) {
        let line = format!("{line}\r\n").into_bytes();
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let has_tag = [&b"etag"[..], b"if-match"]
            .iter()
            .any(|tag| name.eq_ignore_ascii_case(tag));
        changed.extend(if has_tag { turned(&line, ":") } else { line });
    }
    changed.extend(b"\r\n");
    changed
}

/// The text with the first run of 32 hex digits behind each `mark` turned around.
fn turned(text: &[u8], mark: &str) -> Vec<u8> {
    let mut text = text.to_vec();
    let mut at = 0;
    while let Some(found) = text[at..]
        .windows(mark.len())
        .position(|bytes| bytes == mark.as_bytes())
    {
        at += found + mark.len();
        let near = at..(at + 64).min(text.len());
        let is_tag = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_hexdigit);
        if let Some(start) = text[near].windows(32).position(is_tag) {
            text[at + start..at + start + 32].reverse();
        }
    }
    text
}

/// Everything up to the blank line, and what came of the body with it.
fn head(stream: &mut TcpStream) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::new();
    let mut piece = [0; 16 << 10];
    loop {
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(Error::other("broke off in its head"));
        }
        head.extend_from_slice(&piece[..count]);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = head.split_off(end + 4);
            return Ok((head, body));
        }
    }
}

fn lines(head: &[u8]) -> impl Iterator<Item = &str> {
    std::str::from_utf8(head).unwrap_or_default().split("\r\n")
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    lines(head)
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// Sends a request on, as the only one of its connection.
fn forward(head: &[u8], begun: Vec<u8>, client: &mut TcpStream, server: &mut TcpStream) -> Result<()> {
    let mut changed = String::new();
    for line in lines(head).filter(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        match name.as_str() {
            "connection" => {}
            "expect" => client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?,
            _ => changed += &format!("{line}\r\n"),
        }
    }
    changed += "Connection: close\r\n\r\n";
    server.write_all(changed.as_bytes())?;
    let length: u64 = header(head, "content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let left = length.saturating_sub(begun.len() as u64);
    server.write_all(&begun)?;
    std::io::copy(&mut client.take(left), server)?;
    Ok(())
}

fn relay(server: &mut TcpStream, client: &mut TcpStream) -> Result<()> {
    std::io::copy(server, client)?;
    client.shutdown(Shutdown::Write)
}

fn discard(server: &mut TcpStream) {
    let _ = std::io::copy(server, &mut std::io::sink());
}

/// Takes the request to its end, so that the refusal is read and not lost to a reset.
fn refuse(client: &mut TcpStream, head: &[u8], begun: Vec<u8>, status: &str, code: &str) -> Result<()> {
    let length: u64 = header(head, "content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    if header(head, "expect").is_some() {
        client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let left = length.saturating_sub(begun.len() as u64);
    std::io::copy(&mut (&mut *client).take(left), &mut std::io::sink())?;
    respond(client, status, code)
}

fn respond(client: &mut TcpStream, status: &str, code: &str) -> Result<()> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>made up</Message></Error>");
    write!(
        client,
        "HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    client.shutdown(Shutdown::Write)
}

fn with_length(head: &[u8], length: u64) -> Vec<u8> {
    let mut changed = String::new();
    for line in lines(head).filter(|line| !line.is_empty()) {
        match line.split_once(':') {
            Some((name, _)) if name.eq_ignore_ascii_case("content-length") => {
                changed += &format!("Content-Length: {length}\r\n");
            }
            _ => changed += &format!("{line}\r\n"),
        }
    }
    (changed + "\r\n").into_bytes()
}
