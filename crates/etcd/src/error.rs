use std::io;
use std::path::PathBuf;

use net_types::sentence;
use tonic::{Code, Status};

use crate::session::REQUEST_LIMIT;

/// Why etcd did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No endpoint is given.
    #[error("no etcd endpoint is given")]
    NoEndpoint,
    /// There is no connection.
    #[error("cannot connect to etcd at {endpoint}")]
    Connect {
        /// The member.
        endpoint: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The member shows a certificate that is not trusted.
    #[error(
        "the certificate of etcd at {endpoint} is not trusted ({why}): check the file of certificate authorities, and \
         that the certificate names the host as the endpoint does"
    )]
    Untrusted {
        /// The member.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// The member ends the TLS connection.
    #[error(
        "etcd at {endpoint} refuses the TLS connection ({why}): check the client certificate and its key"
    )]
    ClientCertificate {
        /// The member.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// A file with a certificate or key cannot be read.
    #[error("cannot read {}", path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("cannot use the certificates or the key for TLS with etcd at {endpoint}")]
    TlsContent {
        /// The member.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// No answer came in time.
    #[error("etcd at {endpoint} did not answer within {} s", REQUEST_LIMIT.as_secs())]
    TimedOut {
        /// The member.
        endpoint: String,
    },
    /// The connection broke, or the member cannot work, perhaps for want of a leader.
    #[error("etcd at {endpoint} cannot answer: {why}")]
    Unavailable {
        /// The member.
        endpoint: String,
        /// Its words.
        why: String,
    },
    /// The revision that was asked for has been compacted away.
    #[error("etcd at {endpoint} has compacted the revision")]
    Compacted {
        /// The member.
        endpoint: String,
    },
    /// The member answered that it won't.
    #[error("etcd at {endpoint} refuses{}: {why}", refusal.way_out())]
    Refused {
        /// The member.
        endpoint: String,
        /// What kind of refusal.
        refusal: Refusal,
        /// Its words.
        why: String,
    },
}

/// What a member refuses for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The user name or the password is wrong.
    Credentials,
    /// It demands a user name and a password, and none were given.
    NoCredentials,
    /// The user may not do this.
    Permission,
    /// The token has expired; the next connection gets a new one.
    Token,
    /// What should be made exists.
    Exists,
    /// What is named does not exist.
    NotFound,
    /// The cluster does not ask who one is.
    AuthOff,
    /// Anything else.
    Other,
}

impl Refusal {
    const fn way_out(self) -> &'static str {
        match self {
            Self::Credentials => " the user (check the user name and the password)",
            Self::NoCredentials => " a client without a user (give a user name and a password)",
            Self::Permission => {
                " the access (grant the user read and write permission on all keys of the prefix)"
            }
            Self::Token | Self::Exists | Self::NotFound | Self::AuthOff | Self::Other => "",
        }
    }
}

/// The member's words, and what they mean (etcd `api/v3rpc/rpctypes/error.go`).
const REFUSALS: [(&str, Refusal); 10] = [
    ("authentication failed", Refusal::Credentials),
    ("user name is empty", Refusal::NoCredentials),
    ("permission denied", Refusal::Permission),
    ("invalid auth token", Refusal::Token),
    ("revision of auth store is old", Refusal::Token),
    ("auth: revision in header is old", Refusal::Token),
    ("lease already exists", Refusal::Exists),
    ("requested lease not found", Refusal::NotFound),
    ("authentication is not enabled", Refusal::AuthOff),
    ("user name not found", Refusal::Credentials),
];

impl Error {
    /// Whether another member may do better.
    pub(crate) const fn concerns_member(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::ClientCertificate { .. }
            | Self::TimedOut { .. }
            | Self::Unavailable { .. } => true,
            Self::NoEndpoint
            | Self::TlsFile { .. }
            | Self::TlsContent { .. }
            | Self::Compacted { .. }
            | Self::Refused { .. } => false,
        }
    }

    /// Whether nothing changes until a person does something about the user, the certificates or the permissions.
    #[must_use]
    pub const fn is_denial(&self) -> bool {
        match self {
            Self::NoEndpoint | Self::TlsFile { .. } | Self::TlsContent { .. } => true,
            Self::Refused { refusal, .. } => matches!(
                refusal,
                Refusal::Credentials | Refusal::NoCredentials | Refusal::Permission
            ),
            Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::ClientCertificate { .. }
            | Self::TimedOut { .. }
            | Self::Unavailable { .. }
            | Self::Compacted { .. } => false,
        }
    }

    /// What the member refused for, if it did.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(*refusal),
            Self::NoEndpoint
            | Self::Connect { .. }
            | Self::Untrusted { .. }
            | Self::ClientCertificate { .. }
            | Self::TlsFile { .. }
            | Self::TlsContent { .. }
            | Self::TimedOut { .. }
            | Self::Unavailable { .. }
            | Self::Compacted { .. } => None,
        }
    }

    /// Tells what TLS itself refuses from other broken connections.
    pub(crate) fn connect(endpoint: &str, source: tonic::transport::Error) -> Self {
        let (endpoint, chain) = (endpoint.to_owned(), sentence(&source));
        tls_error(&endpoint, &chain).unwrap_or(Self::Connect {
            endpoint,
            source: source.into(),
        })
    }

    pub(crate) fn status(endpoint: &str, status: &Status) -> Self {
        let endpoint = endpoint.to_owned();
        let chain = sentence(status);
        if let Some(err) = tls_error(&endpoint, &chain) {
            return err;
        }
        let why = match status.message() {
            "" => chain,
            message => message.to_owned(),
        };
        match status.code() {
            Code::OutOfRange if why.contains("compacted") => Self::Compacted { endpoint },
            // What tonic itself reports has other words than etcd's.
            Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Aborted | Code::Internal => {
                Self::Unavailable { endpoint, why }
            }
            Code::Unknown if !why.contains("etcdserver") => Self::Unavailable { endpoint, why },
            Code::Ok
            | Code::Unknown
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::DataLoss
            | Code::Unauthenticated => Self::refused(endpoint, why),
        }
    }

    /// The error for a watch that the member ended, by its words.
    pub(crate) fn cancelled(endpoint: &str, why: &str) -> Self {
        let known = REFUSALS.iter().any(|(words, _)| why.contains(words));
        let (endpoint, why) = (endpoint.to_owned(), why.to_owned());
        if known {
            Self::refused(endpoint, why)
        } else {
            Self::Unavailable { endpoint, why }
        }
    }

    fn refused(endpoint: String, why: String) -> Self {
        let found = REFUSALS.iter().find(|(words, _)| why.contains(words));
        let refusal = found.map_or(Refusal::Other, |(_, refusal)| *refusal);
        Self::Refused {
            endpoint,
            refusal,
            why,
        }
    }
}

/// rustls' own words, which alone tell that it was TLS: what the connection reports wraps them several times.
fn tls_error(endpoint: &str, chain: &str) -> Option<Error> {
    let after = |words: &str| chain.split_once(words).map(|(_, rest)| rest.to_owned());
    if let Some(why) = after("invalid peer certificate: ") {
        let endpoint = endpoint.to_owned();
        return Some(Error::Untrusted { endpoint, why });
    }
    let why = after("received fatal alert: ")?;
    let endpoint = endpoint.to_owned();
    Some(Error::ClientCertificate { endpoint, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(code: Code, text: &str) -> Option<Refusal> {
        Error::status("http://127.0.0.1:2379", &Status::new(code, text)).refusal()
    }

    #[test]
    fn what_etcd_says_is_told_apart() {
        for (code, text, expected) in [
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Some(Refusal::Credentials),
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                Some(Refusal::NoCredentials),
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                Some(Refusal::Permission),
            ),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                Some(Refusal::Token),
            ),
            (
                Code::FailedPrecondition,
                "etcdserver: lease already exists",
                Some(Refusal::Exists),
            ),
            (
                Code::NotFound,
                "etcdserver: requested lease not found",
                Some(Refusal::NotFound),
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Some(Refusal::Other),
            ),
            (Code::Unavailable, "etcdserver: no leader", None),
            (Code::Unavailable, "etcdserver: request timed out", None),
            (
                Code::OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
                None,
            ),
        ] {
            assert_eq!(refusal(code, text), expected, "{text}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let status = Status::new(
            Code::InvalidArgument,
            "etcdserver: authentication failed, invalid user ID or password",
        );
        assert_eq!(
            Error::status("http://127.0.0.1:2379", &status).to_string(),
            "etcd at http://127.0.0.1:2379 refuses the user (check the user name and the password): etcdserver: \
             authentication failed, invalid user ID or password"
        );
    }
}
