use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tonic::transport::Uri;

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its members, in the order in which they are tried.
    pub endpoints: Vec<Endpoint>,
    /// Files for TLS; the system's certificate authorities count where none is given.
    pub tls: TlsFiles,
    /// Who asks, if the cluster wants to know.
    pub credentials: Option<Credentials>,
}

/// One member's address: `http://` or `https://`, a host and a port.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// A text that is no endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no etcd endpoint: it must be of the form http://HOST:PORT or https://HOST:PORT")]
pub struct EndpointError(String);

/// Files for TLS in PEM form. They are read at every connection, so that renewed ones count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate authorities that may vouch for members.
    pub ca: Option<PathBuf>,
    /// The certificate and the key that vouch for this client.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// A user's name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub user: String,
    /// The password, which is never printed.
    pub password: String,
}

impl Endpoint {
    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    pub(crate) fn uri(&self) -> Uri {
        self.0.clone()
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || EndpointError(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let known_scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let only_an_address = uri.path() == "/" && uri.query().is_none();
        // A user's name in the address would be printed with it.
        let no_user = uri
            .authority()
            .is_some_and(|authority| !authority.as_str().contains('@'));
        let usable = known_scheme && only_an_address && no_user && uri.port_u16().is_some();
        usable.then(|| Self(uri)).ok_or_else(bad)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.trim_end_matches('/'))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, …)", self.user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port() {
        for (text, shown) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            (
                "https://etcd-1.example.org:2379/",
                "https://etcd-1.example.org:2379",
            ),
            ("http://[fd00::1]:2379", "http://[fd00::1]:2379"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "127.0.0.1:2379",
            "127.0.0.1",
            "http://127.0.0.1",
            "unix:///run/etcd.sock",
            "http://user:secret@127.0.0.1:2379",
            "http://127.0.0.1:2379/v3",
            "ftp://127.0.0.1:2379",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let credentials = Credentials {
            user: "root".to_owned(),
            password: "geheim".to_owned(),
        };
        assert!(!format!("{credentials:?}").contains("geheim"));
    }
}
