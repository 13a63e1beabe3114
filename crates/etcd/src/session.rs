use std::path::Path;
use std::time::Duration;
use std::{fs, io};

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{self, Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use crate::error::{Error, Refusal};
use crate::messages::{AuthenticateRequest, AuthenticateResponse};
use crate::options::{Credentials, Endpoint, Options, TlsFiles};

/// A member that does not answer within this is left.
pub(crate) const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// A member that cannot be connected to within this is left.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How often a connection with a watch on it is asked for a sign of life. etcd ends connections that ask more often
/// than every 5 s (etcd `embed/config.go`, `DefaultGRPCKeepAliveMinTime`).
const SIGN_OF_LIFE_INTERVAL: Duration = Duration::from_secs(10);
/// A connection that gives no sign of life within this is broken.
const SIGN_OF_LIFE_LIMIT: Duration = Duration::from_secs(5);
/// The largest answer. Ranges are read in pages, watches come in fragments; a transaction's bound is etcd's own.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Where distributions keep the certificate authorities that the system trusts (Go `crypto/x509/root_linux.go`).
const SYSTEM_AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A connection to one member, with a token where the cluster wants one.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) endpoint: String,
    /// Tells one connection from another.
    pub(crate) number: u64,
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

impl Session {
    /// Connects to a member and logs in.
    pub(crate) async fn open(options: &Options, endpoint: &Endpoint, number: u64) -> Result<Self, Error> {
        let name = endpoint.to_string();
        let mut transport = transport::Endpoint::from(endpoint.uri())
            .connect_timeout(CONNECT_LIMIT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(SIGN_OF_LIFE_INTERVAL)
            .keep_alive_timeout(SIGN_OF_LIFE_LIMIT);
        if endpoint.is_tls() {
            let tls = tls_config(&options.tls)?;
            transport = transport.tls_config(tls).map_err(|source| Error::TlsContent {
                endpoint: name.clone(),
                source,
            })?;
        }
        // The limit of the transport does not cover the TLS handshake.
        let channel = tokio::time::timeout(REQUEST_LIMIT, transport.connect()).await;
        let timed_out = || Error::TimedOut {
            endpoint: name.clone(),
        };
        let channel = channel
            .map_err(|_| timed_out())?
            .map_err(|err| Error::connect(&name, err))?;
        let mut session = Self {
            endpoint: name,
            number,
            channel,
            token: None,
        };
        if let Some(credentials) = &options.credentials {
            session.token = session.log_in(credentials).await?;
        }
        Ok(session)
    }

    /// Gets a token; `None` from a cluster that does not ask who one is.
    async fn log_in(&self, credentials: &Credentials) -> Result<Option<MetadataValue<Ascii>>, Error> {
        let request = AuthenticateRequest {
            name: credentials.user.clone(),
            password: credentials.password.clone(),
        };
        let answer: AuthenticateResponse = match self.unary("/etcdserverpb.Auth/Authenticate", request).await
        {
            Err(err) if err.refusal() == Some(Refusal::AuthOff) => return Ok(None),
            answer => answer?,
        };
        let token = MetadataValue::try_from(answer.token).map_err(|_| Error::Unavailable {
            endpoint: self.endpoint.clone(),
            why: "its token has characters that no header can carry".to_owned(),
        })?;
        Ok(Some(token))
    }

    /// Asks and waits for the answer.
    pub(crate) async fn unary<Q, A>(&self, path: &'static str, message: Q) -> Result<A, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.grpc().await?;
            let request = self.request(message);
            let answer = grpc
                .unary(request, PathAndQuery::from_static(path), ProstCodec::default())
                .await;
            answer.map_err(|status| Error::status(&self.endpoint, &status))
        };
        Ok(self.within_limit(call).await?.into_inner())
    }

    /// Opens a stream of requests and answers; the first answer is waited for no longer than for any other request.
    pub(crate) async fn stream<Q, A>(
        &self,
        path: &'static str,
        messages: impl tokio_stream::Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Error>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let call = async {
            let mut grpc = self.grpc().await?;
            let request = self.request(messages);
            let answer = grpc
                .streaming(request, PathAndQuery::from_static(path), ProstCodec::default())
                .await;
            answer.map_err(|status| Error::status(&self.endpoint, &status))
        };
        Ok(self.within_limit(call).await?.into_inner())
    }

    /// Waits no longer than the limit of a request.
    pub(crate) async fn within_limit<T>(
        &self,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let limited = tokio::time::timeout(REQUEST_LIMIT, call).await;
        limited.unwrap_or_else(|_| {
            Err(Error::TimedOut {
                endpoint: self.endpoint.clone(),
            })
        })
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Error> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        let ready = grpc.ready().await;
        ready.map_err(|err| Error::connect(&self.endpoint, err))?;
        Ok(grpc)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // A member that sees no leader refuses at once, and ends watches (etcd `api/v3rpc/rpctypes/metadatafields.go`).
        let metadata = request.metadata_mut();
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            metadata.insert("token", token.clone());
        }
        request
    }
}

fn tls_config(files: &TlsFiles) -> Result<ClientTlsConfig, Error> {
    let authorities = match &files.ca {
        Some(path) => read(path)?,
        None => system_authorities()?,
    };
    let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authorities));
    Ok(match &files.client {
        Some((certificate, key)) => config.identity(Identity::from_pem(read(certificate)?, read(key)?)),
        None => config,
    })
}

fn system_authorities() -> Result<Vec<u8>, Error> {
    let [usual, others @ ..] = SYSTEM_AUTHORITIES;
    let found = read(Path::new(usual));
    others.iter().fold(found, |found, path| {
        found.or_else(|err| read(Path::new(path)).map_err(|_| err))
    })
}

/// Reads a file that must hold something in PEM form.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let no_pem = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it holds no certificate or key in PEM form",
        )
    };
    let content = fs::read(path).and_then(|content| {
        let is_pem = content.windows(PEM_BEGIN.len()).any(|window| window == PEM_BEGIN);
        is_pem.then_some(content).ok_or_else(no_pem)
    });
    content.map_err(|source| Error::TlsFile {
        path: path.to_owned(),
        source,
    })
}

const PEM_BEGIN: &[u8] = b"-----BEGIN ";
