//! Newline-delimited JSON, in both directions: lines out of pieces of a body, and answers in pieces of some size.

use std::time::Duration;

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::{
    StreamExt,
    stream::{self, Stream},
};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

/// Bytes of a line: a device with its settings and credentials, several times over.
pub(crate) const LINE_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take to send a body that is no import.
const BODY_WAIT: Duration = Duration::from_secs(10);
/// Bytes of a piece of an answer.
pub(crate) const PIECE_BYTES: usize = 16 * 1024;

/// A line of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// What it says.
    Whole(Bytes),
    /// It had more than [`LINE_BYTES_MAX`]; what it said is forgotten.
    TooLong,
}

/// Puts lines together.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    held: BytesMut,
    /// Up to here there is no line break in `held`.
    searched: usize,
    /// The line that is being read is too long.
    skipping: bool,
}

impl Lines {
    /// More of the body. To be called when [`Lines::next`] has nothing more.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.held.extend_from_slice(piece);
    }

    /// The next line. `ended`: nothing more comes.
    pub(crate) fn next(&mut self, ended: bool) -> Option<Line> {
        let found = self.held[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(at) = found.map(|at| self.searched + at) else {
            self.searched = self.held.len();
            if self.held.len() > LINE_BYTES_MAX {
                self.held.clear();
                (self.searched, self.skipping) = (0, true);
            }
            if !ended || self.held.is_empty() && !self.skipping {
                return None;
            }
            let rest = self.held.split().freeze();
            self.searched = 0;
            return Some(self.finish(rest));
        };
        let line = self.held.split_to(at).freeze();
        self.held.advance(1);
        self.searched = 0;
        Some(self.finish(line))
    }

    fn finish(&mut self, line: Bytes) -> Line {
        let skipped = std::mem::take(&mut self.skipping);
        if skipped || line.len() > LINE_BYTES_MAX { Line::TooLong } else { Line::Whole(line) }
    }
}

/// Writes a line.
pub(crate) fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(&mut *out, value).expect("a map with string keys");
    out.push(b'\n');
}

/// A body that breaks off if it takes too long: whoever sends a byte now and then must not keep its place for it.
pub(crate) fn in_time(body: Body) -> Body {
    let until = Instant::now() + BODY_WAIT;
    let pieces = stream::unfold(body.into_data_stream(), move |mut body| async move {
        let piece = match timeout_at(until, body.next()).await {
            Ok(piece) => piece?.map_err(|_| "the body broke off"),
            Err(_) => Err("the body took too long"),
        };
        Some((piece, body))
    });
    Body::from_stream(pieces)
}

/// Somebody who has lines to say.
pub(crate) trait Source: Send + 'static {
    /// The next piece; [`None`] at the end.
    fn next(&mut self) -> impl Future<Output = Option<Vec<u8>>> + Send;
}

/// An answer that is written while it is made.
pub(crate) fn answer(source: impl Source) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(pieces(source))).into_response()
}

fn pieces(source: impl Source) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold(source, |mut source| async {
        let piece = source.next().await?;
        Some((Ok(Bytes::from(piece)), source))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_the_body_comes() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let body = format!("one\n\ntwo\r\n{long}\nthree");
        let expected = ["one", "", "two\r", "<long>", "three"];
        for size in [1, 2, 7, 1_000, body.len()] {
            let (mut lines, mut seen) = (Lines::default(), Vec::new());
            let mut take = |lines: &mut Lines, ended| {
                while let Some(line) = lines.next(ended) {
                    seen.push(match line {
                        Line::Whole(line) => String::from_utf8(line.to_vec()).unwrap(),
                        Line::TooLong => "<long>".to_owned(),
                    });
                }
            };
            for piece in body.as_bytes().chunks(size) {
                lines.push(piece);
                take(&mut lines, false);
            }
            take(&mut lines, true);
            assert_eq!(seen, expected, "{size}");
        }
    }

    #[test]
    fn a_line_that_never_ends_is_not_held() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            lines.push(&[b'x'; LINE_BYTES_MAX]);
            assert_eq!(lines.next(false), None);
            assert!(lines.held.len() <= LINE_BYTES_MAX);
        }
        assert_eq!(lines.next(true), Some(Line::TooLong));
        assert_eq!(lines.next(true), None);
    }
}
