use std::fmt;

use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use crate::error::Error;
use crate::messages::{WatchCreateRequest, WatchRequest, WatchRequestUnion, WatchResponse};
use crate::session::Session;

/// A stream of changes from one member. It ends with an error, and then must be opened anew.
pub struct WatchStream {
    endpoint: String,
    answers: Streaming<WatchResponse>,
}

impl WatchStream {
    pub(crate) async fn open(session: &Session, requests: Vec<WatchCreateRequest>) -> Result<Self, Error> {
        let requests = requests.into_iter().map(|create| WatchRequest {
            request_union: Some(WatchRequestUnion::Create(create)),
        });
        // The member ends the watches when the stream of requests ends.
        let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
        let answers = session.stream("/etcdserverpb.Watch/Watch", requests).await?;
        Ok(Self {
            endpoint: session.endpoint.clone(),
            answers,
        })
    }

    /// Waits for the next news. Cancel-safe: a dropped wait loses none.
    ///
    /// # Errors
    /// The member is gone, has lost its leader, or ended a watch: [`Error::Compacted`] where the revision to begin
    /// with is no longer there.
    pub async fn next(&mut self) -> Result<WatchResponse, Error> {
        let news = answer(&self.endpoint, self.answers.next().await)?;
        let endpoint = self.endpoint.clone();
        match news {
            WatchResponse {
                compact_revision: 1..,
                ..
            } => Err(Error::Compacted { endpoint }),
            WatchResponse { canceled: true, .. } => Err(Error::cancelled(&endpoint, &news.cancel_reason)),
            news => Ok(news),
        }
    }
}

/// The next item of a stream that has no end of its own.
pub(crate) fn answer<T>(endpoint: &str, item: Option<Result<T, Status>>) -> Result<T, Error> {
    match item {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(status)) => Err(Error::status(endpoint, &status)),
        None => Err(Error::Unavailable {
            endpoint: endpoint.to_owned(),
            why: "it ended the stream".to_owned(),
        }),
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WatchStream({})", self.endpoint)
    }
}
