//! An answer: whole, whole with somebody who wants to know that it was taken, a stream, or a WebSocket.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body_util::{Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response, StatusCode,
    body::{self, Frame, SizeHint},
    header::{CONNECTION, HeaderName, HeaderValue},
};
use tokio_tungstenite::tungstenite::handshake::server::create_response;

use crate::{request::Head, websocket::Talk};

/// As a connection gives it to its client.
pub(crate) type Written = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Called when an answer was taken by its connection.
pub type Taken = Box<dyn FnOnce() + Send>;

/// An answer to a request.
pub struct Answer {
    written: Written,
    talk: Option<Talk>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.written.status()).finish()
    }
}

impl Answer {
    /// One that is all there. A header that is none is left out.
    #[must_use]
    pub fn whole(status: u16, headers: &[(&'static str, String)], body: Bytes) -> Self {
        Self::with(status, headers, UnsyncBoxBody::new(Full::new(body)))
    }

    /// The same; `taken` is called when its last byte is in the connection's hands, and never if the connection ends before.
    #[must_use]
    pub fn told(
        status: u16,
        headers: &[(&'static str, String)],
        body: Bytes,
        taken: Taken,
    ) -> Self {
        let told = Told { body: Some(body), taken: Some(taken) };
        Self::with(status, headers, UnsyncBoxBody::new(told))
    }

    /// One that goes on until `body` ends, or the connection.
    #[must_use]
    pub fn stream(
        status: u16,
        headers: &[(&'static str, String)],
        body: impl Stream<Item = Bytes> + Send + 'static,
    ) -> Self {
        let frames = body.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
        Self::with(status, headers, UnsyncBoxBody::new(StreamBody::new(frames)))
    }

    /// The connection becomes a WebSocket, and `talk` has it. A request that is no handshake is told so.
    #[must_use]
    pub fn websocket(head: &Head, talk: Talk) -> Self {
        let shaken = create_response(&head.bare());
        let Ok(shaken) = shaken else {
            let headers = [("sec-websocket-version", "13".to_owned())];
            return Self::whole(426, &headers, Bytes::from_static(b"this is a WebSocket"));
        };
        let written = shaken.map(|()| UnsyncBoxBody::new(Full::default()));
        Self { written, talk: Some(talk) }
    }

    fn with(
        status: u16,
        headers: &[(&'static str, String)],
        body: UnsyncBoxBody<Bytes, Infallible>,
    ) -> Self {
        let mut built = Response::new(body);
        *built.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in headers {
            let read = (HeaderName::try_from(*name), HeaderValue::try_from(value));
            if let (Ok(name), Ok(value)) = read {
                built.headers_mut().insert(name, value);
            }
        }
        Self { written: built, talk: None }
    }

    /// The connection ends behind it.
    pub(crate) fn ends(&mut self) {
        self.written.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }

    /// Whether somebody has the connection then.
    pub(crate) fn talks(&self) -> bool {
        self.talk.is_some()
    }

    /// What is written, and who has the connection then.
    pub(crate) fn into_parts(self) -> (Written, Option<Talk>) {
        (self.written, self.talk)
    }
}

/// A whole body, and who is told when it was taken.
struct Told {
    body: Option<Bytes>,
    taken: Option<Taken>,
}

impl body::Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.body.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        // An empty one has to be taken, too.
        self.body.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.as_ref().map_or(0, Bytes::len) as u64)
    }
}

impl Drop for Told {
    /// A connection that has all of it does not ask again.
    fn drop(&mut self) {
        if self.body.is_none()
            && let Some(taken) = self.taken.take()
        {
            taken();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use http_body_util::BodyExt;
    use hyper::body::Body as _;

    use super::*;

    #[tokio::test]
    async fn who_wants_to_know_is_told_of_what_was_taken_alone() {
        for takes in [true, false] {
            for body in ["", "body"] {
                let told = Arc::new(AtomicBool::new(false));
                let says = Arc::clone(&told);
                let taken: Taken = Box::new(move || says.store(true, Ordering::Relaxed));
                let answer = Answer::told(200, &[], Bytes::from(body), taken).into_parts().0;
                let mut answer = answer.into_body();
                assert!(!answer.is_end_stream());
                assert_eq!(answer.size_hint().exact(), Some(body.len() as u64));
                if takes {
                    let frame = answer.frame().await.unwrap().unwrap();
                    assert_eq!(frame.into_data().unwrap(), body);
                    assert!(!told.load(Ordering::Relaxed), "not before the connection is done");
                }
                drop(answer);
                assert_eq!(told.load(Ordering::Relaxed), takes, "{body:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_left_out() {
        let headers = [("x-one", "1".to_owned()), ("x-two", "\n".to_owned())];
        let mut answer = Answer::whole(204, &headers, Bytes::new());
        answer.ends();
        let answer = answer.into_parts().0;
        assert_eq!((answer.status().as_u16(), answer.headers().len()), (204, 2));
        assert_eq!(answer.headers()["connection"], "close");
    }
}
