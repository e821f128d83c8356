//! A client of the load generator: a socket, the session of `moorline_mqtt::client`, a read buffer.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use bytes::BytesMut;
use moorline_mqtt::{
    Millis,
    client::{Client, Event, Options},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long a client tries to connect, and the pause between its attempts.
const OPEN_WAIT: Duration = Duration::from_secs(60);
/// See there.
const OPEN_PAUSE: Duration = Duration::from_millis(250);
/// What one read may bring.
const READ_BYTES: usize = 64 * 1024;

/// A connected client with its buffers.
pub(crate) struct Wire {
    socket: TcpStream,
    pub(crate) client: Client,
    input: BytesMut,
    start: Instant,
}

impl Wire {
    /// Connects and puts the CONNECT into the output. `start` is when the client's clock began.
    pub(crate) async fn connect(
        target: &str,
        options: Options,
        start: Instant,
    ) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(target).await.with_context(|| target.to_owned())?;
        socket.set_nodelay(true)?;
        let client = Client::new(options, now(start))?;
        Ok(Self { socket, client, input: BytesMut::new(), start })
    }

    /// Connects, and waits for the CONNACK. A broker that turns many clients away at once is asked again for a while.
    pub(crate) async fn open(
        target: &str,
        options: Options,
        start: Instant,
    ) -> anyhow::Result<Self> {
        Self::open_within(OPEN_WAIT, target, options, start).await
    }

    async fn open_within(
        wait: Duration,
        target: &str,
        options: Options,
        start: Instant,
    ) -> anyhow::Result<Self> {
        let tries = async {
            let deadline = Instant::now() + wait;
            loop {
                match Self::try_open(target, options.clone(), start).await {
                    Err(_) if Instant::now() + OPEN_PAUSE < deadline => sleep(OPEN_PAUSE).await,
                    tried => return tried,
                }
            }
        };
        // Also of an attempt that hangs.
        let tried = timeout(wait, tries).await;
        tried.with_context(|| format!("{target} did not answer a CONNECT in {wait:?}"))?
    }

    async fn try_open(target: &str, options: Options, start: Instant) -> anyhow::Result<Self> {
        let mut wire = Self::connect(target, options, start).await?;
        let answer = wire.next().await?;
        ensure!(matches!(answer, Event::Connected(_)), "a CONNECT was answered with {answer:?}");
        Ok(wire)
    }

    /// The next event; writes and reads until there is one.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Event> {
        loop {
            if let Some(event) = self.client.poll_event() {
                return Ok(event);
            }
            self.turn().await?;
        }
    }

    /// Writes what is to be written, then waits for bytes from the broker.
    pub(crate) async fn turn(&mut self) -> anyhow::Result<()> {
        self.flush().await?;
        self.input.reserve(READ_BYTES);
        if self.socket.read_buf(&mut self.input).await? == 0 {
            bail!("the broker closed the connection");
        }
        self.client.receive(now(self.start), &mut self.input)?;
        Ok(())
    }

    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        let output = self.client.output();
        while !output.is_empty() {
            self.socket.write_buf(output).await?;
        }
        Ok(())
    }

    /// Gives back the read buffer, if nothing is in it: for clients that only hold a connection.
    pub(crate) fn rest(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
    }

    /// Says goodbye and closes.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        self.client.disconnect();
        self.flush().await?;
        self.socket.shutdown().await?;
        Ok(())
    }
}

fn now(start: Instant) -> Millis {
    Millis(u64::try_from(start.elapsed().as_millis()).expect("a run is shorter than that"))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_broker_that_accepts_and_never_answers_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = silent.local_addr().unwrap().to_string();
        let (wait, start) = (Duration::from_millis(50), Instant::now());
        let opened = Wire::open_within(wait, &target, Options::default(), start).await;
        let Err(error) = opened else { panic!("nobody answered") };
        assert!(format!("{error:#}").contains("did not answer a CONNECT"), "{error:#}");
    }
}
