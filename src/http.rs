//! `/metrics`, `/healthz`, `/readyz` and `/status`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::health::Health;
use crate::metrics::Metrics;

/// Connections served at a time; more wait in the kernel.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send its request's head.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// What the pages are made from.
#[derive(Clone, Debug)]
pub struct Pages {
    /// The state.
    pub health: Arc<Health>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// Binds the address.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, pages: Pages) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: not worth a busy loop.
                tracing::warn!("http: cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = pages.respond(&request);
                async { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_MAX)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!("http: {error}");
            }
            drop(place);
        });
    }
}

impl Pages {
    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
        }
        let (state, now) = (self.health.state(), Instant::now());
        match request.uri().path() {
            "/metrics" => match self.metrics.render(&state, now) {
                Ok(text) => page(StatusCode::OK, METRICS, text),
                Err(error) => page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
            },
            "/readyz" => verdict(state.ready(now)),
            "/healthz" => verdict(state.healthy(now)),
            "/status" => page(StatusCode::OK, JSON, format!("{:#}\n", state.to_json(now))),
            _ => {
                let there = "there are /metrics, /healthz, /readyz and /status\n".to_owned();
                page(StatusCode::NOT_FOUND, TEXT, there)
            }
        }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const METRICS: &str = prometheus::TEXT_FORMAT;

fn verdict(verdict: Result<(), String>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
        Err(reason) => page(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
    }
}

fn page(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
