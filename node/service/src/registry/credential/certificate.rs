//! What of a certificate matters to us: fingerprints, the name of its subject, and until when it counts.
//!
//! webpki reads certificates and says nothing of their common name and validity, nor of alternative names that are no names of hosts, so
//! this file looks for these in the few fields where they are. What it can't read has none.

use std::sync::Arc;

use moorline_core::{Text, UnixMillis, calendar};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;

use super::kind::{HASH_BYTES, Pin, Pinned};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` in front of a version.
const EXPLICIT_VERSION: u8 = 0xA0;
/// UTF8String, PrintableString, IA5String.
const STRINGS: [u8; 3] = [0x0C, 0x13, 0x16];
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
/// `[3]` in front of the extensions.
const EXPLICIT_EXTENSIONS: u8 = 0xA3;
/// 2.5.29.17.
const ALTERNATIVE_NAMES: [u8; 3] = [0x55, 0x1D, 0x11];
/// `[1]`, `[2]` and `[6]`: an e-mail address, a host name, a URI.
const WRITTEN_NAMES: [u8; 3] = [0x81, 0x82, 0x86];
/// Alternative names of a certificate that are looked at.
const ALTERNATIVE_NAMES_MAX: usize = 32;
/// 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
/// Parts of names, as they are written.
const LABELS: [(&[u8], &str); 10] = [
    (&COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x05], "serialNumber"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x0A], "O"),
    (&[0x55, 0x04, 0x0B], "OU"),
    (&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x01], "Email"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x01], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x19], "DC"),
];
/// Serial number, algorithm and issuer stand in front of the validity.
const FIELDS_BEFORE_VALIDITY: usize = 3;

/// What pins a certificate, or its key. [`None`] if the key can't be found.
#[must_use]
pub fn pin(what: Pinned, certificate: &CertificateDer<'_>) -> Option<Pin> {
    let sha256: [u8; HASH_BYTES] = match what {
        Pinned::Certificate => Sha256::digest(certificate).into(),
        Pinned::Key => {
            let read = EndEntityCert::try_from(certificate).ok()?;
            Sha256::digest(read.subject_public_key_info()).into()
        }
    };
    Some(Pin { what, sha256 })
}

/// Names by which a certificate may call its device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// The common name of its subject, if there is exactly one.
    pub(super) common: Option<Text>,
    /// DNS names.
    pub(super) dns: Vec<Text>,
    /// URIs.
    pub(super) uris: Vec<Text>,
}

/// Those of a certificate that webpki has read.
pub(super) fn names(certificate: &EndEntityCert<'_>) -> Names {
    Names {
        common: common_name(certificate.subject()),
        dns: certificate.valid_dns_names().map(Text::from).collect(),
        uris: certificate.valid_uri_names().map(Text::from).collect(),
    }
}

/// What an authority said that somebody is called.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Called {
    /// The common name of the subject, if there is exactly one.
    pub common: Option<Text>,
    /// Alternative names, as they are written: e-mail addresses, host names and URIs, at most 32.
    pub alternative: Vec<Text>,
}

/// The alternative names of a certificate, whatever form they have: platforms write names there that no host has.
pub(super) fn alternative(certificate: &CertificateDer<'_>) -> Vec<Text> {
    extension(certificate, ALTERNATIVE_NAMES).and_then(written_names).unwrap_or_default()
}

fn written_names(value: &[u8]) -> Option<Vec<Text>> {
    let mut outer = Der(value);
    let (mut names, mut found) = (Der(outer.take(SEQUENCE)?), Vec::new());
    while !names.0.is_empty() && found.len() < ALTERNATIVE_NAMES_MAX {
        let (tag, name) = names.any()?;
        if WRITTEN_NAMES.contains(&tag) {
            found.push(Text::from(std::str::from_utf8(name).ok()?));
        }
    }
    Some(found)
}

/// The value of an extension.
fn extension<'a>(certificate: &'a CertificateDer<'_>, id: [u8; 3]) -> Option<&'a [u8]> {
    let mut outer = Der(certificate);
    let mut whole = Der(outer.take(SEQUENCE)?);
    let mut fields = Der(whole.take(SEQUENCE)?);
    let mut wrapped = loop {
        let (tag, value) = fields.any()?;
        if tag == EXPLICIT_EXTENSIONS {
            break Der(value);
        }
    };
    let mut extensions = Der(wrapped.take(SEQUENCE)?);
    while !extensions.0.is_empty() {
        let mut extension = Der(extensions.take(SEQUENCE)?);
        if extension.take(OID)? != id {
            continue;
        }
        let (mut tag, mut value) = extension.any()?;
        if tag == BOOLEAN {
            // Whether it is critical.
            (tag, value) = extension.any()?;
        }
        return (tag == OCTET_STRING).then_some(value);
    }
    None
}

/// The certificates of a PEM, in their order; [`None`] if there is none, or one that can't be read.
#[must_use]
pub fn of_pem(pem: &str) -> Option<Arc<[CertificateDer<'static>]>> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.ok().filter(|all| !all.is_empty())?;
    all.iter().all(|one| EndEntityCert::try_from(one).is_ok()).then(|| all.into())
}

/// The number of a certificate, as hexadecimal digits.
#[must_use]
pub fn serial(certificate: &CertificateDer<'_>) -> Option<String> {
    let mut outer = Der(certificate);
    let mut whole = Der(outer.take(SEQUENCE)?);
    let mut fields = Der(whole.take(SEQUENCE)?);
    if fields.0.first() == Some(&EXPLICIT_VERSION) {
        fields.any()?;
    }
    let number = fields.take(INTEGER)?;
    Some(number.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The common name of a certificate's subject, if there is exactly one.
#[must_use]
pub fn common(certificate: &CertificateDer<'_>) -> Option<Text> {
    common_name(named(certificate)?.1)
}

/// Who issued a certificate, as text.
#[must_use]
pub fn issuer(certificate: &CertificateDer<'_>) -> Option<String> {
    written(named(certificate)?.0)
}

/// Whose a certificate is, as text.
#[must_use]
pub fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    written(named(certificate)?.1)
}

/// Issuer and subject.
fn named<'a>(certificate: &'a CertificateDer<'_>) -> Option<(&'a [u8], &'a [u8])> {
    let mut outer = Der(certificate);
    let mut whole = Der(outer.take(SEQUENCE)?);
    let mut fields = Der(whole.take(SEQUENCE)?);
    if fields.0.first() == Some(&EXPLICIT_VERSION) {
        fields.any()?;
    }
    // Serial number and algorithm.
    fields.any()?;
    fields.any()?;
    let issuer = fields.take(SEQUENCE)?;
    fields.take(SEQUENCE)?;
    Some((issuer, fields.take(SEQUENCE)?))
}

/// A distinguished name in the order in which it stands there: `O=Plant, CN=pump-1`. [`None`] if a part of it is no text, or empty.
fn written(name: &[u8]) -> Option<String> {
    let (mut rest, mut parts) = (Der(name), Vec::new());
    while !rest.0.is_empty() {
        let (mut set, mut together) = (Der(rest.take(SET)?), Vec::new());
        while !set.0.is_empty() {
            let mut attribute = Der(set.take(SEQUENCE)?);
            let id = attribute.take(OID)?;
            let (_, label) = LABELS.iter().find(|(known, _)| *known == id)?;
            let (tag, value) = attribute.any()?;
            let text = std::str::from_utf8(value).ok().filter(|_| STRINGS.contains(&tag))?;
            together.push(format!("{label}={text}"));
        }
        parts.push(together.join(" + "));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// From when on and until when a certificate counts, both inclusive. [`None`] if it does not say.
#[must_use]
pub fn validity(certificate: &CertificateDer<'_>) -> Option<(UnixMillis, UnixMillis)> {
    let mut outer = Der(certificate);
    let mut whole = Der(outer.take(SEQUENCE)?);
    let mut fields = Der(whole.take(SEQUENCE)?);
    if fields.0.first() == Some(&EXPLICIT_VERSION) {
        fields.any()?;
    }
    for _ in 0..FIELDS_BEFORE_VALIDITY {
        fields.any()?;
    }
    let mut validity = Der(fields.take(SEQUENCE)?);
    let mut time = || {
        let (tag, text) = validity.any()?;
        let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        moment(tag, text)
    };
    Some((time()?, time()?))
}

/// Whether it counts at a moment.
#[must_use]
pub fn counts(certificate: &CertificateDer<'_>, now_ms: u64) -> bool {
    validity(certificate).is_some_and(|(from, until)| from.0 <= now_ms && now_ms <= until.0)
}

/// `yymmddhhmmss`, or with four digits of the year.
fn moment(tag: u8, text: &str) -> Option<UnixMillis> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year: i32 = text[..2].parse().ok()?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let number = |at: usize| rest[2 * at..2 * at + 2].parse::<u8>().ok();
    let [month, day, hour, minute, second] =
        [number(0)?, number(1)?, number(2)?, number(3)?, number(4)?];
    let ms = calendar::unix_ms((year, month, day), (hour, minute, second))?;
    Some(UnixMillis(u64::try_from(ms).unwrap_or(0)))
}

/// The common name of a subject, if there is exactly one.
fn common_name(subject: &[u8]) -> Option<Text> {
    let (mut rest, mut found) = (Der(subject), None);
    while !rest.0.is_empty() {
        let mut set = Der(rest.take(SET)?);
        while !set.0.is_empty() {
            let mut attribute = Der(set.take(SEQUENCE)?);
            if attribute.take(OID)? != COMMON_NAME {
                continue;
            }
            let (tag, value) = attribute.any()?;
            if found.is_some() || !STRINGS.contains(&tag) {
                return None;
            }
            found = Some(Text::from(std::str::from_utf8(value).ok()?));
        }
    }
    found
}

/// DER values one behind the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.any().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    /// The next value and its tag.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (bytes, rest) = match usize::from(first) {
            short @ 0..=0x7F => (short, rest),
            long @ 0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(long - 0x80)?;
                (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(bytes)?;
        self.0 = rest;
        Some((tag, value))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, IsCa, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn certificate(
        change: impl FnOnce(&mut CertificateParams),
    ) -> (CertificateDer<'static>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["pump.example".to_owned()]).unwrap();
        change(&mut params);
        (params.self_signed(&key).unwrap().der().clone(), key)
    }

    #[test]
    fn a_certificate_is_pinned_whole_or_by_its_key() {
        let (one, key) = certificate(|_| {});
        let again = CertificateParams::new(vec!["other".to_owned()]).unwrap();
        let again = again.self_signed(&key).unwrap().der().clone();
        let pinned = |what, of: &CertificateDer<'_>| pin(what, of).unwrap().sha256;
        assert_eq!(pinned(Pinned::Key, &one), pinned(Pinned::Key, &again));
        assert_ne!(pinned(Pinned::Certificate, &one), pinned(Pinned::Certificate, &again));
        assert_eq!(pin(Pinned::Key, &CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn names_and_validity_are_found() {
        let (made, _) = certificate(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "acme");
            params.distinguished_name.push(DnType::CommonName, "pump-1");
            params.not_before = date_time_ymd(2026, 2, 28);
            params.not_after = date_time_ymd(2051, 3, 1);
        });
        let names = names(&EndEntityCert::try_from(&made).unwrap());
        assert_eq!(names.common, Some(Text::from("pump-1")));
        assert_eq!(names.dns, [Text::from("pump.example")]);
        assert_eq!(common(&made), names.common);
        let (from, until) = validity(&made).unwrap();
        assert_eq!((from.0, until.0), (1_772_236_800_000, 2_561_241_600_000));
        assert_eq!(subject(&made).as_deref(), Some("CN=pump-1, O=acme"));
        assert_eq!(issuer(&made), subject(&made), "it signed itself");
        assert!(counts(&made, from.0) && !counts(&made, from.0 - 1) && !counts(&made, until.0 + 1));
    }

    #[test]
    fn certificates_are_read_out_of_pem() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.serial_number = Some(vec![0x01, 0xAB].into());
        let made = params.self_signed(&key).unwrap();
        let pem = made.pem();
        let both = of_pem(&format!("one\n{pem}\nanother\n{pem}")).unwrap();
        assert_eq!((both.len(), &both[0]), (2, made.der()));
        assert_eq!(serial(&both[1]).as_deref(), Some("01ab"));
        let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for wrong in ["", "x", empty, &pem[..pem.len() / 2], &format!("{pem}{empty}")] {
            assert!(of_pem(wrong).is_none(), "{wrong:.80}");
        }
    }

    #[test]
    fn alternative_names_are_found_as_they_are_written() {
        let (made, _) = certificate(|params| {
            params.subject_alt_names = vec![
                SanType::Rfc822Name("d:pump:p1".try_into().unwrap()),
                SanType::IpAddress([127, 0, 0, 1].into()),
                SanType::URI("g:gw:g1".try_into().unwrap()),
                SanType::DnsName("pump.example".try_into().unwrap()),
            ];
            params.is_ca = IsCa::ExplicitNoCa;
        });
        assert_eq!(alternative(&made), ["d:pump:p1", "g:gw:g1", "pump.example"].map(Text::from));
        let (none, _) = certificate(|params| params.subject_alt_names.clear());
        assert_eq!(alternative(&none), Vec::<Text>::new());
        let (many, _) = certificate(|params| {
            let name = SanType::DnsName("pump.example".try_into().unwrap());
            params.subject_alt_names = vec![name; ALTERNATIVE_NAMES_MAX + 1];
        });
        assert_eq!(alternative(&many).len(), ALTERNATIVE_NAMES_MAX);
    }

    #[test]
    fn what_is_cut_off_anywhere_has_no_name_and_no_validity() {
        let (made, _) = certificate(|_| {});
        for end in 0..made.len() {
            let cut = CertificateDer::from(&made[..end]);
            assert_eq!((validity(&cut), alternative(&cut)), (None, Vec::new()), "{end}");
        }
        for wrong in [&b"\x31\x84\0\0\0\0"[..], b"\x31\x05\x30", b"\x30\0", b"\x31\x02\x30\0"] {
            assert_eq!(common_name(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        #[rustfmt::skip]
        let table = [
            (UTC_TIME, "700101000000", Some(0)), (UTC_TIME, "000229000000", Some(951_782_400_000)),
            (GENERALIZED_TIME, "20991231235959", Some(4_102_444_799_000)),
            (UTC_TIME, "701301000000", None), (UTC_TIME, "70010100000", None), (UTC_TIME, "70010100000x", None),
            (GENERALIZED_TIME, "700101000000", None),
        ];
        for (tag, text, expected) in table {
            assert_eq!(moment(tag, text), expected.map(UnixMillis), "{text}");
        }
    }
}
