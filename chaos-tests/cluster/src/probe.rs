//! Requests from inside a node's network: a process of our own there, which asks what it is told to and says what was answered.
//! So a node that is cut off from everybody is still asked, by clients on its own side.
//!
//! ```text
//!   harness ── question, a JSON line ──► probe, in the node's namespace ── HTTP ──► node, on the loopback
//!           ◄── answer, a JSON line ───
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use hyper::Method;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::http::{ANSWER_MAX, Answer, AskError, Http, Question};

/// Questions that wait to be written.
const QUESTIONS_MAX: usize = 64;
/// Questions under way inside; beyond it the next one waits.
const UNDER_WAY_MAX: usize = 64;
/// How long an answer may take to come through the pipe, beyond what the probe itself waits.
const PIPE_MAX: Duration = Duration::from_secs(3);

/// A question, as a line.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    id: u64,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Option<serde_json::Value>,
}

/// What became of it, as a line.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    id: u64,
    /// The status and the body; none if there was no answer.
    answer: Option<(u16, String)>,
    /// Whether it surely was not asked.
    not_asked: bool,
}

/// Headers that may be asked with: names have to last as long as the program.
const HEADERS: [&str; 2] = ["authorization", "if-match"];

/// Asks what is read from standard input, of this address, until there is no more: what runs inside.
pub async fn serve(node: SocketAddr) -> Result<()> {
    let http = Http::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut under_way: JoinSet<Told> = JoinSet::new();
    let mut out = tokio::io::stdout();
    loop {
        tokio::select! {
            line = lines.next_line(), if under_way.len() < UNDER_WAY_MAX => {
                let Some(line) = line? else { return Ok(()) };
                let asked: Asked = serde_json::from_str(&line)?;
                let http = http.clone();
                under_way.spawn(async move { ask(&http, node, asked).await });
            }
            Some(told) = under_way.join_next() => {
                let mut line = serde_json::to_string(&told?)?;
                line.push('\n');
                out.write_all(line.as_bytes()).await?;
                out.flush().await?;
            }
        }
    }
}

async fn ask(http: &Http, node: SocketAddr, asked: Asked) -> Told {
    let id = asked.id;
    let headers = asked.headers.into_iter().filter_map(|(name, value)| {
        let name = HEADERS.into_iter().find(|known| *known == name)?;
        Some((name, value))
    });
    let headers = headers.collect();
    let Ok(method) = asked.method.parse::<Method>() else {
        return Told { id, answer: None, not_asked: true };
    };
    let question = Question { method, path: asked.path, headers, body: asked.body };
    match http.ask(node, &question).await {
        Ok(Answer { status, body }) => {
            let body = String::from_utf8_lossy(&body).into_owned();
            Told { id, answer: Some((status, body)), not_asked: false }
        }
        Err(error) => Told { id, answer: None, not_asked: matches!(error, AskError::NotAsked(_)) },
    }
}

/// Questions that wait for their answer.
type Waiting = Mutex<BTreeMap<u64, oneshot::Sender<Told>>>;

/// The harness's end of a probe. The process ends when this is dropped.
#[derive(Debug)]
pub struct Probe {
    questions: mpsc::Sender<String>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    _tasks: JoinSet<()>,
    _child: Child,
}

fn locked(waiting: &Waiting) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<Told>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Probe {
    /// Starts a probe in a namespace, which asks the admin listener of the node there.
    pub fn start(space: &str, port: u16) -> Result<Self> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", space]).arg(std::env::current_exe()?);
        command.args(["probe", "--node", &format!("127.0.0.1:{port}")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("a probe cannot be started")?;
        let mut stdin = child.stdin.take().context("a probe without input")?;
        let stdout = child.stdout.take().context("a probe without output")?;
        let (questions, mut queue) = mpsc::channel::<String>(QUESTIONS_MAX);
        let waiting = Arc::new(Waiting::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Some(line) = queue.recv().await {
                if stdin.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        tasks.spawn(hear(stdout, Arc::clone(&waiting)));
        Ok(Self { questions, waiting, next: AtomicU64::new(1), _tasks: tasks, _child: child })
    }

    /// Has it ask, and waits for what came of it.
    pub async fn ask(&self, question: &Question) -> Result<Answer, AskError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let headers = question.headers.iter();
        let asked = Asked {
            id,
            method: question.method.to_string(),
            path: question.path.clone(),
            headers: headers.map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            body: question.body.clone(),
        };
        let mut line = serde_json::to_string(&asked).expect("only strings and numbers");
        line.push('\n');
        let (tell, told) = oneshot::channel();
        locked(&self.waiting).insert(id, tell);
        if self.questions.try_send(line).is_err() {
            locked(&self.waiting).remove(&id);
            return Err(AskError::NotAsked(anyhow!("the probe does not keep up")));
        }
        let told = timeout(ANSWER_MAX + PIPE_MAX, told).await;
        locked(&self.waiting).remove(&id);
        match told {
            Ok(Ok(Told { answer: Some((status, body)), .. })) => {
                Ok(Answer { status, body: body.into() })
            }
            Ok(Ok(Told { not_asked: true, .. })) => {
                Err(AskError::NotAsked(anyhow!("no connection inside")))
            }
            Ok(_) | Err(_) => Err(AskError::Unknown(anyhow!("no answer inside"))),
        }
    }
}

async fn hear(stdout: ChildStdout, waiting: Arc<Waiting>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        // A line that is none is an answer that never comes.
        let Ok(told) = serde_json::from_str::<Told>(&line) else { continue };
        if let Some(tell) = locked(&waiting).remove(&told.id) {
            // Nobody waits any more: the answer came too late.
            let _late = tell.send(told);
        }
    }
}
