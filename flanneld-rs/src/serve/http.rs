//! `/healthz`, `/readyz` (flannel `main.go`) and `/metrics`.

use std::convert::Infallible;
use std::net::SocketAddr;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tracing::warn;

use super::{ACCEPT_PAUSE, Asker, Connections};
use crate::metrics;

/// Request line and headers in bytes; probes and Prometheus send a few hundred.
const MAX_HEAD_BYTES: usize = 8192;
const MAX_HEADERS: usize = 32;

const TEXT: &str = "text/plain; charset=utf-8";

pub(super) async fn listen(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Serves until it is dropped.
pub(super) async fn serve(listener: TcpListener, asker: Asker) {
    let mut connections = Connections::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(err) => {
                warn!(%err, "cannot take a connection for health");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let asker = asker.clone();
        connections.add(async move {
            let service = service_fn(move |request| {
                let asker = asker.clone();
                async move { Ok::<_, Infallible>(answer(&request, &asker).await) }
            });
            let mut server = http1::Builder::new();
            server
                .keep_alive(false)
                .max_buf_size(MAX_HEAD_BYTES)
                .max_headers(MAX_HEADERS);
            // What a client sends wrongly is answered or dropped by the library.
            let _bad_client = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(request: &Request<Incoming>, asker: &Asker) -> Response<String> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "flanneld is running"),
        "/readyz" => match asker.status().await {
            Some(status) if status.node.ready => text(StatusCode::OK, "flanneld is ready"),
            Some(_) | None => text(StatusCode::SERVICE_UNAVAILABLE, "flanneld is not ready yet"),
        },
        "/metrics" => match asker.status().await {
            Some(status) => of_type(StatusCode::OK, metrics::CONTENT_TYPE, metrics::render(&status)),
            None => text(StatusCode::SERVICE_UNAVAILABLE, "flanneld is ending\n"),
        },
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

fn text(status: StatusCode, body: &str) -> Response<String> {
    of_type(status, TEXT, body.to_owned())
}

fn of_type(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
