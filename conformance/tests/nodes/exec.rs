//! The kubelet's `exec`: a command's input and output over a WebSocket, by the subprotocol `v5.channel.k8s.io` (Kubernetes
//! `k8s.io/apimachinery/pkg/util/remotecommand/constants.go`).

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use crate::kubelet::{Container, Containers};

const PROTOCOL: &str = "v5.channel.k8s.io";
/// The channels: input, output, errors, the status at the end; and that one of them is closed.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const CLOSE: u8 = 255;

const PAUSE: Duration = Duration::from_millis(10);

/// Serves on all listeners until the end is told.
pub(crate) fn serve(listeners: Vec<TcpListener>, containers: &Containers, ended: &AtomicBool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for listener in listeners {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let containers = containers.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve_one(stream, containers.clone()));
                }
            });
        }
        while !ended.load(Ordering::Relaxed) {
            sleep(PAUSE).await;
        }
    });
}

async fn serve_one(stream: TcpStream, containers: Containers) {
    let mut asked = String::new();
    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    let look = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        asked = request.uri().to_string();
        let offers = request.headers().get("sec-websocket-protocol");
        let offers = offers.and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert!(offers.split(',').any(|one| one.trim() == PROTOCOL), "{offers}");
        let chosen = HeaderValue::from_static(PROTOCOL);
        response.headers_mut().insert("sec-websocket-protocol", chosen);
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, look).await else {
        return;
    };
    let (path, query) = asked.split_once('?').unwrap();
    let key = path.strip_prefix("/exec/").unwrap().rsplit_once('/').unwrap().0;
    let commands = query.split('&').filter_map(|pair| pair.strip_prefix("command="));
    let argv: Vec<_> = commands.map(unescaped).collect();
    let container = containers.get(key);
    let status = match container.and_then(|container| start(&container, &argv).ok()) {
        Some(child) => relay(&mut socket, child).await,
        None => json!({"status": "Failure", "message": "the container does not run"}),
    };
    // The client may be gone.
    let last = frame(STATUS, status.to_string().as_bytes());
    socket.send(last).await.ok();
    socket.close(None).await.ok();
}

/// Carries what is said to a command and back until it ends; returns how it did.
async fn relay(socket: &mut WebSocketStream<TcpStream>, mut child: Child) -> Value {
    let mut stdin = Some(Sender::from_owned_fd(child.stdin.take().unwrap().into()).unwrap());
    let stdout = Receiver::from_owned_fd(child.stdout.take().unwrap().into()).unwrap();
    let stderr = Receiver::from_owned_fd(child.stderr.take().unwrap().into()).unwrap();
    let (tell, mut told) = mpsc::channel(16);
    tokio::spawn(pump(STDOUT, stdout, tell.clone()));
    tokio::spawn(pump(STDERR, stderr, tell));
    let mut is_there = true;
    loop {
        tokio::select! {
            message = socket.next(), if is_there => match message {
                Some(Ok(Message::Binary(bytes))) => match (bytes[0], &mut stdin) {
                    (STDIN, Some(pipe)) => drop(pipe.write_all(&bytes[1..]).await),
                    (CLOSE, _) => stdin = None,
                    _ => {}
                },
                Some(Ok(_)) => {}
                // A client that is gone is the end of the input.
                Some(Err(_)) | None => (is_there, stdin) = (false, None),
            },
            said = told.recv() => match said {
                Some(said) => drop(socket.send(said).await),
                None => break,
            },
        }
    }
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => sleep(PAUSE).await,
        }
    };
    if status.success() {
        json!({"metadata": {}, "status": "Success"})
    } else {
        let message = format!("command terminated: {status}");
        json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": message})
    }
}

fn start(container: &Container, argv: &[String]) -> anyhow::Result<Child> {
    let under = container.under.iter().map(|&word| word.to_owned());
    let words: Vec<_> = under.chain(argv.iter().cloned()).collect();
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    container.namespaces.spawn(command)
}

async fn pump(channel: u8, mut pipe: Receiver, tell: mpsc::Sender<Message>) {
    let mut buffer = vec![0; 1 << 15];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        if tell.send(frame(channel, &buffer[..length])).await.is_err() {
            return;
        }
    }
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    Message::binary([&[channel], bytes].concat())
}

/// A value of a query as it was (WHATWG URL, `application/x-www-form-urlencoded`).
fn unescaped(text: &str) -> String {
    let text = text.replace('+', " ");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        let (code, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(code, 16).unwrap());
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).unwrap()
}
