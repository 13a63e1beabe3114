use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio_stream::StreamExt;

use crate::error::{Error, Refusal};
use crate::messages::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, RangeRequest, RangeResponse,
    TxnRequest, TxnResponse, WatchCreateRequest,
};
use crate::options::Options;
use crate::session::Session;
use crate::watch::{self, WatchStream};

/// A client of one cluster. It connects when it is first asked, and again when it must.
pub struct Client {
    options: Options,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The endpoint to connect to next.
    turn: usize,
    session: Option<Session>,
    sessions: u64,
}

/// Whether a session was there before it was asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Age {
    Old,
    New,
}

/// Which member is asked next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Same,
    Other,
}

impl Client {
    /// A client that has yet to connect.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            state: Mutex::default(),
        }
    }

    /// Reads keys; a transaction's other half, [`Self::txn`], reads several ranges as of one revision.
    ///
    /// # Errors
    /// No member answers, or the one that does refuses.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Error> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    /// Carries out a transaction. One that timed out may have been carried out all the same, and is repeated: its
    /// conditions must make that harmless.
    ///
    /// # Errors
    /// No member answers, or the one that does refuses.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Error> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    /// Makes an etcd lease of this number and returns its life. One that exists is taken for one whose making timed
    /// out: the number must be random.
    ///
    /// # Errors
    /// No member answers, or the one that does refuses.
    pub async fn grant(&self, id: i64, ttl: Duration) -> Result<Duration, Error> {
        let secs = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let request = LeaseGrantRequest { ttl: secs, id };
        let granted: Result<LeaseGrantResponse, _> =
            self.call("/etcdserverpb.Lease/LeaseGrant", request).await;
        match granted {
            Err(err) if err.refusal() == Some(Refusal::Exists) => Ok(ttl),
            answer => Ok(Duration::from_secs(answer?.ttl.unsigned_abs())),
        }
    }

    /// Ends an etcd lease, which deletes its keys. One that is gone is no error.
    ///
    /// # Errors
    /// No member answers, or the one that does refuses.
    pub async fn revoke(&self, id: i64) -> Result<(), Error> {
        let request = LeaseRevokeRequest { id };
        let revoked: Result<LeaseRevokeResponse, _> =
            self.call("/etcdserverpb.Lease/LeaseRevoke", request).await;
        match revoked {
            Err(err) if err.refusal() == Some(Refusal::NotFound) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// The keys that end with an etcd lease.
    ///
    /// # Errors
    /// No member answers, or the one that does refuses.
    pub async fn lease_keys(&self, id: i64) -> Result<Vec<Vec<u8>>, Error> {
        let request = LeaseTimeToLiveRequest { id, keys: true };
        let answer: LeaseTimeToLiveResponse =
            self.call("/etcdserverpb.Lease/LeaseTimeToLive", request).await?;
        Ok(answer.keys)
    }

    /// Lets an etcd lease's life begin anew, and returns it; `None` if there is no such lease.
    ///
    /// # Errors
    /// No member answers, or the one that does refuses.
    pub async fn keep_alive(&self, id: i64) -> Result<Option<Duration>, Error> {
        let answer = self
            .with_session(|session| async move {
                let requests = tokio_stream::once(LeaseKeepAliveRequest { id });
                let mut answers = session
                    .stream::<_, LeaseKeepAliveResponse>("/etcdserverpb.Lease/LeaseKeepAlive", requests)
                    .await?;
                let answer = async { Ok(answers.next().await) };
                watch::answer(&session.endpoint, session.within_limit(answer).await?)
            })
            .await?;
        let secs = u64::try_from(answer.ttl).ok().filter(|secs| *secs > 0);
        Ok(secs.map(Duration::from_secs))
    }

    /// Opens a stream of changes.
    ///
    /// # Errors
    /// No member answers, or the one that does refuses. A revision that has been compacted shows in the stream.
    pub async fn watch(&self, requests: Vec<WatchCreateRequest>) -> Result<WatchStream, Error> {
        self.with_session(|session| {
            let requests = requests.clone();
            async move { WatchStream::open(&session, requests).await }
        })
        .await
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.with_session(|session| {
            let request = request.clone();
            async move { session.unary(path, request).await }
        })
        .await
    }

    /// Does something with a member, and with the next one where the first cannot do it; each has its turn once, and
    /// one more is tried if the first connection was from before.
    async fn with_session<T, F>(&self, act: impl Fn(Session) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut chances = self.options.endpoints.len();
        let mut token_renewed = false;
        loop {
            let err = match self.session().await {
                Ok((session, age)) => match act(session.clone()).await {
                    Ok(done) => return Ok(done),
                    Err(err) if err.refusal() == Some(Refusal::Token) && !token_renewed => {
                        token_renewed = true;
                        self.leave(session.number, Next::Same);
                        continue;
                    }
                    Err(err) => {
                        if err.concerns_member() {
                            self.leave(session.number, Next::Other);
                        }
                        chances += usize::from(age == Age::Old);
                        err
                    }
                },
                Err(err) => err,
            };
            chances = chances.saturating_sub(1);
            if chances == 0 || !err.concerns_member() {
                return Err(err);
            }
        }
    }

    /// The connection that is there, or else a new one to the member whose turn it is.
    async fn session(&self) -> Result<(Session, Age), Error> {
        let (turn, number) = {
            let mut state = self.lock();
            if let Some(session) = &state.session {
                return Ok((session.clone(), Age::Old));
            }
            state.sessions += 1;
            (state.turn, state.sessions)
        };
        let endpoint = self.options.endpoints.get(turn).ok_or(Error::NoEndpoint)?;
        let opened = Session::open(&self.options, endpoint, number).await;
        let mut state = self.lock();
        match opened {
            Ok(session) => {
                state.session = Some(session.clone());
                Ok((session, Age::New))
            }
            Err(err) => {
                if state.turn == turn {
                    state.turn = self.after(turn);
                }
                Err(err)
            }
        }
    }

    /// Uses a connection no more.
    fn leave(&self, number: u64, next: Next) {
        let mut state = self.lock();
        if state
            .session
            .as_ref()
            .is_some_and(|session| session.number == number)
        {
            state.session = None;
            if next == Next::Other {
                state.turn = self.after(state.turn);
            }
        }
    }

    fn after(&self, turn: usize) -> usize {
        (turn + 1).checked_rem(self.options.endpoints.len()).unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change leaves the state half done, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.options)
    }
}
