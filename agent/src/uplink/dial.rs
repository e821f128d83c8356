//! A socket to a node: TCP, with TLS around it unless told otherwise.
//!
//! # Invariants
//!
//! - **TLS 1.2 and 1.3, nothing older**, and a name or address that the certificate has. Checked by `tests/it/tls.rs`.
//! - **Every step has a deadline.** A node that swallows packets must not keep the device from the next one.

use std::{
    fs, io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    config::{NodeAddress, Security},
    failed::Failed,
};

/// How long a node may take to accept a connection: a few lost packets on a bad line.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long the handshake may take: the first on a small device is slow, and bad lines are too.
const TLS_DEADLINE: Duration = Duration::from_secs(10);
/// Where systems keep the authorities that they trust: Debian, Red Hat, Alpine.
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Makes sockets.
#[derive(Clone)]
pub(crate) struct Dial {
    tls: Option<TlsConnector>,
}

impl Dial {
    /// Reads the authorities, once.
    ///
    /// # Errors
    ///
    /// If there are none to trust.
    pub(crate) fn new(security: &Security) -> Result<Self, Failed> {
        let roots = match security {
            Security::Plaintext => return Ok(Self { tls: None }),
            Security::Tls { authorities: Some(path) } => authorities(path)?,
            Security::Tls { authorities: None } => system_authorities()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failed::new("tls_failed", error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Some(TlsConnector::from(Arc::new(config))) })
    }

    /// Connects to a node.
    pub(crate) async fn dial(&self, node: &NodeAddress) -> io::Result<Socket> {
        let connecting = TcpStream::connect((node.host.as_str(), node.port));
        let stream = within(CONNECT_DEADLINE, "it does not accept connections", connecting).await?;
        // Requests are small, and somebody waits for each.
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else { return Ok(Socket::Plain(stream)) };
        let name = ServerName::try_from(node.host.clone()).map_err(io::Error::other)?;
        let shaking = tls.connect(name, stream);
        let stream = within(TLS_DEADLINE, "the TLS handshake takes too long", shaking).await?;
        Ok(Socket::Tls(Box::new(stream)))
    }
}

async fn within<T>(
    deadline: Duration,
    what: &'static str,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, what);
    timeout(deadline, step).await.map_err(late)?
}

/// All certificates of a file: somebody chose it, so each has to be one.
fn authorities(path: &Path) -> Result<RootCertStore, Failed> {
    let failed = |why: String| {
        Failed::new("invalid_config", format!("MOORLINE_CA: {}: {why}", path.display()))
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| failed(error.to_string()))?;
    if certificates.is_empty() {
        return Err(failed("there is no certificate in it".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    Ok(roots)
}

/// What the system trusts; what rustls can't read of it is left out.
fn system_authorities() -> Result<RootCertStore, Failed> {
    let mut roots = RootCertStore::empty();
    let bundle = SYSTEM_AUTHORITIES.iter().find(|path| fs::metadata(path).is_ok());
    let certificates = bundle.and_then(|path| CertificateDer::pem_file_iter(path).ok());
    roots.add_parsable_certificates(certificates.into_iter().flatten().flatten());
    if roots.is_empty() {
        let text = "this system has no list of authorities: name a PEM file by MOORLINE_CA";
        return Err(Failed::new("invalid_config", text));
    }
    Ok(roots)
}

/// A connection to a node.
pub(crate) enum Socket {
    /// TCP alone.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        input: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, input),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, input),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        output: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, output),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, output),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
