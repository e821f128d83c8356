//! Questions about documents: their bytes.

use bytes::{BufMut, BytesMut};

use super::{begin, put_bytes, read_bytes};
use crate::{
    codec::{Malformed, Reader, put_list, put_option, put_space, put_text, read_space},
    documents::{Document, DocumentsFound, DocumentsPage, DocumentsQuery},
};

/// The kinds of questions and answers.
pub(super) const ONE: u8 = 110;
pub(super) const PAGE: u8 = 111;
/// The least bytes of a document: lets a count be checked before anything is allocated for it.
const DOCUMENT_BYTES_MIN: usize = 24;

pub(super) fn put_query(query: &DocumentsQuery) -> BytesMut {
    match query {
        DocumentsQuery::One { space, id } => {
            let mut out = begin(ONE);
            put_space(&mut out, space);
            put_text(&mut out, id);
            out
        }
        DocumentsQuery::Page { space, after, documents_max } => {
            let mut out = begin(PAGE);
            put_space(&mut out, space);
            put_option(&mut out, after.as_ref(), put_text);
            out.put_u16(*documents_max);
            out
        }
    }
}

/// Reads what follows [`ONE`] or [`PAGE`].
pub(super) fn read_query(kind: u8, reader: &mut Reader) -> Result<DocumentsQuery, Malformed> {
    let space = read_space(reader)?;
    if kind == ONE {
        return Ok(DocumentsQuery::One { space, id: reader.text()? });
    }
    let after = reader.option(Reader::text)?;
    Ok(DocumentsQuery::Page { space, after, documents_max: reader.u16()? })
}

pub(super) fn put_found(found: &DocumentsFound) -> BytesMut {
    match found {
        DocumentsFound::One(document) => {
            let mut out = begin(ONE);
            put_option(&mut out, document.as_ref(), put_document);
            out
        }
        DocumentsFound::Page(DocumentsPage { documents, more }) => {
            let mut out = begin(PAGE);
            put_list(&mut out, documents, put_document);
            out.put_u8(u8::from(*more));
            out
        }
    }
}

/// Reads what follows [`ONE`] or [`PAGE`].
pub(super) fn read_found(kind: u8, reader: &mut Reader) -> Result<DocumentsFound, Malformed> {
    if kind == ONE {
        return Ok(DocumentsFound::One(reader.option(read_document)?));
    }
    let documents = reader.list(DOCUMENT_BYTES_MIN, read_document)?;
    Ok(DocumentsFound::Page(DocumentsPage { documents, more: reader.bool()? }))
}

fn put_document(out: &mut BytesMut, Document { id, version, changed, body }: &Document) {
    put_text(out, id);
    out.put_u64(*version);
    out.put_u64(changed.0);
    put_bytes(out, body);
}

fn read_document(reader: &mut Reader) -> Result<Document, Malformed> {
    Ok(Document {
        id: reader.text()?,
        version: reader.u64()?,
        changed: reader.millis()?,
        body: read_bytes(reader)?,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use moorline_core::{TenantId, Text, UnixMillis};

    use super::*;
    use crate::{
        documents::Space,
        query::{Found, Query},
    };

    #[test]
    fn questions_about_documents_and_their_answers_come_through() {
        let space = || Space::of_tenant(TenantId(3), "s");
        let of_device = || Space::of_device(TenantId(3), &Text::from("pump"), 8, "s");
        let page = |space, after| DocumentsQuery::Page { space, after, documents_max: 5 };
        for query in [
            DocumentsQuery::One { space: space(), id: "i".into() },
            DocumentsQuery::One { space: of_device(), id: "i".into() },
            page(space(), None),
            page(of_device(), Some("a".into())),
        ] {
            let query = Query::Documents(query);
            let bytes = query.encode();
            assert_eq!(Query::decode(bytes.clone()).unwrap(), query);
            for cut in 0..bytes.len() {
                assert!(Query::decode(bytes.slice(..cut)).is_err(), "{query:?} {cut}");
            }
        }
        let document = |body| Document {
            id: "i".into(),
            version: 9,
            changed: UnixMillis(5),
            body: Bytes::from_static(body),
        };
        let documents = vec![document(b""), document(b"{}")];
        for found in [
            DocumentsFound::One(None),
            DocumentsFound::One(Some(document(b"{}"))),
            DocumentsFound::Page(DocumentsPage::default()),
            DocumentsFound::Page(DocumentsPage { documents, more: true }),
        ] {
            let found = Found::Documents(found);
            let bytes = found.encode();
            assert_eq!(Found::decode(bytes.clone()).unwrap(), found);
            for cut in 0..bytes.len() {
                assert!(Found::decode(bytes.slice(..cut)).is_err(), "{found:?} {cut}");
            }
        }
    }
}
