//! A small HTTP client for the API, in plain on the node's own machine or over TLS: one request, one answer, a deadline; or an answer
//! that lasts.

use std::{
    convert::Infallible,
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
    time::Duration,
};

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// How long one request may take.
const REQUEST_WAIT: Duration = Duration::from_secs(10);
/// How long a stream may say nothing: it has a sign of life each 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(40);
/// The largest answer taken.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Nobody answered.
#[derive(Debug, thiserror::Error)]
#[error(
    "nobody answers at {address} ({why}); is the node running, and is this its listen.admin or listen.api?"
)]
pub(crate) struct Unreachable {
    address: String,
    why: String,
}

/// The certificate at the other end is not trusted.
#[derive(Debug, thiserror::Error)]
#[error(
    "{address} shows a certificate that is not trusted ({why}). --ca FILE (or MOORLINE_CA) says whose certificates are: the authority's \
     ca.pem. Of a development CA it is in tls/ of the node's data directory, of a demo in tls/ of the demo's"
)]
pub(crate) struct Distrusted {
    address: String,
    why: String,
}

/// Where to ask.
#[derive(Clone)]
pub(crate) struct Target {
    /// `host:port`.
    address: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    /// `host:port` of a `listen.admin`.
    pub(crate) fn plain(address: &str) -> Self {
        Self { address: address.to_owned(), tls: None }
    }

    /// `https://host:port` of a `listen.api`, or `http://host:port`; trusts the authorities in `ca`, or else those of this machine.
    pub(crate) fn parse(url: &str, ca: Option<&Path>) -> anyhow::Result<Self> {
        let wanted = "https://HOST:PORT is wanted";
        let (scheme, rest) = url.split_once("://").context(wanted)?;
        let address = rest.strip_suffix('/').unwrap_or(rest);
        let uri: hyper::Uri = address.parse().context(wanted)?;
        let host = uri.host().context(wanted)?;
        let address =
            if uri.port().is_some() { address.to_owned() } else { format!("{address}:443") };
        match scheme {
            "http" => return Ok(Self { address, tls: None }),
            "https" => {}
            _ => bail!("{scheme}:// is not spoken; {wanted}"),
        }
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())?;
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        Ok(Self { address, tls: Some((TlsConnector::from(Arc::new(config)), name)) })
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Both>> {
        let address = || self.address.clone();
        let unreachable =
            |error: io::Error| Unreachable { address: address(), why: error.to_string() };
        let stream = TcpStream::connect(&self.address).await.map_err(unreachable)?;
        let Some((connector, name)) = &self.tls else { return Ok(Box::new(stream)) };
        match connector.connect(name.clone(), stream).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if error.get_ref().is_some_and(|error| error.is::<rustls::Error>()) => {
                Err(Distrusted { address: address(), why: error.to_string() }.into())
            }
            Err(error) => Err(unreachable(error).into()),
        }
    }
}

/// Bytes both ways.
trait Both: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Both for S {}

/// The authorities in a file, or those of this machine.
fn roots(ca: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let Some(file) = ca else {
        // Some of a machine's may be of a kind nobody knows any more.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let read = || format!("--ca {}", file.display());
    for certificate in CertificateDer::pem_file_iter(file).with_context(read)? {
        roots.add(certificate.with_context(read)?).with_context(read)?;
    }
    if roots.is_empty() {
        bail!("{}: there is no certificate in it", read());
    }
    Ok(roots)
}

/// Asks a node's admin API. `address` is `host:port`.
pub(crate) async fn request(
    method: Method,
    address: &str,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    request_as(method, &Target::plain(address), path, body, None).await
}

/// The same for what may take longer than an answer from memory does.
pub(crate) async fn request_within(
    wait: Duration,
    method: Method,
    address: &str,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let target = Target::plain(address);
    let asked = exchange(method, &target, path, body, Vec::new());
    timeout(wait, asked).await.map_err(|_| silent(&target, wait))?
}

/// The same with an API token.
pub(crate) async fn request_as(
    method: Method,
    target: &Target,
    path: &str,
    body: Vec<u8>,
    token: Option<&str>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    request_with(method, target, path, body, bearer(token)).await
}

/// The same with more headers.
pub(crate) async fn request_with(
    method: Method,
    target: &Target,
    path: &str,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    timeout(REQUEST_WAIT, exchange(method, target, path, body, headers))
        .await
        .map_err(|_| silent(target, REQUEST_WAIT))?
}

/// A token as a header.
pub(crate) fn bearer(token: Option<&str>) -> Vec<(&'static str, String)> {
    token.map(|token| ("authorization", format!("Bearer {token}"))).into_iter().collect()
}

fn silent(target: &Target, wait: Duration) -> anyhow::Error {
    let (address, why) = (target.address.clone(), format!("no answer in {wait:?}"));
    Unreachable { address, why }.into()
}

async fn exchange(
    method: Method,
    target: &Target,
    path: &str,
    body: Vec<u8>,
    headers: Vec<(&'static str, String)>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let body = Either::Left(Full::new(Bytes::from(body)));
    let mut stream = begin(method, target, path, body, headers).await?;
    Ok((stream.status, stream.rest().await?))
}

/// A body: all of it, or pieces as they come.
type Sent = Either<Full<Bytes>, Pieces>;

/// A body that lasts until its sender is dropped.
pub(crate) struct Pieces(mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = ready!(self.0.poll_recv(context));
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Sends lines while the answer is read.
pub(crate) async fn upload(
    target: &Target,
    path: &str,
    token: Option<&str>,
    body: mpsc::Receiver<Bytes>,
) -> anyhow::Result<Stream> {
    exchange_lines(Method::POST, target, path, token, body).await
}

/// The same with any method.
pub(crate) async fn exchange_lines(
    method: Method,
    target: &Target,
    path: &str,
    token: Option<&str>,
    body: mpsc::Receiver<Bytes>,
) -> anyhow::Result<Stream> {
    let body = Either::Right(Pieces(body));
    let begun = begin(method, target, path, body, bearer(token));
    timeout(REQUEST_WAIT, begun).await.map_err(|_| silent(target, REQUEST_WAIT))?
}

/// An answer that lasts. The connection goes with it.
pub(crate) struct Stream {
    pub(crate) status: StatusCode,
    body: Incoming,
    _connection: (http1::SendRequest<Sent>, JoinSet<hyper::Result<()>>),
}

impl Stream {
    /// The next piece; `None` at the end.
    pub(crate) async fn chunk(&mut self) -> anyhow::Result<Option<Bytes>> {
        loop {
            let frame = timeout(SILENCE_MAX, self.body.frame()).await;
            let Some(frame) = frame.context("the node says nothing any more")? else {
                return Ok(None);
            };
            if let Ok(data) = frame.context("the connection broke")?.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// All that is left of it, for an answer that ends.
    pub(crate) async fn rest(&mut self) -> anyhow::Result<Bytes> {
        let body = Limited::new(&mut self.body, ANSWER_BYTES_MAX).collect().await;
        Ok(body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?.to_bytes())
    }
}

/// Asks a node for server-sent events, behind an event id.
pub(crate) async fn stream(
    target: &Target,
    path: &str,
    token: Option<&str>,
    last_event_id: Option<&str>,
) -> anyhow::Result<Stream> {
    let mut headers = bearer(token);
    headers.push(("accept", "text/event-stream".to_owned()));
    headers.extend(last_event_id.map(|id| ("last-event-id", id.to_owned())));
    let body = Either::Left(Full::default());
    let begun = begin(Method::GET, target, path, body, headers);
    timeout(REQUEST_WAIT, begun).await.map_err(|_| silent(target, REQUEST_WAIT))?
}

async fn begin(
    method: Method,
    target: &Target,
    path: &str,
    body: Sent,
    headers: Vec<(&'static str, String)>,
) -> anyhow::Result<Stream> {
    let stream = target.connect().await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = headers
        .into_iter()
        .fold(Request::builder(), |request, (name, value)| request.header(name, value));
    let request = request
        .method(method)
        .uri(path)
        .header("host", &target.address)
        .header("content-type", "application/json")
        .body(body)?;
    let response = sender.send_request(request).await.context("the connection broke")?;
    let status = response.status();
    Ok(Stream { status, body: response.into_body(), _connection: (sender, tasks) })
}
