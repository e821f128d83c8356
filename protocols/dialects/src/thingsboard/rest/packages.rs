//! Packages over the REST API: routes, and what is said of one.
//!
//! A package is made in two steps, as the vendor has it: what it is called, and its bytes. Once they are there nothing but what is said
//! about it (`additionalInfo`) changes.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use uuid::Uuid;

use super::entities::{EntityId, EntityType, PageQuery};
use crate::thingsboard::{
    ota::{ChecksumAlgorithm, Package, PackageKind, Source},
    query::{Query, WrongParameter},
};

/// The longest title, version, tag and file name, in characters.
pub const TEXT_CHARS_MAX: usize = 255;
/// The longest address of bytes that are elsewhere, in characters.
pub const URL_CHARS_MAX: usize = 255;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `POST /api/otaPackage`
    Save,
    /// `POST /api/otaPackage/{id}?checksum=&checksumAlgorithm=`
    Upload {
        /// Which package.
        id: Uuid,
        /// What its bytes have to come to, if it was said.
        checksum: Option<String>,
        /// By which algorithm.
        algorithm: ChecksumAlgorithm,
    },
    /// `GET /api/otaPackage/{id}`, `GET /api/otaPackage/info/{id}`
    Get(Uuid),
    /// `GET /api/otaPackage/{id}/download`
    Download(Uuid),
    /// `DELETE /api/otaPackage/{id}`
    Delete(Uuid),
    /// `GET /api/otaPackages`, `GET /api/otaPackages/{deviceProfileId}/{type}`
    List {
        /// Which page.
        page: PageQuery,
        /// Only those of this profile and kind that have bytes.
        of: Option<(Uuid, PackageKind)>,
    },
}

fn kind(name: &str) -> Result<PackageKind, WrongParameter> {
    match name {
        "FIRMWARE" => Ok(PackageKind::Firmware),
        "SOFTWARE" => Ok(PackageKind::Software),
        _ => Err(WrongParameter::Value("the type")),
    }
}

/// Reads a path; `None` if it is none of packages.
///
/// # Errors
///
/// A parameter is wrong.
pub fn route(method: &str, path: &str, query: &Query<'_>) -> Result<Option<Route>, WrongParameter> {
    let Some(rest) = path.strip_prefix("/api/") else { return Ok(None) };
    let parts: Vec<&str> = rest.split('/').collect();
    let id = |text: &str| text.parse::<Uuid>().map_err(|_| WrongParameter::Value("the id"));
    Ok(Some(match (method, parts.as_slice()) {
        ("POST", ["otaPackage"]) => Route::Save,
        ("POST", ["otaPackage", package]) => {
            let name = query.get("checksumAlgorithm").unwrap_or("SHA256");
            let algorithm = ChecksumAlgorithm::by_name(name)
                .ok_or(WrongParameter::Value("checksumAlgorithm"))?;
            let checksum = query.get("checksum").map(str::to_owned);
            Route::Upload { id: id(package)?, checksum, algorithm }
        }
        ("GET", ["otaPackage", "info", package] | ["otaPackage", package]) => {
            Route::Get(id(package)?)
        }
        ("GET", ["otaPackage", package, "download"]) => Route::Download(id(package)?),
        ("DELETE", ["otaPackage", package]) => Route::Delete(id(package)?),
        ("GET", ["otaPackages"]) => Route::List { page: PageQuery::read(query)?, of: None },
        ("GET", ["otaPackages", profile, name]) => {
            let of = Some((id(profile)?, kind(name)?));
            Route::List { page: PageQuery::read(query)?, of }
        }
        _ => return Ok(None),
    }))
}

/// What a package is called, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewPackage {
    /// Its id, if it is there already.
    #[serde(default)]
    pub id: Option<EntityId>,
    /// Whose devices it is for.
    #[serde(default)]
    pub device_profile_id: Option<EntityId>,
    /// Which kind.
    #[serde(rename = "type")]
    pub kind: PackageKind,
    /// Its title.
    pub title: String,
    /// Its version.
    pub version: String,
    /// What devices are told of both; title and version without it.
    #[serde(default)]
    pub tag: Option<String>,
    /// Where its bytes are, if they are elsewhere.
    #[serde(default)]
    pub url: Option<String>,
    /// What is said about it.
    #[serde(default)]
    pub additional_info: Option<Value>,
}

/// Why a package can't be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvalidPackage {
    /// Title, version or tag.
    #[error("{0}: 1 to {TEXT_CHARS_MAX} characters, none of control")]
    Text(&'static str),
    /// The address.
    #[error("url: 1 to {URL_CHARS_MAX} characters, none of control")]
    Url,
    /// The profile.
    #[error("deviceProfileId is needed")]
    NoProfile,
}

impl NewPackage {
    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), InvalidPackage> {
        let fits = |text: &str, chars_max: usize| {
            (1..=chars_max).contains(&text.chars().count()) && !text.chars().any(char::is_control)
        };
        let texts = [("title", Some(&self.title)), ("version", Some(&self.version))];
        for (name, text) in texts.into_iter().chain([("tag", self.tag.as_ref())]) {
            if text.is_some_and(|text| !fits(text, TEXT_CHARS_MAX)) {
                return Err(InvalidPackage::Text(name));
            }
        }
        if self.url.as_ref().is_some_and(|url| !fits(url, URL_CHARS_MAX)) {
            return Err(InvalidPackage::Url);
        }
        if self.device_profile_id.is_none() { Err(InvalidPackage::NoProfile) } else { Ok(()) }
    }
}

/// The bytes of a package that are here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Data {
    /// What the file was called.
    pub file_name: String,
    /// What it is.
    pub content_type: String,
    /// How the checksum was made.
    pub checksum_algorithm: ChecksumAlgorithm,
    /// The checksum, in hexadecimal digits.
    pub checksum: String,
    /// How many bytes.
    pub data_size: u64,
}

/// A package as it is kept and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageInfo {
    /// When it was made, in milliseconds since the epoch.
    pub created_time: i64,
    /// Whose devices it is for.
    pub device_profile_id: Uuid,
    /// Which kind.
    #[serde(rename = "type")]
    pub kind: PackageKind,
    /// Its title.
    pub title: String,
    /// Its version.
    pub version: String,
    /// Title and version, or what its owner has chosen.
    pub tag: String,
    /// Where its bytes are, if they are elsewhere.
    #[serde(default)]
    pub url: Option<String>,
    /// Its bytes, if they are here.
    #[serde(default)]
    pub data: Option<Data>,
    /// What is said about it.
    #[serde(default)]
    pub additional_info: Option<Value>,
}

impl PackageInfo {
    /// A new one.
    #[must_use]
    pub fn new(new: NewPackage, device_profile_id: Uuid, created_time: i64) -> Self {
        let NewPackage { kind, title, version, tag, url, additional_info, .. } = new;
        let tag = tag.unwrap_or_else(|| format!("{title} {version}"));
        Self {
            created_time,
            device_profile_id,
            kind,
            title,
            version,
            tag,
            url,
            data: None,
            additional_info,
        }
    }

    /// As devices are told of it; `None` as long as it has no bytes.
    #[must_use]
    pub fn package(&self) -> Option<Package> {
        let source = match (&self.url, &self.data) {
            (Some(url), _) => Source::Url(url.clone()),
            (None, Some(data)) => Source::Stored {
                size: data.data_size,
                algorithm: data.checksum_algorithm,
                checksum: data.checksum.clone(),
            },
            (None, None) => return None,
        };
        let Self { kind, title, version, tag, .. } = self.clone();
        Some(Package { kind, title, version, tag, source })
    }

    /// What no other package of the tenant has.
    #[must_use]
    pub fn unique_name(kind: PackageKind, title: &str, version: &str) -> String {
        // No name of a profile or a user has such characters.
        format!("\u{1}{}\u{1}{title}\u{1}{version}", kind.prefix())
    }

    /// As the API shows it.
    #[must_use]
    pub fn shown(&self, id: Uuid, tenant: Uuid) -> Value {
        let entity = |entity_type, id| json!(EntityId { entity_type, id });
        let data = self.data.as_ref();
        json!({
            "id": entity(EntityType::OtaPackage, id),
            "createdTime": self.created_time,
            "tenantId": entity(EntityType::Tenant, tenant),
            "deviceProfileId": entity(EntityType::DeviceProfile, self.device_profile_id),
            "type": self.kind,
            "title": self.title,
            "version": self.version,
            "tag": self.tag,
            "url": self.url,
            "hasData": data.is_some(),
            "fileName": data.map(|data| &data.file_name),
            "contentType": data.map(|data| &data.content_type),
            "checksumAlgorithm": data.map(|data| data.checksum_algorithm),
            "checksum": data.map(|data| &data.checksum),
            "dataSize": data.map(|data| data.data_size),
            "externalId": null,
            "name": self.title,
            "additionalInfo": self.additional_info,
        })
    }
}
