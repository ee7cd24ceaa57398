//! The HTTP side: two pages to read, and nothing else.

use super::{Shared, page};
use crate::model::Gpus;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// Connections at once; more wait.
const MOST_CONNECTIONS: usize = 32;
/// How long one may take in all: whoever leaves it open must not keep others out.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause after a connection could not be accepted, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(200);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Takes the address, and answers on a thread until the process ends. Returns the address, with the port that was taken
/// for port 0.
pub fn start(address: SocketAddr, shared: Shared, gpus: Gpus) -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let taken = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("metrics".into())
        .spawn(move || runtime.block_on(serve(listener, shared, gpus.into())))?;
    Ok(taken)
}

async fn serve(listener: std::net::TcpListener, shared: Shared, gpus: Arc<Gpus>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let (shared, gpus) = (shared.clone(), gpus.clone());
        tokio::spawn(async move {
            let respond = service_fn(move |request| {
                let answer = answer(&request, &shared, &gpus);
                async { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), respond);
            // Whoever goes away in the middle has what they wanted.
            let _ = timeout(PATIENCE, connection).await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, shared: &Shared, gpus: &Gpus) -> Response<Full<Bytes>> {
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
