//! The objects of a run that are in no namespace: they are made one at a time, and removed whatever ends the run.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use tokio::sync::Mutex;

use super::api::{Api, is_forbidden};
use super::patience::repeat;

/// How often an object is looked for while it ends.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one may take to be gone.
const LIMIT: Duration = Duration::from_secs(120);

/// What a run makes one of; they are removed in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Node,
    /// With all that is in it.
    Namespace,
}

impl Kind {
    fn list(self) -> &'static str {
        match self {
            Self::Node => "/api/v1/nodes",
            Self::Namespace => "/api/v1/namespaces",
        }
    }
}

/// What a run has made, all of one name.
pub(super) struct Made {
    name: String,
    /// `None` once the run ends; held while an object is being made.
    kinds: Mutex<Option<BTreeSet<Kind>>>,
}

impl Made {
    /// Nothing yet.
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            kinds: Mutex::new(Some(BTreeSet::new())),
        }
    }

    /// The name of all objects.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn path(&self, kind: Kind) -> String {
        format!("{}/{}", kind.list(), self.name)
    }

    /// Makes an object of this name.
    ///
    /// # Errors
    /// Fails when the server does not answer, or refuses, and when the run is about to end.
    pub(super) async fn make(&self, api: &Api, kind: Kind, object: &Value) -> Result<()> {
        let mut kinds = self.kinds.lock().await;
        let kinds = kinds.as_mut().context("the run is about to end")?;
        // Before it is known, because an answer may be lost.
        kinds.insert(kind);
        let made = api.create(kind.list(), object).await;
        if made.as_ref().is_err_and(is_forbidden) {
            kinds.remove(&kind);
        }
        made
    }

    /// Whether the server would let an object be deleted; there is none yet.
    ///
    /// # Errors
    /// Fails when the server does not answer, or refuses.
    pub(super) async fn may_be_removed(&self, api: &Api, kind: Kind) -> Result<()> {
        api.delete(&self.path(kind)).await
    }

    /// Removes an object, and waits until it is gone; there may be none.
    ///
    /// # Errors
    /// Fails when the server does not answer, or refuses, and when it is still there after two minutes.
    pub(super) async fn remove(&self, api: &Api, kind: Kind) -> Result<()> {
        let path = self.path(kind);
        let mut is_asked = false;
        let gone = repeat(LIMIT, PAUSE, async || {
            if !is_asked {
                api.delete(&path).await?;
                is_asked = true;
            }
            Ok(api.find(&path).await?.is_none())
        });
        if !gone.await.with_context(|| self.way_out())? {
            let secs = LIMIT.as_secs();
            return Err(anyhow!("{path} is still there after {secs} s")).with_context(|| self.way_out());
        }
        if let Some(kinds) = self.kinds.lock().await.as_mut() {
            kinds.remove(&kind);
        }
        Ok(())
    }

    /// Removes all that was made; nothing is made any more.
    ///
    /// # Errors
    /// Fails with the first object that could not be removed, after all were tried.
    pub(super) async fn remove_all(&self, api: &Api) -> Result<()> {
        let kinds = self.kinds.lock().await.take().unwrap_or_default();
        let mut removed = Ok(());
        for kind in kinds {
            removed = removed.and(self.remove(api, kind).await);
        }
        removed
    }

    /// What is to be done where something was not removed.
    pub(super) fn way_out(&self) -> String {
        let name = &self.name;
        format!(
            "the Node or the namespace {name} may be left: kubectl delete --ignore-not-found node/{name} namespace/{name}"
        )
    }
}
