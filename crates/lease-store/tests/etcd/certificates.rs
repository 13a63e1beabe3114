//! Certificates for a test, made on the spot.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A certificate authority, and where it puts what it makes.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { dir, issuer }
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("ca")
    }

    /// For a server of this name or address.
    pub fn server(&self, name: &str) -> Pair {
        // The JSON gateway of etcd is a client of its own.
        self.issue(
            name,
            &[
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        )
    }

    pub fn client(&self) -> Pair {
        self.issue("client", &[ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn issue(&self, name: &str, usages: &[ExtendedKeyUsagePurpose]) -> Pair {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.extended_key_usages = usages.to_vec();
        let key = KeyPair::generate().unwrap();
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair {
            certificate: self.write(&format!("{name}.crt"), &pem),
            key: self.write(&format!("{name}.key"), &key.serialize_pem()),
        }
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path: &Path = self.dir.path();
        fs::write(path.join(name), content).unwrap();
        path.join(name)
    }
}
