//! The HTTP side: two pages to read, and nothing else.

use super::{Shared, page};
use affectmill_nn::Gpus;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Connections at once. Whoever asks is answered at once, so that the oldest of so many is one that does not ask.
const MOST_CONNECTIONS: usize = 64;
/// How long a request may take to arrive.
const HEADERS: Duration = Duration::from_secs(5);
/// How long a connection may take in all, which reads its answer slowly.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What answers are made of.
pub struct Answers {
    /// The run.
    pub shared: Shared,
    /// The GPUs of this machine.
    pub gpus: Gpus,
    /// Names beside its own by which this machine may be asked.
    pub names: Vec<String>,
}

/// Takes the address, and answers on a thread until the process ends. Returns the address, with the port that was taken
/// for port 0.
pub fn start(address: SocketAddr, answers: Answers) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let taken = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("metrics".into())
        .spawn(move || runtime.block_on(serve(listener, answers.into())))?;
    Ok(taken)
}

async fn serve(listener: std::net::TcpListener, answers: Arc<Answers>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() == MOST_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let answers = answers.clone();
        let connection = tokio::spawn(async move {
            let respond = service_fn(move |request| {
                let answer = answer(&request, &answers);
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), respond);
            // Whoever goes away in the middle has what they wanted.
            let _ = timeout(PATIENCE, connection).await;
        });
        open.push_back(connection.abort_handle());
    }
}

/// Whether a request was meant for this machine. A page elsewhere can lead a browser here under a name of its own, and would then
/// read what is answered (DNS rebinding); so names must be known, and numbers are no names.
fn is_meant(headers: &HeaderMap, names: &[String]) -> bool {
    let known = |host: &str| {
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok());
        let name = name.map_or(host, |(name, _)| name);
        let number = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        number.unwrap_or(name).parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || names.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    headers
        .get_all(HOST)
        .iter()
        .all(|host| host.to_str().is_ok_and(known))
}

fn answer(request: &Request<Incoming>, answers: &Answers) -> Response<Full<Bytes>> {
    let Answers { shared, gpus, names } = answers;
    if !is_meant(request.headers(), names) {
        let refusal =
            "this name is none of this machine's: ask by its address, or name it in [run] metrics_hosts\n";
        return response(StatusCode::MISDIRECTED_REQUEST, TEXT, refusal.into());
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".into());
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    // The GPUs are asked before the run is locked: a driver that hangs must not hold it up.
    match request.uri().path() {
        "/" => {
            let loads = gpus.loads();
            response(StatusCode::OK, HTML, page::page(&shared.lock(), &loads))
        }
        "/metrics" => {
            let loads = gpus.loads();
            let watched = shared.lock();
            match watched.figures.text(&watched.progress, &loads) {
                Ok(text) => response(StatusCode::OK, OPEN_METRICS, text),
                Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
            }
        }
        _ => response(StatusCode::NOT_FOUND, TEXT, "here are / and /metrics\n".into()),
    }
}

fn response(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_numbers_are_no_names() {
        let names = ["node7".to_owned(), "metrics.example".to_owned()];
        let meant = |hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(HOST, HeaderValue::from_str(host).unwrap());
            }
            is_meant(&headers, &names)
        };
        for good in [
            "127.0.0.1:9100",
            "10.0.0.7",
            "[::1]:9100",
            "[fe80::1]",
            "localhost:9100",
            "NODE7:9100",
            "metrics.example",
        ] {
            assert!(meant(&[good]), "{good}");
        }
        for bad in [
            "evil.example:9100",
            "",
            "node7.evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::1",
        ] {
            assert!(!meant(&[bad]), "{bad}");
        }
        assert!(!meant(&["localhost", "evil.example"]));
        // No browser leaves it out.
        assert!(meant(&[]));
    }
}
