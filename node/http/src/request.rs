//! A request: its head, and its body, which is not read yet.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{body::Incoming, http::request::Parts};
use tokio::time::timeout;

/// How long a body may take.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// A request of a connection.
#[derive(Debug)]
pub struct Request(hyper::Request<Incoming>);

impl Request {
    pub(crate) fn new(request: hyper::Request<Incoming>) -> Self {
        Self(request)
    }

    /// What is there, and what is still to come.
    #[must_use]
    pub fn split(self) -> (Head, Body) {
        let (head, body) = self.0.into_parts();
        (Head(head), Body(body))
    }
}

/// A request's head.
#[derive(Debug)]
pub struct Head(Parts);

impl Head {
    /// `GET`, `POST`, …
    #[must_use]
    pub fn method(&self) -> &str {
        self.0.method.as_str()
    }

    /// The path, without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.uri.path()
    }

    /// The query, without its question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.0.uri.query()
    }

    /// It alone, as other libraries read it.
    pub(crate) fn bare(&self) -> hyper::Request<()> {
        hyper::Request::from_parts(self.0.clone(), ())
    }

    /// Headers as they came: names in lower case.
    #[must_use]
    pub fn headers(&self) -> Vec<(&str, &[u8])> {
        self.0.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }
}

/// Why a body is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It has more bytes than it may.
    TooLarge,
    /// It broke off, or took longer than it may.
    BrokeOff,
}

/// A request's body. Nothing of it is read yet.
#[derive(Debug)]
pub struct Body(Incoming);

impl Body {
    /// The next part of it, as it came; [`None`] behind the last. Each may take as long as a whole body that is read. How many bytes
    /// there may be is up to whoever asks.
    ///
    /// # Errors
    ///
    /// [`Unread::BrokeOff`].
    pub async fn part(&mut self) -> Result<Option<Bytes>, Unread> {
        loop {
            match timeout(BODY_WAIT, self.0.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    // What is no data is a trailer.
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
                Ok(Some(Err(_))) | Err(_) => return Err(Unread::BrokeOff),
            }
        }
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// [`Unread`].
    pub async fn read(self, bytes_max: usize) -> Result<Bytes, Unread> {
        match timeout(BODY_WAIT, Limited::new(self.0, bytes_max).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
            Ok(Err(_)) | Err(_) => Err(Unread::BrokeOff),
        }
    }
}
