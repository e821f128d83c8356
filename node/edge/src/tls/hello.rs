//! What a client's handshake says in the clear before any key is used: whether it wants a pre-shared key, and of whom.
//!
//! Pure. TLS 1.2 names the identity in the ClientKeyExchange (RFC 4279, 5489), TLS 1.3 in the ClientHello (RFC 8446, 4.2.11).
//!
//! # Invariants
//!
//! - **Bounded**: a handshake of more than [`HANDSHAKE_BYTES_MAX`] says nothing any more.
//! - **Nothing is decided by what is only heard**: OpenSSL does the handshake, and asks for the key of the identity it read itself.

/// Handshake bytes that are looked at; the largest hello of a library with every extension has under 4 KiB.
pub(super) const HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// The most bytes of an identity (RFC 4279, 5.3 wants 128 to work).
const IDENTITY_BYTES_MAX: usize = 256;
const RECORD_HEAD: usize = 5;
/// The most bytes of a record's content, whatever protects it (RFC 5246, 6.2.3).
const RECORD_BYTES_MAX: usize = 16 * 1024 + 2048;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const CLIENT_KEY_EXCHANGE: u8 = 16;
const SUPPORTED_VERSIONS: u16 = 43;
const PRE_SHARED_KEY: u16 = 41;
const TLS_1_3: u16 = 0x0304;

/// Cipher suites with pre-shared keys, first and last of each row (IANA's registry).
const PSK_SUITES: [(u16, u16); 9] = [
    (0x002c, 0x002e),
    (0x008a, 0x0095),
    (0x00a8, 0x00b9),
    (0xc033, 0xc03b),
    (0xc064, 0xc071),
    (0xc08e, 0xc09b),
    (0xc0a4, 0xc0ab),
    (0xccab, 0xccae),
    (0xd001, 0xd005),
];

/// Listens to one side of a handshake, record by record.
#[derive(Debug, Default)]
pub(super) struct Ear {
    handshake: Vec<u8>,
    /// What follows is encrypted, too much, or no TLS.
    pub(super) deaf: bool,
}

impl Ear {
    /// Takes the whole records at the beginning of `bytes`; says how many bytes they are. All of them, if it is deaf.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while !self.deaf {
            let rest = &bytes[taken..];
            if rest.first().is_some_and(|kind| *kind != HANDSHAKE) {
                self.deaf = true;
                break;
            }
            let Some(head) = rest.get(..RECORD_HEAD) else { return taken };
            let many = usize::from(u16::from_be_bytes([head[3], head[4]]));
            if many > RECORD_BYTES_MAX || self.handshake.len() + many > HANDSHAKE_BYTES_MAX {
                self.deaf = true;
                break;
            }
            let Some(content) = rest.get(RECORD_HEAD..RECORD_HEAD + many) else { return taken };
            self.handshake.extend_from_slice(content);
            taken += RECORD_HEAD + many;
        }
        bytes.len()
    }

    /// The first message of a kind that is there as a whole.
    fn message(&self, kind: u8) -> Option<Reader<'_>> {
        let mut rest = Reader(&self.handshake);
        loop {
            let found = rest.u8()?;
            let body = rest.bytes_u24()?;
            if found == kind {
                return Some(Reader(body));
            }
        }
    }

    /// Whether the client wants a pre-shared key; `None` as long as its hello is not there.
    pub(super) fn wants_psk(&self) -> Option<bool> {
        match self.message(CLIENT_HELLO) {
            Some(hello) => Some(Hello::parse(hello).is_some_and(|hello| hello.wants_psk())),
            None => self.deaf.then_some(false),
        }
    }

    /// The identity whose key is wanted.
    pub(super) fn identity(&self) -> Option<&[u8]> {
        let of_hello = self.message(CLIENT_HELLO).and_then(Hello::parse)?.identity;
        let identity =
            of_hello.or_else(|| self.message(CLIENT_KEY_EXCHANGE).and_then(|mut m| m.bytes_u16()));
        identity.filter(|identity| identity.len() <= IDENTITY_BYTES_MAX)
    }
}

/// What is wanted of a ClientHello.
struct Hello<'a> {
    offers_psk_suites: bool,
    speaks_1_3: bool,
    /// The first identity of TLS 1.3 that is no ticket.
    identity: Option<&'a [u8]>,
}

impl<'a> Hello<'a> {
    fn parse(mut hello: Reader<'a>) -> Option<Self> {
        let _version_and_random = hello.bytes(2 + 32)?;
        let _session = hello.bytes_u8()?;
        let suites = hello.bytes_u16()?;
        let _compression = hello.bytes_u8()?;
        let mut extensions = Reader(hello.bytes_u16().unwrap_or_default());
        let mut found = Self {
            offers_psk_suites: words(suites).any(is_psk_suite),
            speaks_1_3: false,
            identity: None,
        };
        while let Some(kind) = extensions.u16() {
            let mut body = Reader(extensions.bytes_u16()?);
            match kind {
                SUPPORTED_VERSIONS => {
                    found.speaks_1_3 = words(body.bytes_u8()?).any(|version| version == TLS_1_3);
                }
                PRE_SHARED_KEY => found.identity = external(body.bytes_u16()?),
                _ => {}
            }
        }
        Some(found)
    }

    /// With TLS 1.2 who offers such a suite has a key: libraries leave them out without one. With 1.3 it says for whom.
    fn wants_psk(&self) -> bool {
        self.identity.is_some() || (self.offers_psk_suites && !self.speaks_1_3)
    }
}

/// The first identity, if it is of a key and not a ticket: those have an age, which is hidden by adding 32 random bits.
fn external(identities: &[u8]) -> Option<&[u8]> {
    let mut identities = Reader(identities);
    let identity = identities.bytes_u16()?;
    (identities.bytes(4)? == [0; 4]).then_some(identity)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks_exact(2).map(|word| u16::from_be_bytes([word[0], word[1]]))
}

fn is_psk_suite(suite: u16) -> bool {
    PSK_SUITES.iter().any(|(first, last)| (*first..=*last).contains(&suite))
}

/// Reads from the front.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, many: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(many)?;
        self.0 = rest;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        Some(self.bytes(1)?[0])
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(2)?.try_into().ok()?))
    }

    fn bytes_u8(&mut self) -> Option<&'a [u8]> {
        let many = self.u8()?;
        self.bytes(many.into())
    }

    fn bytes_u16(&mut self) -> Option<&'a [u8]> {
        let many = self.u16()?;
        self.bytes(many.into())
    }

    fn bytes_u24(&mut self) -> Option<&'a [u8]> {
        let high = self.u8()?;
        let low = self.u16()?;
        self.bytes(usize::from(high) << 16 | usize::from(low))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized<const N: usize>(bytes: &[u8]) -> Vec<u8> {
        let many = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        [&many[4 - N..], bytes].concat()
    }

    fn record(message: u8, body: &[u8]) -> Vec<u8> {
        let message = [&[message][..], &sized::<3>(body)].concat();
        [&[HANDSHAKE, 3, 3][..], &sized::<2>(&message)].concat()
    }

    fn hello(suites: &[u16], extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, body)| [&kind.to_be_bytes()[..], &sized::<2>(body)].concat())
            .collect();
        let parts = [vec![3, 3], vec![7; 32], vec![0], sized::<2>(&suites), vec![1, 0]];
        record(CLIENT_HELLO, &[parts.concat(), sized::<2>(&extensions)].concat())
    }

    fn psk(identity: &[u8], age: u32) -> (u16, Vec<u8>) {
        let identity = [sized::<2>(identity), age.to_be_bytes().to_vec()].concat();
        (PRE_SHARED_KEY, [sized::<2>(&identity), vec![0, 33, 32], vec![1; 32]].concat())
    }

    fn heard(bytes: &[u8]) -> Ear {
        let mut ear = Ear::default();
        assert_eq!(ear.hear(bytes), bytes.len());
        ear
    }

    #[test]
    fn who_has_a_key_is_told_from_who_has_a_certificate_or_a_ticket() {
        let v13 = || (SUPPORTED_VERSIONS, vec![2, 3, 4]);
        #[rustfmt::skip]
        let table = [
            (hello(&[0x1301, 0xc02b],         &[v13()]),                    false, None),
            (hello(&[0x1301, 0x00a8],         &[v13()]),                    false, None),
            (hello(&[0x1301, 0x00a8],         &[v13(), psk(b"dev1", 0)]),   true,  Some(&b"dev1"[..])),
            (hello(&[0x1301],                 &[v13(), psk(b"ticket", 9)]), false, None),
            (hello(&[0xc02b, 0xc02f, 0x00ff], &[]),                         false, None),
            (hello(&[0xc02b, 0x00a8, 0x00ff], &[]),                         true,  None),
            (hello(&[0xc0a8],                 &[]),                         true,  None),
        ];
        for (bytes, wants_psk, identity) in table {
            let ear = heard(&bytes);
            assert_eq!(
                (ear.wants_psk(), ear.identity()),
                (Some(wants_psk), identity),
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn an_identity_of_tls_1_2_is_heard_whatever_the_pieces() {
        let bytes = [hello(&[0x00a8], &[]), record(CLIENT_KEY_EXCHANGE, &sized::<2>(b"pump"))];
        let (bytes, first) = (bytes.concat(), bytes[0].len());
        for piece in [1, 2, 7, bytes.len()] {
            let (mut ear, mut taken, mut there) = (Ear::default(), 0, 0);
            while there < bytes.len() {
                there = (there + piece).min(bytes.len());
                taken += ear.hear(&bytes[taken..there]);
                assert_eq!(ear.wants_psk(), (there >= first).then_some(true));
                assert_eq!(ear.identity().is_some(), there == bytes.len());
            }
            assert_eq!(ear.identity(), Some(&b"pump"[..]));
            assert!(!ear.deaf);
            assert_eq!(ear.hear(&[20, 3, 3]), 3, "from here on it is encrypted");
            assert!(ear.deaf);
        }
    }

    #[test]
    fn nonsense_is_nobodys_and_ends() {
        let long = [&[HANDSHAKE, 3, 3][..], &[0x40, 0], &[CLIENT_HELLO, 0xff, 0xff, 0xff]].concat();
        let long = [long, vec![0; 0x4000 - 4]].concat();
        let cut = record(CLIENT_HELLO, &[3, 3, 7]);
        for bytes in
            [&b"\x10\x20\x00\x04MQTT"[..], b"GET / HTTP/1.1", &[HANDSHAKE, 3, 3, 255, 255], &cut]
        {
            let ear = heard(bytes);
            assert_eq!((ear.wants_psk(), ear.identity()), (Some(false), None));
        }
        let mut ear = heard(&long);
        assert_eq!(ear.wants_psk(), None, "more is to come");
        ear.hear(&[HANDSHAKE, 3, 3, 0, 1, 0]);
        assert_eq!(ear.wants_psk(), Some(false), "more than anybody needs");
    }

    proptest::proptest! {
        #[test]
        fn anything_may_be_heard(bytes: Vec<u8>) {
            let mut ear = Ear::default();
            ear.hear(&bytes);
            let framed = [&[HANDSHAKE, 3, 3][..], &sized::<2>(&bytes)].concat();
            ear.hear(&framed);
            let identity = ear.identity().map(<[u8]>::len);
            assert!(identity.is_none_or(|bytes| bytes <= IDENTITY_BYTES_MAX));
        }
    }
}
