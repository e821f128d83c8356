//! Clients that show certificates: made by authorities of the tests' own, and shown over TLS.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use super::{
    api::Api,
    packet::{self, Connect, Packet},
    wait::SOON,
};

pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;
pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A subject that has a common name alone.
pub(crate) fn common(name: &str) -> DistinguishedName {
    named(&[(DnType::CommonName, name)])
}

/// A subject that has these parts, in their order.
pub(crate) fn named(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    parts.iter().for_each(|(kind, value)| name.push(kind.clone(), *value));
    name
}

fn params(name: DistinguishedName) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = name;
    params
}

fn issuing(name: DistinguishedName) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn authority(name: DistinguishedName) -> Issuer {
    CertifiedIssuer::self_signed(issuing(name), KeyPair::generate().unwrap()).unwrap()
}

/// An authority that another one has issued.
pub(crate) fn between(by: &Issuer, name: DistinguishedName) -> Issuer {
    CertifiedIssuer::signed_by(issuing(name), KeyPair::generate().unwrap(), by).unwrap()
}

/// What a client shows: certificates, its own first, and its key.
pub(crate) struct Shown {
    chain: Vec<CertificateDer<'static>>,
    /// Its own.
    pub(crate) pem: String,
    key: Vec<u8>,
}

impl Shown {
    pub(crate) fn issued(by: &Issuer, name: DistinguishedName) -> Self {
        let mut params = params(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        Self::of(&params.signed_by(&key, by).unwrap(), &key)
    }

    pub(crate) fn self_signed(name: DistinguishedName) -> Self {
        let key = KeyPair::generate().unwrap();
        Self::of(&params(name).self_signed(&key).unwrap(), &key)
    }

    fn of(made: &rcgen::Certificate, key: &KeyPair) -> Self {
        Self { chain: vec![made.der().clone()], pem: made.pem(), key: key.serialize_der() }
    }

    /// With its authority's certificate behind its own.
    pub(crate) fn with(mut self, authority: &Issuer) -> Self {
        self.chain.push(authority.der().clone());
        self
    }

    /// Without what is behind its own.
    pub(crate) fn alone(mut self) -> Self {
        self.chain.truncate(1);
        self
    }

    /// A connection to a node by TLS.
    #[track_caller]
    fn tls(&self, api: &Api, node: u64) -> Stream {
        let mut roots = RootCertStore::empty();
        let ca = api.cluster.node(node).data.join("tls/ca.pem");
        for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(self.chain.clone(), key)
            .unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(api.at(node, "mqtts")).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        StreamOwned::new(connection, socket)
    }

    /// A connection over which a CONNECT was said, and the reason of its CONNACK.
    #[track_caller]
    pub(crate) fn connect(&self, api: &Api, node: u64, connect: &Connect) -> (Stream, u8) {
        let mut stream = self.tls(api, node);
        stream.write_all(&packet::connect(connect)).unwrap();
        let mut input = Vec::new();
        loop {
            if let Some(packet) = packet::take(connect.version, &mut input) {
                let Packet::ConnAck { reason, .. } = packet else { panic!("{packet:?}") };
                return (stream, reason);
            }
            let mut some = [0; 1_024];
            let read = stream.read(&mut some).unwrap();
            assert!(read > 0, "closed without an answer");
            input.extend_from_slice(&some[..read]);
        }
    }
}
