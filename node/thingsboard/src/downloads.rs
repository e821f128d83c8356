//! Packages that a device loads over MQTT, part by part.
//!
//! # Invariants
//!
//! - **A part is of the package that is assigned**: it is looked up anew with each first part, when the device's attributes change, and
//!   after [`KNOWN_FOR`].
//! - **At most [`SIZES_MAX`] downloads of a connection have their size of parts remembered**: of more, the oldest has to say it again.
//!
//! Checked by the cluster tests (`thingsboard_packages.rs`).

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use moorline_core::port::{Ended, Notice};
use moorline_dialects::thingsboard::{
    mqtt::{Outcome, PACKET_BYTES_MAX},
    ota::{self, ChunkError, PackageKind, Source},
    requests::PackageRequest,
    topics::{self, CHUNK_ERROR, ChunkTopic, Publish},
};
use moorline_edge::asks::tell;
use moorline_service::registry::RegistryError;
use tokio::time::Instant;

use crate::{
    packages::Held,
    session::{Asked, Session},
};

/// How long it is taken for sure which package is assigned: a few thousand parts may be loaded in that time.
const KNOWN_FOR: Duration = Duration::from_secs(30);
/// Downloads of one connection whose size of parts is remembered.
const SIZES_MAX: usize = 8;

/// See the module.
#[derive(Default)]
pub(crate) struct Downloads {
    /// What each download has said last: the newest at the end.
    sizes: VecDeque<(PackageKind, String, u64)>,
    /// Which package is assigned, of either kind, and since when that is known.
    assigned: Vec<(PackageKind, Instant, Option<Held>)>,
}

impl Downloads {
    /// The size of parts that a download has said before.
    pub(crate) fn earlier(&self, publish: &Publish) -> Option<u64> {
        let Publish::Chunk(ChunkTopic { kind, request, .. }) = publish else { return None };
        let of = |(of, name, _): &&(PackageKind, String, u64)| (of, name) == (kind, request);
        self.sizes.iter().find(of).map(|(.., size)| *size)
    }

    fn said(&mut self, kind: PackageKind, request: &str, size: u64) {
        self.sizes.retain(|(of, name, _)| (*of, name.as_str()) != (kind, request));
        if self.sizes.len() >= SIZES_MAX {
            self.sizes.pop_front();
        }
        self.sizes.push_back((kind, request.to_owned(), size));
    }

    /// Something of the device has changed: perhaps its packages.
    pub(crate) fn forget(&mut self) {
        self.assigned.clear();
    }

    fn known(&self, kind: PackageKind) -> Option<Option<Held>> {
        let found =
            self.assigned.iter().find(|(of, since, _)| *of == kind && since.elapsed() < KNOWN_FOR);
        found.map(|(.., held)| held.clone())
    }

    fn know(&mut self, kind: PackageKind, held: Option<Held>) {
        self.assigned.retain(|(of, ..)| *of != kind);
        self.assigned.push((kind, Instant::now(), held));
    }
}

/// Why a part is not sent.
enum Unsent {
    /// The device hears it, and its connection ends.
    Refused(ChunkError),
    /// Nobody can say now.
    Failed,
}

impl From<RegistryError> for Unsent {
    fn from(_: RegistryError) -> Self {
        Self::Failed
    }
}

impl Session {
    /// Sends a part of a package; false at the end.
    pub(crate) async fn part(
        &mut self,
        asked: Asked,
        topic: &ChunkTopic,
        request: PackageRequest,
    ) -> bool {
        self.downloads.said(topic.kind, &topic.request, request.size);
        match self.part_of(&request).await {
            Ok(part) => {
                self.say(&topics::chunk_response(topic), part);
                self.outcome(asked, Outcome::Done)
            }
            Err(Unsent::Refused(error)) => self.no_part(asked, error),
            Err(Unsent::Failed) => self.outcome(asked, Outcome::Failed),
        }
    }

    /// Says why there is no part. The connection ends then.
    pub(crate) fn no_part(&self, asked: Asked, error: ChunkError) -> bool {
        self.count(asked, "invalid");
        self.say(CHUNK_ERROR, Bytes::from(error.to_string()));
        tell(&self.inbox, Notice::Ended(Ended::Misused));
        false
    }

    async fn part_of(&mut self, request: &PackageRequest) -> Result<Bytes, Unsent> {
        let kind = request.kind;
        let known = self.downloads.known(kind).filter(|_| request.chunk > 0);
        let held = match known {
            Some(known) => known,
            None => {
                let held = self.device.door.assigned_to(&self.device.guest, kind).await?;
                self.downloads.know(kind, held.clone());
                held
            }
        };
        let not_found = Unsent::Refused(ChunkError::NotFound);
        let Some(held) = held else { return Err(not_found) };
        let package = held.package().map(|package| package.source);
        let (Some(Source::Stored { size, .. }), Some(pieces)) =
            (package, held.pieces(self.device.guest.tenant))
        else {
            return Err(not_found);
        };
        let range = ota::chunk(size, request.size, request.chunk, u64::from(PACKET_BYTES_MAX));
        let range = range.map_err(Unsent::Refused)?;
        Ok(pieces.whole(&self.device.door, range).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(request: &str) -> Publish {
        let (kind, request) = (PackageKind::Firmware, request.to_owned());
        Publish::Chunk(ChunkTopic { kind, request, chunk: 1 })
    }

    #[test]
    fn the_oldest_download_has_to_say_its_size_again() {
        let mut downloads = Downloads::default();
        for number in 0..=SIZES_MAX {
            downloads.said(PackageKind::Firmware, &number.to_string(), 100 + number as u64);
        }
        assert_eq!(downloads.earlier(&chunk("0")), None);
        assert_eq!(downloads.earlier(&chunk("1")), Some(101));
        downloads.said(PackageKind::Firmware, "1", 7);
        assert_eq!(downloads.earlier(&chunk("1")), Some(7));
        assert_eq!(downloads.sizes.len(), SIZES_MAX);
        assert_eq!(downloads.earlier(&Publish::Claim), None);
    }
}
