//! Packages: made, given their bytes, found, listed, downloaded and deleted; and brought to a device that is to have one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, future::BoxFuture, stream, stream::FuturesUnordered};
use moorline_core::{TenantId, Text};
pub(super) use moorline_dialects::thingsboard::rest::packages::Route;
use moorline_dialects::thingsboard::{
    checksum::Checksum,
    ota::{ChecksumAlgorithm, PackageKind},
    rest::{
        entities::{Page, PageQuery},
        errors::ErrorCode,
        ids,
        packages::{Data, NewPackage, PackageInfo, TEXT_CHARS_MAX},
    },
};
use moorline_http::{Body, Head, Unread};
use moorline_machine::{documents::Expect, registry::DeviceRecord};
use moorline_service::registry::{RegistryError, documents::is_conflict, settings};
use multer::{Constraints, Multipart, SizeLimit};
use serde_json::Value;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{Failed, Reply, Rest, auth::Integrator, parsed};
use crate::{
    assign::Bearer,
    files::{File, PIECE_BYTES, Pieces, headers, piece_id},
    marks,
    packages::{Held, PACKAGES_MAX},
};

/// Bytes of one package.
const PACKAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What stands around them in a body.
const AROUND_BYTES_MAX: usize = 64 * 1024;
/// How long taking in a package may take: a connection and a few pieces in memory are held for it.
const UPLOAD_WAIT: Duration = Duration::from_secs(600);
/// Pieces of one package that are being written at once.
const WRITES_MAX: usize = 4;
/// How often a piece is written again when the cluster is busy.
const TRIES_MAX: usize = 10;
/// How long it waits then.
const PAUSE: Duration = Duration::from_millis(200);
/// The field of a form that is the file.
const FILE: &str = "file";
/// What the vendor's SDK says for a checksum that it does not say.
const NO_CHECKSUM: &str = "None";

/// Bytes of a package that are to be taken in.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) id: Uuid,
    pub(super) checksum: Option<String>,
    pub(super) algorithm: ChecksumAlgorithm,
}

fn wrong(why: impl Into<String>) -> Failed {
    Failed::new(ErrorCode::BadRequestParams, why)
}

impl From<multer::Error> for Failed {
    fn from(error: multer::Error) -> Self {
        let too_large = matches!(
            error,
            multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. }
        );
        match too_large {
            true => wrong("a package has at most 64 MiB"),
            false => wrong(format!("the form can't be read: {error}")),
        }
    }
}

/// A body broke off.
#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
struct BrokeOff;

impl Rest {
    pub(super) async fn packages(
        &self,
        who: &Integrator,
        route: Route,
        body: &[u8],
    ) -> Result<Reply, Failed> {
        let tenant = who.tenant;
        let shows = |held: &Held| Reply::json(&shown(tenant, held));
        match route {
            Route::Save => {
                who.may_manage()?;
                Ok(shows(&self.save_package(tenant, parsed(body)?).await?))
            }
            Route::Get(id) => Ok(shows(&self.package(tenant, id).await?)),
            Route::Download(id) => self.download(tenant, id).await,
            Route::Delete(id) => {
                who.may_manage()?;
                self.remove_package(tenant, id).await?;
                Ok(Reply::nothing())
            }
            Route::List { page, of } => self.list_packages(tenant, &page, of).await,
            // It has a body of another sort, and is taken in before this.
            Route::Upload { .. } => Err(Failed::not_found()),
        }
    }

    async fn package(&self, tenant: TenantId, id: Uuid) -> Result<Held, Failed> {
        self.door.package(tenant, id).await?.ok_or_else(Failed::not_found)
    }

    async fn list_packages(
        &self,
        tenant: TenantId,
        page: &PageQuery,
        of: Option<(Uuid, PackageKind)>,
    ) -> Result<Reply, Failed> {
        let mut all = self.door.all_packages(tenant).await?;
        let text = page.text_search.as_ref().map(|text| text.to_lowercase());
        all.retain(|Held { info, .. }| {
            let is_found = |text: &String| {
                [&info.title, &info.version].iter().any(|said| said.to_lowercase().contains(text))
            };
            let is_of = |(profile, kind): (Uuid, PackageKind)| {
                info.device_profile_id == profile && info.kind == kind && info.package().is_some()
            };
            text.as_ref().is_none_or(is_found) && of.is_none_or(is_of)
        });
        match page.sort_property.as_deref() {
            Some("title") => all.sort_by(|a, b| a.info.title.cmp(&b.info.title)),
            Some("version") => all.sort_by(|a, b| a.info.version.cmp(&b.info.version)),
            Some("type") => all.sort_by_key(|held| held.info.kind),
            Some(_) | None => all.sort_by_key(|held| held.info.created_time),
        }
        if page.descending {
            all.reverse();
        }
        let at = |count| usize::try_from(count).unwrap_or(usize::MAX);
        let on_page = all.iter().skip(at(page.offset())).take(at(page.size));
        let data = on_page.map(|held| shown(tenant, held)).collect();
        Ok(Reply::json(&Page::of(data, all.len() as u64, page)))
    }

    async fn download(&self, tenant: TenantId, id: Uuid) -> Result<Reply, Failed> {
        let held = self.package(tenant, id).await?;
        let (Some(data), Some(pieces)) = (&held.info.data, held.pieces(tenant)) else {
            return Err(Failed::not_found());
        };
        let headers = headers(&data.file_name, &data.content_type, data.data_size);
        let bytes = pieces.stream(self.door.clone(), 0..data.data_size);
        Ok(Reply { file: Some(File { headers, bytes }), ..Reply::nothing() })
    }

    // ---- what is said of one

    async fn save_package(&self, tenant: TenantId, body: Value) -> Result<Held, Failed> {
        let invalid = |why: String| Failed::new(ErrorCode::InvalidArguments, why);
        let new: NewPackage =
            serde_json::from_value(body).map_err(|why| invalid(why.to_string()))?;
        new.check().map_err(|why| invalid(why.to_string()))?;
        let profile = new.device_profile_id.ok_or_else(|| invalid("deviceProfileId".into()))?.id;
        if let Some(id) = new.id {
            let mut held = self.package(tenant, id.id).await?;
            let PackageInfo { kind, title, version, device_profile_id, url, .. } = &held.info;
            let same = (kind, title, version, device_profile_id, url)
                == (&new.kind, &new.title, &new.version, &profile, &new.url);
            if !same || new.tag.as_ref().is_some_and(|tag| *tag != held.info.tag) {
                return Err(wrong("a package stays what it is: only additionalInfo changes"));
            }
            held.info.additional_info = new.additional_info;
            held.version = self.door.put_package(tenant, &held).await?;
            return Ok(held);
        }
        self.profile(tenant, profile)
            .await
            .map_err(|_| wrong("there is no such device profile"))?;
        if self.door.all_packages(tenant).await?.len() >= PACKAGES_MAX {
            return Err(ErrorCode::EntitiesLimit.into());
        }
        let name = PackageInfo::unique_name(new.kind, &new.title, &new.version);
        let id = ids::of_named(tenant, &name);
        let info = PackageInfo::new(new, profile, self.now_ms());
        let mut held = Held { id, info, upload: None, version: 0 };
        let put = self.door.put_package(tenant, &held).await;
        if put.as_ref().is_err_and(is_conflict) {
            return Err(wrong("OtaPackage with such title and version already exists!"));
        }
        held.version = put?;
        Ok(held)
    }

    async fn remove_package(&self, tenant: TenantId, id: Uuid) -> Result<(), Failed> {
        let mut held = self.package(tenant, id).await?;
        let kind = held.info.kind;
        let profiles = self.door.all_profiles(tenant).await?;
        if profiles.iter().any(|known| known.profile.package(kind) == Some(id)) {
            let why = "The otaPackage referenced by the device profile cannot be deleted!";
            return Err(wrong(why));
        }
        let mut after = None;
        loop {
            let (rows, next) = self.some(tenant, after).await?;
            let has = |record: &DeviceRecord| {
                marks::package(&settings::read(&record.settings), kind) == Some(id)
            };
            if rows.iter().any(|(_, record)| has(record)) {
                return Err(wrong("The otaPackage referenced by the devices cannot be deleted!"));
            }
            let Some(next) = next else { break };
            after = Some(next);
        }
        // First nobody finds its bytes, then they go: whoever is cut off in between may ask again.
        held.info.data = None;
        held.version = self.door.put_package(tenant, &held).await?;
        if let Some(upload) = &held.upload {
            self.door.registry.delete_documents(&Pieces::of(tenant, id, upload).space).await?;
        }
        self.door.delete_package(tenant, &held).await?;
        Ok(())
    }

    // ---- its bytes

    pub(super) async fn upload(
        &self,
        who: &Integrator,
        upload: Upload,
        head: &Head,
        body: Body,
    ) -> Result<Reply, Failed> {
        who.may_manage()?;
        let tenant = who.tenant;
        let mut held = self.package(tenant, upload.id).await?;
        if held.package().is_some() {
            return Err(wrong("Updating otaPackage data is prohibited!"));
        }
        let all = head.headers();
        let form = all.iter().find(|(name, _)| *name == "content-type").map(|(_, value)| *value);
        let form = form.and_then(|form| std::str::from_utf8(form).ok()).unwrap_or_default();
        let boundary = multer::parse_boundary(form)?;
        // What an earlier one left goes; that one ends when it finds that it is not noted any more.
        let name = format!("{:016x}", rand::random::<u64>());
        let old = held.upload.replace(name.clone());
        held.version = self.door.put_package(tenant, &held).await?;
        if let Some(old) = old {
            let old = Pieces::of(tenant, held.id, &old);
            self.door.registry.delete_documents(&old.space).await?;
        }
        let pieces = Pieces::of(tenant, held.id, &name);
        let taken = self.take_in(&pieces, &upload, boundary, body);
        let taken = timeout(UPLOAD_WAIT, taken).await;
        let taken = taken.unwrap_or_else(|_| Err(wrong("the package took longer than 10 minutes")));
        let put = match taken {
            Ok(data) => {
                held.info.data = Some(data);
                self.door.put_package(tenant, &held).await.map_err(Failed::from)
            }
            Err(failed) => Err(failed),
        };
        match put {
            Ok(version) => {
                held.version = version;
                Ok(Reply::json(&shown(tenant, &held)))
            }
            Err(failed) => {
                // If this fails, too, the next upload does it, or whoever deletes the package.
                drop(self.door.registry.delete_documents(&pieces.space).await);
                Err(failed)
            }
        }
    }

    /// Takes in the file of a form, piece by piece.
    async fn take_in(
        &self,
        pieces: &Pieces,
        upload: &Upload,
        boundary: String,
        body: Body,
    ) -> Result<Data, Failed> {
        let parts = stream::try_unfold(body, |mut body| async move {
            match body.part().await {
                Ok(Some(part)) => Ok(Some((part, body))),
                Ok(None) => Ok(None),
                Err(Unread::BrokeOff | Unread::TooLarge) => Err(BrokeOff),
            }
        });
        let most = (PACKAGE_BYTES_MAX + AROUND_BYTES_MAX) as u64;
        let limit = SizeLimit::new().whole_stream(most).for_field(FILE, PACKAGE_BYTES_MAX as u64);
        let limits = Constraints::new().size_limit(limit);
        let mut form = Multipart::with_constraints(parts, boundary, limits);
        while let Some(mut field) = form.next_field().await? {
            if field.name() != Some(FILE) {
                continue;
            }
            let named = |text: Option<String>, other: &str| {
                let text = text.filter(|text| !text.is_empty()).unwrap_or_else(|| other.to_owned());
                text.chars().take(TEXT_CHARS_MAX).collect::<String>()
            };
            let file_name = named(field.file_name().map(str::to_owned), "package");
            let content_type =
                named(field.content_type().map(ToString::to_string), "application/octet-stream");
            let mut writing = Writing::new(self.clone(), pieces.clone(), upload.algorithm);
            while let Some(bytes) = field.chunk().await? {
                writing.add(&bytes).await?;
            }
            let (checksum, data_size) = writing.end().await?;
            let said = upload.checksum.as_deref().filter(|said| *said != NO_CHECKSUM);
            if data_size == 0 {
                return Err(wrong("the file is empty"));
            }
            if said.is_some_and(|said| !said.eq_ignore_ascii_case(&checksum)) {
                return Err(wrong(format!("the checksum is {checksum}")));
            }
            let checksum_algorithm = upload.algorithm;
            return Ok(Data { file_name, content_type, checksum_algorithm, checksum, data_size });
        }
        Err(wrong("the form has no field `file`"))
    }

    // ---- whose it is

    /// Whether devices of a profile may have a package.
    pub(super) async fn assignable(
        &self,
        tenant: TenantId,
        profile: Uuid,
        kind: PackageKind,
        id: Uuid,
    ) -> Result<(), Failed> {
        let held = self.door.package(tenant, id).await?;
        let held = held.ok_or_else(|| wrong("Can't assign non-existent firmware or software!"))?;
        if held.info.kind != kind {
            return Err(wrong("Can't assign a package of another type!"));
        }
        if held.package().is_none() {
            return Err(wrong("Can't assign firmware with empty data!"));
        }
        if held.info.device_profile_id != profile {
            return Err(wrong("Can't assign firmware with different deviceProfile!"));
        }
        Ok(())
    }

    /// Has a device's attributes say what it is to have, after it was written.
    pub(super) async fn bring_packages(
        &self,
        tenant: TenantId,
        device: &Text,
        record: &DeviceRecord,
    ) -> Result<(), Failed> {
        let to = Bearer { tenant, device: device.clone(), born: record.born };
        Ok(self.door.settle(&to).await?)
    }
}

fn shown(tenant: TenantId, held: &Held) -> Value {
    held.info.shown(held.id, ids::of_tenant(tenant))
}

/// Bytes that become pieces.
struct Writing {
    rest: Rest,
    pieces: Pieces,
    checksum: Checksum,
    /// What is less than a piece.
    left: BytesMut,
    number: u64,
    size: u64,
    writes: FuturesUnordered<BoxFuture<'static, Result<(), RegistryError>>>,
}

impl Writing {
    fn new(rest: Rest, pieces: Pieces, algorithm: ChecksumAlgorithm) -> Self {
        let (checksum, writes) = (Checksum::new(algorithm), FuturesUnordered::new());
        let left = BytesMut::with_capacity(2 * PIECE_BYTES);
        Self { rest, pieces, checksum, left, number: 0, size: 0, writes }
    }

    async fn add(&mut self, bytes: &[u8]) -> Result<(), Failed> {
        self.checksum.add(bytes);
        self.size += bytes.len() as u64;
        self.left.extend_from_slice(bytes);
        while self.left.len() >= PIECE_BYTES {
            let piece = self.left.split_to(PIECE_BYTES).freeze();
            self.write(piece).await?;
        }
        Ok(())
    }

    async fn write(&mut self, piece: Bytes) -> Result<(), Failed> {
        while self.writes.len() >= WRITES_MAX {
            if let Some(written) = self.writes.next().await {
                written?;
            }
        }
        let (registry, space) = (self.rest.door.registry.clone(), self.pieces.space.clone());
        let id = piece_id(self.number);
        self.number += 1;
        self.writes.push(Box::pin(async move {
            let mut tries = 0;
            loop {
                match registry.put_document(&space, &id, piece.clone(), Expect::Any).await {
                    Err(RegistryError::Busy | RegistryError::Unavailable) if tries < TRIES_MAX => {
                        tries += 1;
                        sleep(PAUSE).await;
                    }
                    put => return put.map(drop),
                }
            }
        }));
        Ok(())
    }

    /// The checksum, and how many bytes there are, when all are written.
    async fn end(mut self) -> Result<(String, u64), Failed> {
        if !self.left.is_empty() {
            let piece = self.left.split().freeze();
            self.write(piece).await?;
        }
        while let Some(written) = self.writes.next().await {
            written?;
        }
        Ok((self.checksum.digits(), self.size))
    }
}
