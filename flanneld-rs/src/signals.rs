//! The signals that the daemon answers.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::cni_conf::EndSignal;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To end, and leave the kernel as it is.
    End(EndSignal),
    /// To look at everything again (SIGHUP). It must not end a daemon whose terminal closes; there is nothing to
    /// read anew: flags count for a whole run, and the network configuration is followed anyway.
    LookAgain,
}

/// Receives the signals.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Begins to receive; from here on none of them ends the program by itself.
    ///
    /// # Errors
    /// The host refuses.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Cancel-safe: each is taken in one step.
    pub async fn next(&mut self) -> Request {
        let signal = tokio::select! {
            _ = self.interrupt.recv() => EndSignal::Interrupt,
            _ = self.terminate.recv() => EndSignal::Terminate,
            _ = self.hangup.recv() => {
                info!("SIGHUP: looking at the kernel again; flags count until a restart");
                return Request::LookAgain;
            }
        };
        info!("Exiting cleanly...");
        Request::End(signal)
    }

    /// Waits for a signal that ends the daemon, while there is nothing yet to look at. Cancel-safe as [`Self::next`].
    pub async fn end(&mut self) -> EndSignal {
        loop {
            if let Request::End(signal) = self.next().await {
                return signal;
            }
        }
    }
}
