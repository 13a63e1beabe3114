//! Tells systemd how the daemon stands (`sd_notify(3)`).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(1);

/// What systemd is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Pods can start.
    Ready,
    /// The daemon ends, by itself or because it was asked to.
    Stopping,
}

impl Notice {
    const fn text(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Stopping => "STOPPING=1",
        }
    }
}

/// Sends a notice if systemd waits for one. A failure is logged: systemd will say in its own words what it misses.
pub fn notify(notice: Notice) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(err) = send(&socket, notice) {
        tracing::warn!(%err, socket = %socket.display(), notice = notice.text(), "cannot notify systemd");
    }
}

fn send(socket: &OsStr, notice: Notice) -> io::Result<()> {
    let addr = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // A queue that is full for a moment is waited for, a reader that hangs is not.
    sender.set_write_timeout(Some(PATIENCE))?;
    sender.send_to_addr(notice.text().as_bytes(), &addr)?;
    Ok(())
}
