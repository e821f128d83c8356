//! A tenant's authorities: certificates that lead to one of them are the device they name.
//!
//! # Invariants
//!
//! - **A chain is checked each time**, at the current time, for client authentication, by webpki. Checked below.
//! - **Doubt refuses**: a list of revoked certificates that is out of date, a certificate with two names, a setting that does not
//!   read. Checked below.

use std::{fmt, sync::OnceLock};

use moorline_core::Text;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime, pem::PemObject,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use webpki::{
    ALL_VERIFICATION_ALGS, BorrowedCertRevocationList, CertRevocationList, EndEntityCert,
    ExpirationPolicy, KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy,
    anchor_from_trusted_cert,
};

use super::certificate::{Called, Names, alternative, names};

/// Authorities of a tenant: each is tried with each chain.
pub const ANCHORS_MAX: usize = 8;
/// Lists of revoked certificates of a tenant.
pub const CRLS_MAX: usize = 8;
/// Certificates of a chain: that of the device, and those between it and its authority.
pub const CHAIN_MAX: usize = 6;

/// By which name a certificate calls its device. It must have exactly one of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NamedBy {
    /// The common name of its subject.
    #[default]
    CommonName,
    /// A DNS name of its alternative names, whole.
    DnsName,
    /// A URI of its alternative names, whole.
    Uri,
}

/// Who issues certificates to a tenant's devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrustSettings {
    /// Certificates of authorities, in PEM, one behind the other: at most 8. Without any, no device is let in by them.
    pub certificates: String,
    /// Their lists of revoked certificates, in PEM: at most 8. An authority without one revokes nothing; one that is out of
    /// date lets nobody in.
    pub revoked: String,
    /// Which name of a certificate is its device's.
    pub named_by: NamedBy,
    #[serde(skip)]
    #[schema(ignore)]
    parsed: Parsed,
}

/// The same, parsed when it is first needed.
#[derive(Debug, Default)]
struct Parsed(OnceLock<Option<Trust>>);

impl Clone for Parsed {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// It says nothing that the settings do not say.
impl PartialEq for Parsed {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Parsed {}

/// A tenant's authorities, parsed.
struct Trust {
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("anchors", &self.anchors.len()).finish_non_exhaustive()
    }
}

impl TrustSettings {
    /// Whether they can be read.
    ///
    /// # Errors
    ///
    /// What is wrong, for who wrote them.
    pub fn check(&self) -> Result<(), String> {
        Trust::parse(self).map(drop)
    }

    /// Whether there is any authority.
    #[must_use]
    pub fn is_any(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// The device that a chain names, its certificate first; [`None`] if nobody here vouches for it, or not now.
    #[must_use]
    pub fn device_of(&self, chain: &[CertificateDer<'_>], now_ms: u64) -> Option<Text> {
        let names = self.trust()?.vouches(chain, now_ms)?;
        let mut found = match self.named_by {
            NamedBy::CommonName => names.common.into_iter().collect(),
            NamedBy::DnsName => names.dns,
            NamedBy::Uri => names.uris,
        };
        let name = found.pop()?;
        found.is_empty().then_some(name)
    }

    /// All that a chain's first certificate is called, for a platform that has rules of its own for it ([`NamedBy`] means nothing
    /// there); [`None`] if nobody here vouches for it, or not now.
    #[must_use]
    pub fn called(&self, chain: &[CertificateDer<'_>], now_ms: u64) -> Option<Called> {
        let Names { common, .. } = self.trust()?.vouches(chain, now_ms)?;
        Some(Called { common, alternative: alternative(chain.first()?) })
    }

    fn trust(&self) -> Option<&Trust> {
        if !self.is_any() {
            return None;
        }
        self.parsed.0.get_or_init(|| Trust::parse(self).ok()).as_ref()
    }
}

impl Trust {
    fn parse(settings: &TrustSettings) -> Result<Self, String> {
        let wrong = |what: &str, why: &dyn fmt::Display| format!("trust-anchors: {what}: {why}");
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(settings.certificates.as_bytes()) {
            let certificate = certificate.map_err(|why| wrong("certificates", &why))?;
            let anchor = anchor_from_trusted_cert(&certificate);
            anchors.push(anchor.map_err(|why| wrong("certificates", &why))?.to_owned());
        }
        if settings.is_any() && anchors.is_empty() {
            return Err(wrong("certificates", &"there is no certificate in it, as PEM"));
        }
        let mut revoked = Vec::new();
        for list in CertificateRevocationListDer::pem_slice_iter(settings.revoked.as_bytes()) {
            let list = list.map_err(|why| wrong("revoked", &why))?;
            let list = BorrowedCertRevocationList::from_der(&list).and_then(|list| list.to_owned());
            revoked.push(list.map_err(|why| wrong("revoked", &why))?.into());
        }
        if !settings.revoked.is_empty() && revoked.is_empty() {
            return Err(wrong("revoked", &"there is no list in it, as PEM"));
        }
        if anchors.len() > ANCHORS_MAX || revoked.len() > CRLS_MAX {
            return Err(wrong("too many", &"at most 8 certificates and 8 lists"));
        }
        Ok(Self { anchors, revoked })
    }

    /// The names of a certificate that leads to one of the authorities.
    fn vouches(&self, chain: &[CertificateDer<'_>], now_ms: u64) -> Option<Names> {
        let (first, between) = chain.split_first().filter(|_| chain.len() <= CHAIN_MAX)?;
        let certificate = EndEntityCert::try_from(first).ok()?;
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(now_ms));
        let revoked: Vec<_> = self.revoked.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&revoked).ok().map(|options| {
            options
                .with_status_policy(UnknownStatusPolicy::Allow)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let usage = KeyUsage::client_auth();
        let (algorithms, anchors) = (ALL_VERIFICATION_ALGS, &self.anchors);
        certificate
            .verify_for_usage(algorithms, anchors, between, now, usage, revocation, None)
            .ok()?;
        Some(names(&certificate))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
        DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
        RevokedCertParams, SerialNumber, date_time_ymd,
    };

    use super::*;

    /// In 2026.
    const NOW_MS: u64 = 1_790_000_000_000;

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn issued(
        by: &CertifiedIssuer<'static, KeyPair>,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["pump.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "pump-1");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.serial_number = Some(SerialNumber::from(7));
        change(&mut params);
        params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
    }

    fn trusting(authority: &CertifiedIssuer<'static, KeyPair>) -> TrustSettings {
        TrustSettings { certificates: authority.pem(), ..TrustSettings::default() }
    }

    fn list(by: &CertifiedIssuer<'static, KeyPair>, serial: u64, until: i32) -> String {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2025, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(serial),
                revocation_time: date_time_ymd(2026, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(by).unwrap().pem().unwrap()
    }

    #[test]
    fn who_an_authority_vouches_for_is_the_device_it_names() {
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let trust = trusting(&ours);
        trust.check().unwrap();
        let named = |chain: CertificateDer<'static>| trust.device_of(&[chain], NOW_MS);
        assert_eq!(named(issued(&ours, |_| {})), Some(Text::from("pump-1")));
        #[rustfmt::skip]
        let refused = [
            ("of another authority", issued(&theirs, |_| {})),
            ("for servers", issued(&ours, |of| of.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
            ("too old", issued(&ours, |of| of.not_after = date_time_ymd(2026, 1, 1))),
            ("not yet", issued(&ours, |of| of.not_before = date_time_ymd(2030, 1, 1))),
            ("no name", issued(&ours, |of| of.distinguished_name = rcgen::DistinguishedName::new())),
            ("no certificate", CertificateDer::from(vec![0x30, 0])),
        ];
        for (what, chain) in refused {
            assert_eq!(named(chain), None, "{what}");
        }
        assert_eq!(trust.device_of(&[], NOW_MS), None);
        let none = TrustSettings::default();
        assert_eq!(none.device_of(&[issued(&ours, |_| {})], NOW_MS), None);
    }

    #[test]
    fn the_name_is_the_one_that_is_asked_for() {
        let ours = authority("ours");
        let by = |named_by| TrustSettings { named_by, ..trusting(&ours) };
        let chain = [issued(&ours, |_| {})];
        let dns = by(NamedBy::DnsName).device_of(&chain, NOW_MS);
        assert_eq!(dns, Some(Text::from("pump.example")));
        assert_eq!(by(NamedBy::Uri).device_of(&chain, NOW_MS), None);
        let two = CertificateParams::new(vec!["a".to_owned(), "b".to_owned()]).unwrap();
        let two = [issued(&ours, |of| of.subject_alt_names = two.subject_alt_names)];
        assert_eq!(by(NamedBy::DnsName).device_of(&two, NOW_MS), None, "which of them?");
    }

    #[test]
    fn a_platform_is_told_all_names_of_whom_an_authority_vouches_for() {
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let trust = trusting(&ours);
        let called = |chain: CertificateDer<'static>| trust.called(&[chain], NOW_MS);
        let expected = Called {
            common: Some(Text::from("pump-1")),
            alternative: vec![Text::from("pump.example")],
        };
        assert_eq!(called(issued(&ours, |_| {})), Some(expected));
        assert_eq!(called(issued(&theirs, |_| {})), None);
        assert_eq!(called(issued(&ours, |of| of.not_after = date_time_ymd(2026, 1, 1))), None);
        assert_eq!(trust.called(&[], NOW_MS), None);
        assert_eq!(TrustSettings::default().called(&[issued(&ours, |_| {})], NOW_MS), None);
    }

    #[test]
    fn revoked_ones_and_lists_out_of_date_let_nobody_in() {
        let ours = authority("ours");
        let with = |revoked| TrustSettings { revoked, ..trusting(&ours) };
        let chain = [issued(&ours, |_| {})];
        assert_eq!(with(list(&ours, 7, 2050)).device_of(&chain, NOW_MS), None);
        assert!(with(list(&ours, 8, 2050)).device_of(&chain, NOW_MS).is_some());
        assert_eq!(with(list(&ours, 8, 2026)).device_of(&chain, NOW_MS), None);
    }

    #[test]
    fn settings_that_do_not_read_are_said_so_and_trust_nobody() {
        let ours = authority("ours");
        for (certificates, revoked) in [
            ("nonsense".to_owned(), String::new()),
            (ours.pem(), "nonsense".to_owned()),
            (ours.pem().repeat(ANCHORS_MAX + 1), String::new()),
            (ours.pem().replace("MII", "AAA"), String::new()),
        ] {
            let trust = TrustSettings { certificates, revoked, ..TrustSettings::default() };
            assert!(trust.check().is_err());
            assert_eq!(trust.device_of(&[issued(&ours, |_| {})], NOW_MS), None);
        }
    }
}
