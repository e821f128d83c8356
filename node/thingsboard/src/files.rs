//! Packages' bytes on their way: pieces of a package, one after the other.
//!
//! Invariant: no more than [`PIECE_BYTES`] of a package that is sent are in memory at a time, but for what a connection holds. Checked by
//! reading.

use std::{fmt, ops::Range, pin::Pin};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use moorline_core::{TenantId, Text};
use moorline_machine::documents::Space;
use moorline_service::registry::RegistryError;
use uuid::Uuid;

use crate::door::Door;

/// Bytes of all pieces of a package but the last.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;
/// The most bytes of a range that is read as a whole.
pub(crate) const WHOLE_BYTES_MAX: u64 = 4 * PIECE_BYTES as u64;

/// Where the pieces of a package are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) space: Space,
}

/// What is read while it is sent.
pub(crate) type Bytestream = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A file in the place of a body.
pub(crate) struct File {
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) bytes: Bytestream,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("headers", &self.headers).finish_non_exhaustive()
    }
}

/// The number of a piece as the id of its document: in the order of the bytes.
pub(crate) fn piece_id(number: u64) -> Text {
    Text::from(format!("{number:08}"))
}

impl Pieces {
    /// Those of one taking in of a package's bytes.
    pub(crate) fn of(tenant: TenantId, package: Uuid, upload: &str) -> Self {
        Self { space: Space::of_tenant(tenant, &format!("thingsboard/package/{package}/{upload}")) }
    }

    /// What of one piece is in a range.
    async fn piece(
        &self,
        door: &Door,
        number: u64,
        range: &Range<u64>,
    ) -> Result<Bytes, RegistryError> {
        let found = door.registry.document(&self.space, &piece_id(number)).await?;
        // It was deleted a moment ago.
        let body = found.ok_or(RegistryError::Unavailable)?.body;
        let begin = number * PIECE_BYTES as u64;
        let at = |place: u64| {
            let within = place.saturating_sub(begin).min(body.len() as u64);
            usize::try_from(within).unwrap_or(body.len())
        };
        Ok(body.slice(at(range.start)..at(range.end)))
    }

    /// A range of the package: for no more than [`WHOLE_BYTES_MAX`].
    pub(crate) async fn whole(
        &self,
        door: &Door,
        range: Range<u64>,
    ) -> Result<Bytes, RegistryError> {
        let mut whole = BytesMut::new();
        for number in numbers(&range) {
            let piece = self.piece(door, number, &range).await?;
            if piece.len() as u64 == range.end - range.start {
                return Ok(piece);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// A range of the package, read piece by piece. It breaks off when one can't be read: a client hears that by its length.
    pub(crate) fn stream(self, door: Door, range: Range<u64>) -> Bytestream {
        let all = numbers(&range);
        let begin = (self, door, range, all);
        Box::pin(stream::unfold(begin, |(pieces, door, range, mut left)| async move {
            let number = left.next()?;
            let piece = pieces.piece(&door, number, &range).await.ok()?;
            Some((piece, (pieces, door, range, left)))
        }))
    }
}

/// The pieces that a range touches.
fn numbers(range: &Range<u64>) -> Range<u64> {
    let piece = PIECE_BYTES as u64;
    if range.is_empty() { 0..0 } else { range.start / piece..range.end.div_ceil(piece) }
}

/// Headers of a file of so many bytes.
pub(crate) fn headers(
    file_name: &str,
    content_type: &str,
    size: u64,
) -> Vec<(&'static str, String)> {
    // A name with other characters could end the header.
    let plain = |char: char| if char.is_ascii_graphic() && char != '"' { char } else { '_' };
    let file_name: String = file_name.chars().map(plain).collect();
    vec![
        ("content-type", content_type.to_owned()),
        ("content-disposition", format!("attachment;filename={file_name}")),
        ("x-filename", file_name),
        ("content-length", size.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_its_pieces() {
        let piece = PIECE_BYTES as u64;
        assert_eq!(numbers(&(0..0)), 0..0);
        assert_eq!(numbers(&(5..5)), 0..0);
        assert_eq!(numbers(&(0..1)), 0..1);
        assert_eq!(numbers(&(0..piece)), 0..1);
        assert_eq!(numbers(&(piece - 1..piece + 1)), 0..2);
        assert_eq!(numbers(&(piece..3 * piece + 1)), 1..4);
        assert!(piece_id(9) < piece_id(10));
    }
}
