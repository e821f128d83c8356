//! Frames of a WebSocket client (RFC 6455, 5), as pure code: bytes in, payload and control frames out.
//!
//! MQTT's bytes are a stream that frames may cut anywhere, so a message is never put together here: its payload is
//! passed on as it comes, and a frame costs no memory by the length it announces. That is why this is not
//! `tungstenite`'s message layer, which reserves an announced length and keeps its buffers.
//!
//! # Invariants
//!
//! - **What the RFC forbids ends the connection with its code**, from the header on. Checked by the table below and by
//!   `tests/websocket.rs`.

use std::io::Cursor;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::ReadBuf;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

/// The most bytes a control frame carries (RFC 6455, 5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// What a client did that ends its WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A frame without a mask.
    Unmasked,
    /// Bits that only an extension may set.
    ReservedBits,
    /// An opcode that nobody has defined.
    Opcode,
    /// A control frame in fragments.
    ControlFragmented,
    /// A control frame over 125 bytes.
    ControlTooLarge,
    /// A continuation of nothing, or a message within another.
    Continuation,
    /// A close frame with half a code, or a code that is never sent.
    CloseCode,
    /// A close frame whose reason is not UTF-8.
    CloseReason,
    /// A text frame: MQTT is binary.
    Text,
    /// A message over the packet limit.
    TooLarge,
}

impl Violation {
    /// All of them, for metrics.
    pub(crate) const ALL: [Self; 10] = [
        Self::Unmasked,
        Self::ReservedBits,
        Self::Opcode,
        Self::ControlFragmented,
        Self::ControlTooLarge,
        Self::Continuation,
        Self::CloseCode,
        Self::CloseReason,
        Self::Text,
        Self::TooLarge,
    ];

    /// The code that a close frame says it with (RFC 6455, 7.4.1).
    pub(super) fn code(self) -> CloseCode {
        match self {
            Self::Unmasked
            | Self::ReservedBits
            | Self::Opcode
            | Self::ControlFragmented
            | Self::ControlTooLarge
            | Self::Continuation
            | Self::CloseCode => CloseCode::Protocol,
            Self::CloseReason => CloseCode::Invalid,
            Self::Text => CloseCode::Unsupported,
            Self::TooLarge => CloseCode::Size,
        }
    }

    /// For a metric's label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Unmasked => "unmasked",
            Self::ReservedBits => "reserved_bits",
            Self::Opcode => "opcode",
            Self::ControlFragmented => "control_fragmented",
            Self::ControlTooLarge => "control_too_large",
            Self::Continuation => "continuation",
            Self::CloseCode => "close_code",
            Self::CloseReason => "close_reason",
            Self::Text => "text",
            Self::TooLarge => "too_large",
        }
    }
}

/// What is next in the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It ends here.
    More,
    /// Payload, for [`Incoming::take`].
    Data,
    /// A ping and what is to be sent back.
    Ping(BytesMut),
    /// An answer to nothing we asked.
    Pong,
    /// The client closes, for this reason if it gave one.
    Close(Option<CloseCode>),
}

/// Where the client is in its stream of frames.
#[derive(Debug)]
pub(super) struct Incoming {
    message_bytes_max: u64,
    /// Payload of the present frame that is still to come.
    left: u64,
    /// Its mask, turned so that the first byte is for the next one.
    mask: [u8; 4],
    /// The bytes that an unfinished message has announced so far.
    unfinished: Option<u64>,
}

impl Incoming {
    /// At the first frame.
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max: message_bytes_max as u64,
            left: 0,
            mask: [0; 4],
            unfinished: None,
        }
    }

    /// Takes headers and control frames from the front of `input`, up to what has to be handled.
    pub(super) fn advance(&mut self, input: &mut BytesMut) -> Result<Next, Violation> {
        loop {
            if self.left > 0 {
                return Ok(if input.is_empty() { Next::More } else { Next::Data });
            }
            let mut cursor = Cursor::new(&input[..]);
            // An unknown opcode is the one error there is.
            let header = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Opcode)?;
            let Some((header, len)) = header else { return Ok(Next::More) };
            let header_bytes = usize::try_from(cursor.position()).expect("it is within the input");
            if header.rsv1 || header.rsv2 || header.rsv3 {
                return Err(Violation::ReservedBits);
            }
            self.mask = header.mask.ok_or(Violation::Unmasked)?;
            match header.opcode {
                OpCode::Control(control) => {
                    if !header.is_final {
                        return Err(Violation::ControlFragmented);
                    }
                    if len > CONTROL_BYTES_MAX {
                        return Err(Violation::ControlTooLarge);
                    }
                    let len = usize::try_from(len).expect("it is small");
                    if input.len() < header_bytes + len {
                        return Ok(Next::More);
                    }
                    input.advance(header_bytes);
                    return self.control(control, input.split_to(len));
                }
                OpCode::Data(data) => {
                    self.begin(data, len, header.is_final)?;
                    input.advance(header_bytes);
                }
            }
        }
    }

    /// A data frame begins.
    fn begin(&mut self, data: Data, len: u64, is_final: bool) -> Result<(), Violation> {
        let before = match (data, self.unfinished) {
            (Data::Text, None) => return Err(Violation::Text),
            (Data::Binary, None) => 0,
            (Data::Continue, Some(before)) => before,
            (Data::Continue, None) | (Data::Text | Data::Binary, Some(_)) => {
                return Err(Violation::Continuation);
            }
            (Data::Reserved(_), _) => return Err(Violation::Opcode),
        };
        let message = before.saturating_add(len);
        if message > self.message_bytes_max {
            return Err(Violation::TooLarge);
        }
        self.left = len;
        self.unfinished = (!is_final).then_some(message);
        Ok(())
    }

    fn control(&mut self, control: Control, mut payload: BytesMut) -> Result<Next, Violation> {
        self.unmask(&mut payload);
        match control {
            Control::Ping => Ok(Next::Ping(payload)),
            Control::Pong => Ok(Next::Pong),
            Control::Close => close_code(&payload).map(Next::Close),
            Control::Reserved(_) => Err(Violation::Opcode),
        }
    }

    /// Moves payload out of `input`, unmasked: as much as there is and `to` has room for.
    pub(super) fn take(&mut self, input: &mut BytesMut, to: &mut ReadBuf<'_>) {
        let part = self.part(input).min(to.remaining());
        let begin = to.filled().len();
        to.put_slice(&input[..part]);
        self.unmask(&mut to.filled_mut()[begin..]);
        self.pass(input, part);
    }

    /// Throws payload away.
    pub(super) fn skip(&mut self, input: &mut BytesMut) {
        let part = self.part(input);
        self.pass(input, part);
    }

    fn part(&self, input: &BytesMut) -> usize {
        input.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))
    }

    fn pass(&mut self, input: &mut BytesMut, part: usize) {
        input.advance(part);
        self.left -= part as u64;
    }

    /// Unmasks what follows what was unmasked before.
    fn unmask(&mut self, payload: &mut [u8]) {
        // Eight bytes at a time; the rest turns the mask.
        let [a, b, c, d] = self.mask;
        let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let mut chunks = payload.chunks_exact_mut(8);
        for chunk in &mut chunks {
            let masked = u64::from_ne_bytes(chunk.try_into().expect("8 bytes"));
            chunk.copy_from_slice(&(masked ^ wide).to_ne_bytes());
        }
        let rest = chunks.into_remainder();
        for (byte, mask) in rest.iter_mut().zip(self.mask.iter().cycle()) {
            *byte ^= mask;
        }
        self.mask.rotate_left(rest.len() % 4);
    }
}

/// Reads a close frame's payload (RFC 6455, 5.5.1).
fn close_code(payload: &[u8]) -> Result<Option<CloseCode>, Violation> {
    match payload {
        [] => Ok(None),
        [_] => Err(Violation::CloseCode),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            if !code.is_allowed() {
                return Err(Violation::CloseCode);
            }
            std::str::from_utf8(reason).map_err(|_| Violation::CloseReason)?;
            Ok(Some(code))
        }
    }
}

/// Writes a frame of ours, whole and without a mask.
pub(super) fn put(opcode: OpCode, payload: &[u8], output: &mut BytesMut) {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let len = payload.len() as u64;
    output.reserve(header.len(len) + payload.len());
    header.format(len, &mut output.writer()).expect("a buffer takes everything");
    output.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    fn masked(payload: &[u8]) -> Vec<u8> {
        payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
    }

    /// A client's frame with up to 125 bytes.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        [&[first, 0x80 | len][..], &MASK, &masked(payload)].concat()
    }

    /// Everything the frames say: payload as one stream, control frames by name.
    fn read(
        incoming: &mut Incoming,
        input: &mut BytesMut,
    ) -> Result<(Vec<u8>, Vec<Next>), Violation> {
        let (mut payload, mut controls) = (Vec::new(), Vec::new());
        loop {
            match incoming.advance(input)? {
                Next::More => return Ok((payload, controls)),
                Next::Data => {
                    let mut room = [0; 5];
                    let mut to = ReadBuf::new(&mut room);
                    incoming.take(input, &mut to);
                    payload.extend_from_slice(to.filled());
                }
                control @ (Next::Ping(_) | Next::Pong | Next::Close(_)) => controls.push(control),
            }
        }
    }

    #[test]
    fn payload_is_one_stream_however_frames_and_reads_cut_it() {
        let payload: Vec<u8> = (0..100).collect();
        let frames = [
            frame(0x02, &payload[..33]),
            frame(0x00, b""),
            frame(0x89, b"ping"),
            frame(0x80, &payload[33..34]),
            frame(0x8a, b"pong"),
            frame(0x82, &payload[34..]),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        for step in [1, 2, 3, 7, frames.len()] {
            let (mut incoming, mut input) = (Incoming::new(1_000), BytesMut::new());
            let (mut heard, mut controls) = (Vec::new(), Vec::new());
            for part in frames.chunks(step) {
                input.extend_from_slice(part);
                let (more, new) = read(&mut incoming, &mut input).unwrap();
                heard.extend(more);
                controls.extend(new);
            }
            assert_eq!(heard, payload, "{step}");
            let close = Next::Close(Some(CloseCode::Normal));
            assert_eq!(controls, [Next::Ping(BytesMut::from("ping")), Next::Pong, close]);
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_named_and_has_its_code() {
        let long = [0; 100];
        let masked_header = |first: u8, len: &[u8]| [&[first], len, &MASK].concat();
        #[rustfmt::skip]
        let table = [
            (b"\x82\x01x".to_vec(),                              Violation::Unmasked,          1002),
            (frame(0xc2, b"x"),                                  Violation::ReservedBits,      1002),
            (frame(0xa2, b"x"),                                  Violation::ReservedBits,      1002),
            (frame(0x92, b"x"),                                  Violation::ReservedBits,      1002),
            (frame(0x83, b"x"),                                  Violation::Opcode,            1002),
            (frame(0x8b, b"x"),                                  Violation::Opcode,            1002),
            (frame(0x09, b"x"),                                  Violation::ControlFragmented, 1002),
            (masked_header(0x89, &[0xfe, 0, 126]),               Violation::ControlTooLarge,   1002),
            (frame(0x80, b"x"),                                  Violation::Continuation,      1002),
            ([frame(0x02, b"x"), frame(0x82, b"x")].concat(),    Violation::Continuation,      1002),
            (frame(0x88, b"\x03"),                               Violation::CloseCode,         1002),
            (frame(0x88, b"\x03\xed"),                           Violation::CloseCode,         1002),
            (frame(0x88, b"\x00\x00"),                           Violation::CloseCode,         1002),
            (frame(0x88, b"\x03\xe8\xff"),                       Violation::CloseReason,       1007),
            (frame(0x81, b"x"),                                  Violation::Text,              1003),
            (frame(0x82, &[0; 101]),                             Violation::TooLarge,          1009),
            ([frame(0x02, &long), frame(0x80, b"x")].concat(),   Violation::TooLarge,          1009),
            (masked_header(0x82, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff"), Violation::TooLarge, 1009),
        ];
        for (bytes, violation, code) in table {
            let found = read(&mut Incoming::new(100), &mut BytesMut::from(&bytes[..]));
            assert_eq!(found, Err(violation), "{bytes:x?}");
            assert_eq!(u16::from(violation.code()), code);
        }
    }

    /// A frame as any client may send it: with a mask of its own, of any length.
    fn any_frame(first: u8, mask: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            small @ 0..=125 => out.push(0x80 | small as u8),
            large => {
                out.push(0x80 | 126);
                out.extend(u16::try_from(large).unwrap().to_be_bytes());
            }
        }
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    /// What a client may send between two parts of a message.
    #[derive(Debug, Clone)]
    enum Between {
        Ping(Vec<u8>),
        Pong(Vec<u8>),
    }

    /// A part of a message, and what follows it.
    type Part = (Vec<u8>, [u8; 4], Option<Between>);

    fn messages() -> impl Strategy<Value = Vec<Vec<Part>>> {
        let short = || prop::collection::vec(any::<u8>(), 0..=125);
        let between = prop::option::of(prop_oneof![
            short().prop_map(Between::Ping),
            short().prop_map(Between::Pong)
        ]);
        let part = (prop::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>(), between);
        prop::collection::vec(prop::collection::vec(part, 1..4), 1..4)
    }

    proptest! {
        #[test]
        fn any_frames_cut_anywhere_say_the_same(
            messages in messages(),
            cuts in prop::collection::vec(1_usize..50, 1..20),
        ) {
            let (mut bytes, mut payload, mut controls) = (Vec::new(), Vec::new(), Vec::new());
            for parts in &messages {
                for (place, (part, mask, between)) in parts.iter().enumerate() {
                    let opcode = if place == 0 { 0x02 } else { 0x00 };
                    let last = if place + 1 == parts.len() { 0x80 } else { 0 };
                    bytes.extend(any_frame(opcode | last, *mask, part));
                    payload.extend_from_slice(part);
                    match between {
                        Some(Between::Ping(said)) => {
                            bytes.extend(any_frame(0x89, *mask, said));
                            controls.push(Next::Ping(BytesMut::from(&said[..])));
                        }
                        Some(Between::Pong(said)) => {
                            bytes.extend(any_frame(0x8a, *mask, said));
                            controls.push(Next::Pong);
                        }
                        None => {}
                    }
                }
            }
            let (mut incoming, mut input) = (Incoming::new(1_000), BytesMut::new());
            let (mut heard, mut said) = (Vec::new(), Vec::new());
            let (mut rest, mut cuts) = (&bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (part, more) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                rest = more;
                input.extend_from_slice(part);
                let (more, new) = read(&mut incoming, &mut input).unwrap();
                heard.extend(more);
                said.extend(new);
            }
            prop_assert_eq!(heard, payload);
            prop_assert_eq!(said, controls);
            prop_assert!(input.is_empty());
        }

        #[test]
        fn any_bytes_end_in_a_violation_or_wait_for_more_whatever_the_cuts(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            step in 1_usize..20,
        ) {
            let whole = read(&mut Incoming::new(1_000), &mut BytesMut::from(&bytes[..]));
            let (mut incoming, mut input) = (Incoming::new(1_000), BytesMut::new());
            let (mut heard, mut said) = (Vec::new(), Vec::new());
            let mut violation = None;
            for part in bytes.chunks(step) {
                input.extend_from_slice(part);
                match read(&mut incoming, &mut input) {
                    Ok((more, new)) => {
                        heard.extend(more);
                        said.extend(new);
                    }
                    Err(why) => {
                        violation = Some(why);
                        break;
                    }
                }
            }
            match whole {
                Ok((payload, controls)) => {
                    prop_assert_eq!(violation, None);
                    prop_assert_eq!((heard, said), (payload, controls));
                }
                Err(why) => prop_assert_eq!(violation, Some(why)),
            }
        }
    }

    #[test]
    fn our_frames_have_the_shortest_header_and_no_mask() {
        #[rustfmt::skip]
        let table: [(usize, &[u8]); 4] = [
            (0,      b"\x82\x00"),
            (125,    b"\x82\x7d"),
            (126,    b"\x82\x7e\x00\x7e"),
            (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ];
        for (len, header) in table {
            let mut output = BytesMut::new();
            put(OpCode::Data(Data::Binary), &vec![7; len], &mut output);
            assert_eq!((&output[..header.len()], output.len()), (header, header.len() + len));
        }
    }
}
