//! TLS in front of a listener: rustls for certificates, OpenSSL for pre-shared keys, on the same port.
//!
//! # Invariants
//!
//! - **TLS 1.2 and 1.3, nothing older.** Checked by `tests/tls.rs`.
//! - **Whatever was proved is in the [`Channel`]**: clients may show a certificate ([`verifier`]) or know a key (`psk`).
//!   Checked by `tests/tls_clients.rs` and `tests/tls_psk.rs`.
//! - **A new certificate needs no new connection** ([`reload`]). Checked by `tests/tls_reload.rs`.

mod config;
#[cfg(feature = "tls-psk")]
mod hello;
#[cfg(feature = "tls-psk")]
mod psk;
mod reload;
mod rewound;
mod verifier;

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
    task::{Context, Poll, ready},
};

use moorline_core::Text;
use rustls::HandshakeKind;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

pub use self::{
    config::{ClientCertificates, TlsConfig, TlsConfigError},
    reload::{TLS_FILES_POLL, TlsMetrics},
};
use self::{
    config::{Loaded, Stamps, Validity},
    rewound::Rewound,
};
use crate::{
    channel::{Channel, Proof},
    foreign::Stream,
    psk::PskKeys,
    socket::Socket,
};

/// A certificate and its key, ready to be shown. Every clone sees the same files.
#[derive(Clone)]
pub struct Tls {
    files: Arc<Files>,
    /// Whether clients are asked who they are, if the configuration wants it.
    asks: bool,
    #[cfg(feature = "tls-psk")]
    psk: Option<Arc<psk::Psk>>,
}

/// What was made of the files, and which.
struct Files {
    config: TlsConfig,
    loaded: RwLock<Loaded>,
}

impl Files {
    fn put(&self, loaded: Loaded) {
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }

    fn state(&self) -> (Validity, Stamps) {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        (loaded.valid, loaded.stamps)
    }
}

/// By hand: a key is never printed.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("config", &self.files.config).finish_non_exhaustive()
    }
}

/// Why a TLS handshake did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failed {
    /// Not TLS, no version or cipher in common, the client does not trust our certificate, or has not the key it should.
    Refused,
    /// The client left.
    Gone,
    /// The client took too long.
    Timeout,
}

impl Failed {
    /// All of them, for metrics.
    pub(crate) const ALL: [Self; 3] = [Self::Refused, Self::Gone, Self::Timeout];

    /// For a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Gone => "gone",
            Self::Timeout => "timeout",
        }
    }
}

/// What sort of handshake succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shook {
    /// With all signatures.
    Full,
    /// With a ticket of an earlier one.
    Resumed,
    /// With a pre-shared key.
    Psk,
}

impl Shook {
    /// All of them, for metrics.
    pub(crate) const ALL: [Self; 3] = [Self::Full, Self::Resumed, Self::Psk];

    /// For a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Resumed => "resumed",
            Self::Psk => "psk",
        }
    }
}

/// A handshake that succeeded.
pub(crate) struct Secure {
    pub(crate) stream: Secured,
    pub(crate) channel: Channel,
    pub(crate) shook: Shook,
}

impl TlsConfig {
    /// Reads and checks the files.
    ///
    /// # Errors
    ///
    /// If they are not a certificate and its key.
    pub fn load(&self) -> Result<Tls, TlsConfigError> {
        let files = Files { config: self.clone(), loaded: RwLock::new(self.read()?) };
        Ok(Tls {
            files: Arc::new(files),
            asks: true,
            #[cfg(feature = "tls-psk")]
            psk: None,
        })
    }
}

impl Tls {
    /// When the certificate expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires_s(&self) -> i64 {
        self.files.state().0.until_s
    }

    /// The same for clients that are not asked for a certificate, whatever the configuration says.
    #[must_use]
    pub fn silent(&self) -> Self {
        Self { asks: false, ..self.clone() }
    }

    /// The same for clients that may have pre-shared keys, too.
    ///
    /// # Errors
    ///
    /// If OpenSSL can't be had.
    #[cfg(feature = "tls-psk")]
    pub fn with_psk(&self, keys: Arc<dyn PskKeys>) -> Result<Self, TlsConfigError> {
        let psk = psk::Psk::new(keys).map_err(|error| TlsConfigError::System(error.to_string()))?;
        Ok(Self { psk: Some(Arc::new(psk)), ..self.clone() })
    }

    /// This program was built without OpenSSL: nobody has such keys.
    ///
    /// # Errors
    ///
    /// Never.
    #[cfg(not(feature = "tls-psk"))]
    pub fn with_psk(&self, _keys: Arc<dyn PskKeys>) -> Result<Self, TlsConfigError> {
        Ok(self.clone())
    }

    /// Makes a TLS stream of a socket, for listeners that are none of an edge. The caller has a deadline.
    ///
    /// # Errors
    ///
    /// If the client does not do its part.
    pub async fn secure(&self, stream: TcpStream) -> io::Result<Box<dyn Stream>> {
        let secure = self.by_certificate(Rewound::new(Vec::new(), stream)).await;
        secure.map(|secure| Box::new(secure.stream) as Box<dyn Stream>).map_err(|(_, error)| error)
    }

    /// Makes a TLS stream of a socket that begins with the client's hello.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Result<Secure, (Failed, io::Error)> {
        #[cfg(feature = "tls-psk")]
        if let Some(psk) = &self.psk {
            let (stream, has_key) = psk::sniff(stream).await.map_err(|e| (Failed::Gone, e))?;
            if has_key {
                return psk.accept(stream).await;
            }
            return self.by_certificate(stream).await;
        }
        self.by_certificate(Rewound::new(Vec::new(), stream)).await
    }

    async fn by_certificate(&self, stream: Rewound) -> Result<Secure, (Failed, io::Error)> {
        let config = {
            let loaded = self.files.loaded.read().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(if self.asks { &loaded.asking } else { &loaded.silent })
        };
        let stream = match TlsAcceptor::from(config).accept(stream).await {
            Ok(stream) => stream,
            // The library's own complaints come under this kind.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err((Failed::Refused, error));
            }
            Err(error) => return Err((Failed::Gone, error)),
        };
        let connection = stream.get_ref().1;
        let chain = connection.peer_certificates().filter(|chain| !chain.is_empty());
        let channel = Channel {
            tls: true,
            server_name: connection.server_name().map(|name| Text::from(name.to_ascii_lowercase())),
            proof: chain.map(|chain| Proof::Certificates(chain.into())),
        };
        let resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let shook = if resumed { Shook::Resumed } else { Shook::Full };
        Ok(Secure { stream: Secured::Certificate(Box::new(stream)), channel, shook })
    }
}

/// A TLS stream over a socket, whoever makes it. Small: the connection's task moves it about.
pub(crate) enum Secured {
    /// rustls.
    Certificate(Box<TlsStream<Rewound>>),
    /// OpenSSL.
    #[cfg(feature = "tls-psk")]
    Psk(psk::PskStream),
}

/// Has a method of either.
macro_rules! either {
    ($self:expr, $stream:ident => $do:expr) => {
        match $self {
            Secured::Certificate($stream) => $do,
            #[cfg(feature = "tls-psk")]
            Secured::Psk($stream) => $do,
        }
    };
}

impl AsyncRead for Secured {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, into))
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Socket for Secured {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            // What was decrypted stays within; an error is seen by the read that follows.
            Self::Certificate(stream) => Pin::new(&mut **stream).poll_fill_buf(cx).map(drop),
            #[cfg(feature = "tls-psk")]
            Self::Psk(stream) => stream.poll_readable(cx),
        }
    }

    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // What it took before goes out first; a failure is seen by the write that follows.
        ready!(Pin::new(&mut *self).poll_flush(cx)).unwrap_or_default();
        match self {
            Self::Certificate(stream) => stream.get_mut().0.poll_writable(cx),
            #[cfg(feature = "tls-psk")]
            Self::Psk(stream) => stream.poll_socket_writable(cx),
        }
    }

    /// TLS has no words for it.
    fn node_stops(&mut self) {}
}
