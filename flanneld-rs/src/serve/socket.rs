//! The status socket: one request line of JSON, then the status as one line and each peer as another.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tracing::{info, warn};

use super::{ACCEPT_PAUSE, Asker, Connections};
use crate::status::{PeerQuery, PeerStatus, shown};

/// Only the daemon's own user and root may connect.
const MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o755;
/// Connections that wait to be taken.
const BACKLOG: u32 = 128;
/// A request in bytes.
const MAX_REQUEST_BYTES: u64 = 4096;

/// Nobody but a person who asks misses the file.
const AUDIT_INTERVAL: Duration = Duration::from_secs(10);

/// The socket's file, removed with its owner if it is still this one.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// The number of the file that was made last.
    inode: Arc<AtomicU64>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode_of(&self.path) == Some(self.inode.load(Ordering::Relaxed)) {
            // It may go at this very moment; a stale one is replaced at the next start.
            let _gone = fs::remove_file(&self.path);
        }
    }
}

/// A socket that listens, and the means to make its file again.
#[derive(Debug)]
pub(super) struct Listening {
    /// `None` for as long as it could not be had.
    listener: Option<UnixListener>,
    path: PathBuf,
    inode: Arc<AtomicU64>,
    /// Why it was not to be had last.
    failure: Option<String>,
}

/// Begins to listen; where that fails, it is tried again while it is served. A socket that a killed daemon left is
/// replaced; one that answers is not.
pub(super) fn listen(path: &Path) -> (Listening, SocketFile) {
    let inode = Arc::new(AtomicU64::default());
    let file = SocketFile {
        path: path.to_owned(),
        inode: Arc::clone(&inode),
    };
    let mut listening = Listening {
        listener: None,
        path: path.to_owned(),
        inode,
        failure: None,
    };
    listening.audit();
    (listening, file)
}

impl Listening {
    /// Makes the file if there is none of ours: at the start, and after `rm -r /run/flannel`. A failure is told once.
    fn audit(&mut self) {
        let is_gone =
            || fs::symlink_metadata(&self.path).is_err_and(|err| err.kind() == io::ErrorKind::NotFound);
        if self.listener.is_some() && !is_gone() {
            return;
        }
        match listener(&self.path) {
            Ok(listener) => {
                let number = inode_of(&self.path).unwrap_or_default();
                self.inode.store(number, Ordering::Relaxed);
                let is_first = self.listener.replace(listener).is_none();
                if self.failure.take().is_some() || !is_first {
                    info!(path = %self.path.display(), "flanneld status works again");
                }
            }
            Err(err) => {
                let failure = Some(err.to_string());
                if self.failure != failure {
                    warn!(path = %self.path.display(), %err, "flanneld status does not work: no socket");
                }
                self.failure = failure;
            }
        }
    }

    async fn accept(&self) -> io::Result<UnixStream> {
        match &self.listener {
            Some(listener) => listener.accept().await.map(|(stream, _)| stream),
            None => std::future::pending().await,
        }
    }
}

fn inode_of(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}

fn listener(path: &Path) -> io::Result<UnixListener> {
    if StdStream::connect(path).is_ok() {
        let text = "another flanneld answers on it";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    if let Some(dir) = path.parent() {
        statefile::ensure_dir(dir, DIR_MODE).map_err(io::Error::other)?;
    }
    let hidden = hidden(path);
    // What a daemon left that was killed in between.
    let _absent = fs::remove_file(&hidden);
    place(&hidden, path).inspect_err(|_| {
        let _absent = fs::remove_file(&hidden);
    })
}

/// Where a socket is made ready.
fn hidden(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

/// Makes a socket under a hidden name and gives it its own. Nobody can connect before its mode is set, because it
/// listens only then.
fn place(hidden: &Path, path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(hidden)?;
    fs::set_permissions(hidden, Permissions::from_mode(MODE))?;
    let listener = socket.listen(BACKLOG)?;
    fs::rename(hidden, path)?;
    Ok(listener)
}

/// Serves until it is dropped.
pub(super) async fn serve(mut listening: Listening, asker: Asker) {
    let mut connections = Connections::default();
    let mut audit = tokio::time::interval(AUDIT_INTERVAL);
    loop {
        let accepted = tokio::select! {
            accepted = listening.accept() => accepted,
            _ = audit.tick() => {
                listening.audit();
                continue;
            }
        };
        match accepted {
            Ok(stream) => {
                let asker = asker.clone();
                connections.add(async move {
                    // Whoever asked may have gone.
                    let _gone = answer(stream, &asker).await;
                });
            }
            Err(err) => {
                warn!(%err, "cannot take a connection for the status");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, asker: &Asker) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut request = String::new();
    BufReader::new(reader.take(MAX_REQUEST_BYTES))
        .read_line(&mut request)
        .await?;
    let query: PeerQuery = serde_json::from_str(&request)?;
    let Some(status) = asker.status().await else {
        return Ok(());
    };
    let mut lines = serde_json::to_string(&status)?;
    lines.push('\n');
    writer.write_all(lines.as_bytes()).await?;
    let mut after = None;
    // Peers come page by page, so that neither the loop nor the memory has to hold them all.
    while let Some(page) = asker.peers(after).await {
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        lines.clear();
        for (_, peer) in page.iter().filter(|(_, peer)| matches(&query, peer)) {
            lines.push_str(&serde_json::to_string(peer)?);
            lines.push('\n');
        }
        writer.write_all(lines.as_bytes()).await?;
    }
    Ok(())
}

fn matches(query: &PeerQuery, peer: &PeerStatus) -> bool {
    let Some(wanted) = &query.peer else { return true };
    let device = peer.vtep_mac.iter().chain(&peer.public_key);
    let mut texts = device.chain([&peer.subnet]);
    texts.any(|text| text.contains(wanted)) || shown(peer.public_ip).contains(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_was_removed_with_its_directory_is_made_again_and_another_daemons_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flannel/flanneld.sock");
        let (mut listening, file) = listen(&path);
        listening.audit();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        listening.audit();
        StdStream::connect(&path).unwrap();
        assert!(listener(&path).is_err());
        // Somebody else's.
        fs::remove_file(&path).unwrap();
        let other = listener(&path).unwrap();
        listening.audit();
        drop(file);
        StdStream::connect(&path).unwrap();
        drop(other);
    }

    #[tokio::test]
    async fn a_socket_that_could_not_be_had_at_the_start_is_made_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flannel/flanneld.sock");
        fs::write(path.parent().unwrap(), "").unwrap();
        let (mut listening, file) = listen(&path);
        assert!(listening.listener.is_none() && listening.failure.is_some());
        fs::remove_file(path.parent().unwrap()).unwrap();
        listening.audit();
        StdStream::connect(&path).unwrap();
        assert_eq!(listening.failure, None);
        // The daemon before has not ended yet.
        let (mut late, late_file) = listen(&path);
        assert!(
            late.failure
                .as_ref()
                .is_some_and(|text| text.contains("another flanneld"))
        );
        drop((listening, file));
        late.audit();
        StdStream::connect(&path).unwrap();
        drop(late_file);
    }

    #[tokio::test]
    async fn a_socket_half_made_by_a_killed_daemon_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flanneld.sock");
        drop(std::os::unix::net::UnixListener::bind(hidden(&path)).unwrap());
        let (_listening, file) = listen(&path);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        StdStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(file);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
