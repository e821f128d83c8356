//! What a CONNECT leaves behind to be said of its end: handed on to the connection's task, which may need it. Everything else is the
//! link's own.

use moorline_core::{
    ConnId, Message, Offset, ShareNumber, Text, Will,
    port::{Close, Filter, Link, Open, Token},
};
use tokio::sync::oneshot;

/// See the module.
#[derive(Debug)]
pub(crate) struct Left {
    /// Whether it wants no earlier session.
    pub(crate) clean: bool,
    pub(crate) will: Option<Will>,
}

/// A link that hands on what is left when it is opened.
#[derive(Debug)]
struct Leaving {
    link: Box<dyn Link>,
    /// Until it is opened.
    left: Option<oneshot::Sender<Left>>,
}

/// The link, and what will be left once it is opened.
pub(crate) fn leaving(link: Box<dyn Link>) -> (Box<dyn Link>, oneshot::Receiver<Left>) {
    let (sender, left) = oneshot::channel();
    (Box::new(Leaving { link, left: Some(sender) }), left)
}

impl Link for Leaving {
    fn conn(&self) -> ConnId {
        self.link.conn()
    }

    fn open(&mut self, open: Open) {
        let said = Left { clean: open.clean_start, will: open.will.clone() };
        // Before anything that the task says of it: that it is open.
        self.link.open(open);
        if let Some(left) = self.left.take() {
            // Who does not wait for it does not need it.
            drop(left.send(said));
        }
    }

    fn publish(&mut self, token: Token, message: Message) {
        self.link.publish(token, message);
    }

    fn publish_once(&mut self, token: Token, packet: u16, message: Message) {
        self.link.publish_once(token, packet, message);
    }

    fn complete(&mut self, packet: u16) {
        self.link.complete(packet);
    }

    fn release(&mut self, offsets: Vec<Offset>) {
        self.link.release(offsets);
    }

    fn subscribe(&mut self, token: Token, filters: Vec<Filter>) {
        self.link.subscribe(token, filters);
    }

    fn unsubscribe(&mut self, token: Token, filters: Vec<Text>) {
        self.link.unsubscribe(token, filters);
    }

    fn settle(&mut self, offsets: &[Offset]) {
        self.link.settle(offsets);
    }

    fn settle_shared(&mut self, items: &[(ShareNumber, Offset)]) {
        self.link.settle_shared(items);
    }

    fn retained_taken(&mut self) {
        self.link.retained_taken();
    }

    fn close(&mut self, close: Close) {
        self.link.close(close);
    }
}
