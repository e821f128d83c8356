//! TLS with pre-shared keys, which rustls does not have: by OpenSSL, for those clients who ask for it.
//!
//! ```text
//!   socket ──► sniff: a hello that wants a key? ──no──► rustls
//!                      │ yes
//!                      ▼
//!              Overheard ──► OpenSSL ──► asks for the key of an identity, and gets it at once:
//!                 │ hears the identity first, holds the bytes back, and waits for PskKeys
//! ```
//!
//! OpenSSL asks for a key in a callback that has to answer at once; our answer takes a question to another node. The identity comes in
//! the clear, so it is read on its way, and OpenSSL gets the bytes when the answer is there: no thread waits.
//!
//! # Invariants
//!
//! - **An unknown identity is refused as a wrong key is**: it gets a key that nobody has. Checked by `tests/tls_psk.rs`.
//! - **No handshake succeeds without a key of the registry**: there is no certificate here, no ticket and no cache.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use moorline_core::Text;
use openssl::{
    error::ErrorStack,
    ex_data::Index,
    ssl::{
        NameType, Ssl, SslContext, SslContextBuilder, SslMethod, SslMode, SslOptions, SslRef,
        SslSessionCacheMode, SslVersion,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_openssl::SslStream;

use super::{
    Failed, Secure, Secured, Shook,
    hello::{Ear, HANDSHAKE_BYTES_MAX},
    rewound::Rewound,
};
use crate::{
    channel::{Channel, Proof},
    psk::{FoundPsk, PskKeys, PskOffer},
    socket::Socket,
};

/// What is read of a hello at a time.
const READ_BYTES: usize = 2 * 1024;
/// Key exchanges that need nothing but the key, those with forward secrecy first.
const CIPHERS: &str = "ECDHE-PSK-CHACHA20-POLY1305:kECDHEPSK+AES:kPSK+CHACHA20:kPSK+AESGCM:\
    kPSK+AESCCM:kPSK+AESCCM8:kPSK+AES:!eNULL:!3DES:!RC4";
/// The key of an identity that nobody has.
type NobodysKey = [u8; 32];

/// What OpenSSL needs for all handshakes.
pub(super) struct Psk {
    keys: Arc<dyn PskKeys>,
    context: SslContext,
    slot: Index<Ssl, Slot>,
}

/// What OpenSSL's callback finds, and what came of it.
type Slot = Arc<Mutex<Found>>;

#[derive(Default)]
struct Found {
    identity: Vec<u8>,
    offer: Option<PskOffer>,
    /// The key was given to OpenSSL, for this identity.
    given: bool,
}

fn lock(slot: &Slot) -> MutexGuard<'_, Found> {
    // Every change is complete before anything can panic.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Psk {
    pub(super) fn new(keys: Arc<dyn PskKeys>) -> Result<Self, ErrorStack> {
        let slot = Ssl::new_ex_index::<Slot>()?;
        let mut context = SslContextBuilder::new(SslMethod::tls_server())?;
        context.set_min_proto_version(Some(SslVersion::TLS1_2))?;
        context.set_cipher_list(CIPHERS)?;
        context.set_options(
            SslOptions::NO_TICKET
                | SslOptions::CIPHER_SERVER_PREFERENCE
                | SslOptions::NO_RENEGOTIATION,
        );
        context.set_num_tickets(0)?;
        context.set_session_cache_mode(SslSessionCacheMode::OFF);
        // An idle connection owns no buffer.
        context.set_mode(SslMode::RELEASE_BUFFERS);
        context.set_psk_server_callback(move |ssl: &mut SslRef, identity, key| {
            let slot = ssl.ex_data(slot).cloned();
            Ok(give(slot.as_ref(), identity.unwrap_or_default(), key))
        });
        Ok(Self { keys, context: context.build(), slot })
    }

    pub(super) async fn accept(&self, stream: Rewound) -> Result<Secure, (Failed, io::Error)> {
        let slot = Slot::default();
        let overheard = Overheard::new(stream, Arc::clone(&self.keys), Arc::clone(&slot));
        let mut stream = self
            .begin(overheard, &slot)
            .map_err(|error| (Failed::Refused, io::Error::other(error)))?;
        if let Err(error) = Pin::new(&mut stream).accept().await {
            let failed = if error.ssl_error().is_some() { Failed::Refused } else { Failed::Gone };
            // Its own words name what was wrong with the handshake, and no secret.
            return Err((failed, io::Error::other(error)));
        }
        stream.get_mut().end();
        let found = std::mem::take(&mut *lock(&slot));
        let Some(PskOffer { holder, .. }) = found.offer.filter(|_| found.given) else {
            return Err((Failed::Refused, io::Error::other("a handshake with nobody's key")));
        };
        let name = stream.ssl().servername(NameType::HOST_NAME);
        let channel = Channel {
            tls: true,
            server_name: name.map(|name| Text::from(name.to_ascii_lowercase())),
            proof: Some(Proof::Psk(Arc::new(holder))),
        };
        let stream = Secured::Psk(PskStream(stream));
        Ok(Secure { stream, channel, shook: Shook::Psk })
    }

    fn begin(&self, stream: Overheard, slot: &Slot) -> Result<SslStream<Overheard>, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_ex_data(self.slot, Arc::clone(slot));
        SslStream::new(ssl, stream)
    }
}

/// Puts the key of an identity where OpenSSL wants it, or one that nobody has. How many bytes it has.
fn give(slot: Option<&Slot>, identity: &[u8], into: &mut [u8]) -> usize {
    if let Some(slot) = slot {
        let mut found = lock(slot);
        if found.identity == identity
            && let Some(offer) = &found.offer
            && !offer.key.is_empty()
            && let Some(into) = into.get_mut(..offer.key.len())
        {
            into.copy_from_slice(&offer.key);
            let many = into.len();
            found.given = true;
            return many;
        }
        found.given = false;
    }
    let nobodys: NobodysKey = rand::random();
    let many = nobodys.len().min(into.len());
    into[..many].copy_from_slice(&nobodys[..many]);
    many
}

/// Reads a hello, and says whether it wants a pre-shared key.
pub(super) async fn sniff(mut stream: TcpStream) -> io::Result<(Rewound, bool)> {
    let (mut bytes, mut ear, mut heard) = (Vec::new(), Ear::default(), 0);
    loop {
        bytes.reserve(READ_BYTES);
        let read = stream.read_buf(&mut bytes).await?;
        heard += ear.hear(&bytes[heard..]);
        if let Some(wants_psk) = ear.wants_psk() {
            return Ok((Rewound::new(bytes, stream), wants_psk));
        }
        if read == 0 {
            // What there is says why.
            return Ok((Rewound::new(bytes, stream), false));
        }
    }
}

/// A socket whose client is listened to until it has said who it is.
struct Overheard {
    stream: Rewound,
    /// Gone when the handshake is over.
    hearing: Option<Box<Hearing>>,
}

struct Hearing {
    keys: Arc<dyn PskKeys>,
    slot: Slot,
    ear: Ear,
    bytes: Vec<u8>,
    /// How many of the bytes were heard, and may go on.
    heard: usize,
    /// How many of them have gone on.
    given: usize,
    asked: bool,
    finding: Option<FoundPsk>,
    /// Nothing more is listened to.
    over: bool,
}

impl Overheard {
    fn new(stream: Rewound, keys: Arc<dyn PskKeys>, slot: Slot) -> Self {
        let hearing = Hearing {
            keys,
            slot,
            ear: Ear::default(),
            bytes: Vec::new(),
            heard: 0,
            given: 0,
            asked: false,
            finding: None,
            over: false,
        };
        Self { stream, hearing: Some(Box::new(hearing)) }
    }

    /// The handshake is over.
    fn end(&mut self) {
        if let Some(hearing) = &mut self.hearing {
            hearing.end();
        }
    }
}

impl Hearing {
    fn end(&mut self) {
        self.over = true;
        self.heard = self.bytes.len();
    }

    /// Waits for the key that was asked for.
    fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(finding) = &mut self.finding {
            let offer = ready!(finding.as_mut().poll(cx));
            self.finding = None;
            lock(&self.slot).offer = offer;
        }
        Poll::Ready(())
    }

    /// Hears more; asks for the key when it is known whose.
    fn hear(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.given);
        self.heard -= self.given;
        self.given = 0;
        self.bytes.extend_from_slice(bytes);
        self.heard += self.ear.hear(&self.bytes[self.heard..]);
        if let Some(identity) = self.ear.identity().filter(|_| !self.asked) {
            self.asked = true;
            self.finding = Some(self.keys.find(identity));
            lock(&self.slot).identity = identity.to_vec();
        }
        if self.ear.deaf || bytes.is_empty() || self.bytes.len() > HANDSHAKE_BYTES_MAX {
            self.end();
        }
    }

    fn give(&mut self, into: &mut ReadBuf<'_>) -> bool {
        let ready = &self.bytes[self.given..self.heard];
        let many = ready.len().min(into.remaining());
        into.put_slice(&ready[..many]);
        self.given += many;
        many > 0
    }
}

impl AsyncRead for Overheard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let Some(hearing) = &mut this.hearing else {
                return Pin::new(&mut this.stream).poll_read(cx, into);
            };
            ready!(hearing.poll_found(cx));
            if hearing.give(into) {
                return Poll::Ready(Ok(()));
            }
            if hearing.over {
                this.hearing = None;
                continue;
            }
            let mut room = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut room);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            hearing.hear(read.filled());
        }
    }
}

impl AsyncWrite for Overheard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A TLS stream of OpenSSL over a socket.
pub(crate) struct PskStream(SslStream<Overheard>);

impl fmt::Debug for PskStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PskStream").finish_non_exhaustive()
    }
}

impl PskStream {
    /// Waits until a read would say something.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll_peek(cx, &mut [0]).map(drop)
    }

    /// Waits until the socket takes something.
    pub(super) fn poll_socket_writable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get_mut().stream.poll_writable(cx)
    }
}

impl AsyncRead for PskStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for PskStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
