//! The consumer group: `moorline events`, as an application runs it. Where its node dies, another one goes on with the group.

use std::process::Stdio;

use anyhow::Context;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

use super::{board::Board, speaks::TENANT};

/// What the group is called.
const GROUP: &str = "billing";

/// One who reads at a node. Ends with it.
pub(super) struct Group {
    child: Child,
    _reads: JoinSet<()>,
}

impl Group {
    pub(super) fn start(admin: &str, token: &str, board: &Board) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["events", "--group", GROUP, "--tenant", TENANT, "--json"]);
        command.env("MOORLINE_ADMIN", admin).env("MOORLINE_TOKEN", token);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("its output is piped")?);
        let (mut reads, board) = (JoinSet::new(), board.clone());
        reads.spawn(async move {
            let mut lines = lines.lines();
            while let Ok(Some(line)) = lines.next_line().await {
                board.read(line.as_bytes());
            }
        });
        Ok(Self { child, _reads: reads })
    }

    /// Ends it at once, as if its machine had died.
    pub(super) async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.map_err(Into::into)
    }
}
