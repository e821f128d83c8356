//! `run`: the agent itself, until it is told to stop.
//!
//! Stopping means: no new requests, event streams end, the uplink says goodbye, and whatever is left after
//! [`STOP_DEADLINE`] is dropped.

use std::{
    fs::{Permissions, remove_file, set_permissions},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{Config, Security},
    directory::{Directory, FILE_MODE},
    failed::Failed,
    log::{self, log},
    serve::{Agent, Listener},
    uplink::{Dial, Uplink},
};

/// How long the end may take.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// How long to wait for a lock that another command only looks at.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// Runs the agent. `tcp`: where else to serve the local API; `detached`: started by `start`.
pub(crate) fn run(tcp: Option<SocketAddr>, detached: bool) -> Result<(), Failed> {
    if detached {
        // A terminal that closes does not end it. It fails only if the process leads a group already: all the better.
        let _session = rustix::process::setsid();
    }
    let config = Config::from_env()?;
    let dial = Dial::new(&config.reach.security)?;
    let directory = Directory::from_env()?;
    directory.prepare()?;
    let failed = |error: io::Error| Failed::new("directory_failed", error);
    let lock = directory.lock_run(LOCK_PATIENCE).map_err(failed)?;
    let _lock = lock.ok_or_else(|| Failed::new("already_running", "another agent runs here"))?;
    if detached {
        log::goes_to(&directory);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failed::new("run_failed", error))?;
    let result = runtime.block_on(live(&config, &dial, &directory, tcp));
    directory.clear();
    // A look-up of a name can't be given up.
    runtime.shutdown_background();
    result
}

async fn live(
    config: &Config,
    dial: &Dial,
    directory: &Directory,
    tcp: Option<SocketAddr>,
) -> Result<(), Failed> {
    let failed = |error: io::Error| Failed::new("listen_failed", error);
    let stop = CancellationToken::new();
    let uplink = Uplink::new(Clock::start());
    let agent =
        Agent { identity: config.identity.clone(), uplink: uplink.clone(), stop: stop.clone() };
    let agent = Arc::new(agent);
    let mut tasks = JoinSet::new();
    if let Some(address) = tcp {
        let socket = TcpListener::bind(address).await;
        let socket =
            socket.map_err(|error| Failed::new("listen_failed", format!("{address}: {error}")))?;
        println!("listening: {}", socket.local_addr().map_err(failed)?);
        tasks.spawn(Listener::Tcp(socket).run(Arc::clone(&agent)));
    }
    // Before the socket, whose first answer says that all of this is there.
    directory.write_hash(&config.hash()).map_err(failed)?;
    tasks.spawn(Listener::Unix(listen(directory).map_err(failed)?).run(Arc::clone(&agent)));
    log(&format!("agent of {} in fleet {}", config.identity.device, config.identity.fleet));
    if config.reach.security == Security::Plaintext {
        log("without TLS: the device secret can be read on the way");
    }
    let (dial, nodes, credentials) =
        (dial.clone(), config.reach.nodes.clone(), config.credentials.clone());
    let keeping = stop.clone();
    tasks.spawn(async move { uplink.keep(&dial, nodes, &credentials, &keeping).await });

    let result = until_told(&mut tasks, &stop).await;
    stop.cancel();
    let ended = async { while tasks.join_next().await.is_some() {} };
    if timeout(STOP_DEADLINE, ended).await.is_err() {
        log("something did not end in time");
        tasks.shutdown().await;
    }
    log("stopped");
    result
}

fn listen(directory: &Directory) -> io::Result<UnixListener> {
    match remove_file(directory.socket()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Until its mode is set, the directory's keeps others out.
    let listener = UnixListener::bind(directory.socket())?;
    set_permissions(directory.socket(), Permissions::from_mode(FILE_MODE))?;
    Ok(listener)
}

/// Until somebody says stop, or something ends that should not.
async fn until_told(tasks: &mut JoinSet<()>, stop: &CancellationToken) -> Result<(), Failed> {
    let failed = |error| Failed::new("run_failed", error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::select! {
        biased; // tasks end because somebody said stop
        () = stop.cancelled() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = tasks.join_next() => {
            let why = match ended {
                Some(Err(error)) => error.to_string(),
                Some(Ok(())) | None => "a task ended".to_owned(),
            };
            log(&why);
            Err(Failed::new("run_failed", why))
        }
    }
}
