//! A certificate made for one test, and a client that trusts it.

use std::{io, sync::Arc};

use moorline_edge::{Tls, TlsConfig};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

pub const BOTH: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

pub struct Certificate {
    dir: TempDir,
    certificate: CertificateDer<'static>,
}

impl Certificate {
    pub fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    fn in_dir(dir: TempDir) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
        Self { dir, certificate: cert.der().clone() }
    }

    /// Another one in the same files.
    pub fn renewed(self) -> Self {
        Self::in_dir(self.dir)
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What a client has that trusts this certificate and nothing else.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    pub fn config(&self) -> TlsConfig {
        let file = |name| self.dir.path().join(name);
        TlsConfig::of(file("cert.pem"), file("key.pem"))
    }

    pub fn tls(&self) -> Tls {
        self.config().load().unwrap()
    }

    /// A client of these versions that trusts this certificate and nothing else.
    pub async fn client(
        &self,
        stream: TcpStream,
        versions: &[&'static SupportedProtocolVersion],
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }
}
