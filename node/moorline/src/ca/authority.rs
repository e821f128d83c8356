//! An authority's files, and what it signs (rcgen): keys of ECDSA on P-256, which every client knows.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

/// An authority's certificate, in its directory.
pub(super) const CERT: &str = "ca.pem";
/// Its key.
pub(super) const KEY: &str = "ca.key";
/// Certificates count from a while ago: clocks of devices are late.
const EARLIER: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Everybody may read a certificate.
const PUBLIC: u32 = 0o644;
/// A key is its owner's alone.
const SECRET: u32 = 0o600;

/// An authority that can sign.
pub(super) struct Authority {
    /// Its certificate's file.
    pub(super) cert: PathBuf,
    /// Its key's.
    pub(super) key: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Clients connect to it.
    Server,
    /// It connects.
    Client,
    /// Both: nodes connect to each other.
    Node,
}

/// A certificate that is wanted.
pub(super) struct Wanted<'a> {
    /// Whose: its common name.
    pub(super) name: &'a str,
    /// Host names and addresses.
    pub(super) sans: Vec<String>,
    pub(super) purpose: Purpose,
    pub(super) days: u32,
}

/// Where a certificate and its key are.
pub(super) struct Issued {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
}

impl Authority {
    /// Makes one; refuses where one is.
    pub(super) fn make(dir: &Path, name: &str, days: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let (cert, key) = (dir.join(CERT), dir.join(KEY));
        let pair = KeyPair::generate()?;
        let mut params = params(name, Vec::new(), days)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let signed = params.self_signed(&pair)?;
        refuse_existing(&[&cert, &key])?;
        write_new(&key, SECRET, &pair.serialize_pem())?;
        write_new(&cert, PUBLIC, &signed.pem())?;
        Ok(Self { cert, key, issuer: Issuer::new(params, pair) })
    }

    /// Opens one.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Self> {
        let (cert, key) = (dir.join(CERT), dir.join(KEY));
        let advice = "`moorline ca init` makes an authority";
        let read = |path: &Path| {
            let text = fs::read_to_string(path);
            text.with_context(|| format!("cannot read {}; {advice}", path.display()))
        };
        let pair = KeyPair::from_pem(&read(&key)?)
            .with_context(|| format!("{}: not a key", key.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&read(&cert)?, pair)
            .with_context(|| format!("{}: not a certificate", cert.display()))?;
        Ok(Self { cert, key, issuer })
    }

    /// Makes a key and a certificate beside it, `FILE.key` and `FILE.pem`; refuses where one is.
    pub(super) fn issue(&self, file: &Path, wanted: &Wanted<'_>) -> anyhow::Result<Issued> {
        let with = |extension: &str| {
            let mut path = file.as_os_str().to_owned();
            path.push(extension);
            PathBuf::from(path)
        };
        let issued = Issued { cert: with(".pem"), key: with(".key") };
        let pair = KeyPair::generate()?;
        let mut params = params(wanted.name, wanted.sans.clone(), wanted.days)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let (server, client) =
            (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
        params.extended_key_usages = match wanted.purpose {
            Purpose::Server => vec![server],
            Purpose::Client => vec![client],
            Purpose::Node => vec![server, client],
        };
        let signed = params.signed_by(&pair, &self.issuer)?;
        refuse_existing(&[&issued.cert, &issued.key])?;
        write_new(&issued.key, SECRET, &pair.serialize_pem())?;
        write_new(&issued.cert, PUBLIC, &signed.pem())?;
        Ok(issued)
    }
}

fn params(name: &str, sans: Vec<String>, days: u32) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(sans).context("a name that no certificate can have")?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + DAY * days).into();
    Ok(params)
}

fn refuse_existing(paths: &[&Path]) -> anyhow::Result<()> {
    if let Some(path) = paths.iter().find(|path| path.exists()) {
        bail!("{} is there already, and is not overwritten", path.display());
    }
    Ok(())
}

fn write_new(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.sync_all()?)
}
