//! The network configuration, which is a file: a ConfigMap that the kubelet mounts.
//!
//! It is looked at now and then. The kubelet takes up to a minute itself, and notices (inotify) would have to follow its
//! swap of the directory behind a link, on nodes where the kernel often has none left to give.

use std::path::PathBuf;
use std::time::Duration;

use flannel_types::NetConf;
use net_types::sentence;
use tokio::sync::watch as channel;
use tracing::warn;

use super::unreachable;
use crate::error::StoreError;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Reads the file.
pub(super) async fn read(path: PathBuf) -> Result<NetConf, StoreError> {
    let place = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || statefile::read_text(&path)).await;
    let text = match read {
        Ok(Ok(Some(text))) => text,
        Ok(Ok(None)) => return Err(StoreError::ConfigMissing { place }),
        Ok(Err(err)) => {
            let source = err.into();
            return Err(StoreError::Unusable { place, source });
        }
        Err(err) => return Err(unreachable(place, err)),
    };
    NetConf::parse(&text).map_err(|source| StoreError::BadConfig { place, source })
}

/// Tells of each good configuration that the file comes to hold, until it is cancelled, as it may be at any time. While
/// it holds none the one that was told last counts, as in etcd.
pub(super) async fn follow(path: PathBuf, told: channel::Sender<NetConf>) {
    let mut problem = None;
    loop {
        match read(path.clone()).await {
            Ok(conf) => {
                problem = None;
                told.send_if_modified(|told| {
                    let is_new = *told != conf;
                    *told = conf;
                    is_new
                });
            }
            Err(err) => {
                let text = sentence(&err);
                if problem.as_ref() != Some(&text) {
                    warn!("{text}; the last good configuration counts");
                }
                problem = Some(text);
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
