//! An endpoint on this machine, of this test's own: it answers each request with bytes, and remembers what it heard.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

pub(crate) type Issuer = CertifiedIssuer<'static, KeyPair>;

type Answering = Arc<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

/// It ends with the handle.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

/// An answer as it stands on the wire.
pub(crate) fn raw(status: u16, headers: &str, body: &[u8]) -> Vec<u8> {
    let length =
        if status == 204 { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let mut answer = format!("HTTP/1.1 {status} X\r\n{headers}{length}\r\n").into_bytes();
    answer.extend_from_slice(body);
    answer
}

pub(crate) fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Endpoint {
    pub(crate) async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::begin(None, Arc::new(answer)).await
    }

    pub(crate) async fn start_tls(
        by: &Issuer,
        name: &str,
        answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, by).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::begin(Some(TlsAcceptor::from(Arc::new(config))), Arc::new(answer)).await
    }

    async fn begin(tls: Option<TlsAcceptor>, answer: Answering) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, connections) = (Arc::<Mutex<Vec<String>>>::default(), Arc::default());
        let (log, count) = (Arc::clone(&heard), Arc::<AtomicUsize>::clone(&connections));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (tls, answer, log) = (tls.clone(), Arc::clone(&answer), Arc::clone(&log));
                all.spawn(async move {
                    // A client that goes away is no matter.
                    let served = match tls {
                        None => serve(stream, answer, log).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, answer, log).await,
                            Err(_) => Ok(()),
                        },
                    };
                    drop(served);
                });
            }
        });
        Self { address, heard, connections, _task: task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What it heard: head and body.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Answers requests, one after the other; no answer is silence.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: Answering,
    log: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    let mut input = Vec::new();
    loop {
        let end = loop {
            let text = String::from_utf8_lossy(&input).into_owned();
            let head = text.find("\r\n\r\n").map(|at| at + 4);
            let length = text.to_ascii_lowercase().split("content-length: ").nth(1).map(|rest| {
                rest.split("\r\n").next().unwrap_or_default().parse::<usize>().unwrap_or(0)
            });
            if let Some(end) = head.map(|head| head + length.unwrap_or(0))
                && input.len() >= end
            {
                break end;
            }
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let request: Vec<u8> = input.drain(..end).collect();
        let request = String::from_utf8_lossy(&request).into_owned();
        let answer = answer(&request);
        log.lock().unwrap().push(request);
        stream.write_all(&answer).await?;
    }
}
