//! A well-behaved WebSocket client: blocking, masking as it must, answering pings. Knows texts
//! and closes; nothing of what they mean.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::client::Response;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use super::PATIENCE;
use super::patient::Patient;

/// One connection.
pub(crate) struct Client {
    socket: WebSocket<Patient<TcpStream>>,
    /// The 101.
    pub(crate) response: Response,
}

impl Client {
    /// Connects with a token in the header.
    pub(crate) fn connect(address: SocketAddr, path: &str, token: &str) -> Self {
        let bearer = format!("Bearer {token}");
        Self::connect_with(address, path, &[("authorization", &bearer)])
    }

    /// Connects without a token.
    pub(crate) fn connect_public(address: SocketAddr, path: &str) -> Self {
        Self::connect_with(address, path, &[])
    }

    /// Connects with these headers.
    pub(crate) fn connect_with(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Self {
        Self::over(connected(address), path, headers)
    }

    /// Upgrades a connected stream.
    pub(crate) fn over(stream: TcpStream, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let address = stream.peer_addr().unwrap();
        let mut request = format!("ws://{address}{path}")
            .into_client_request()
            .unwrap();
        for (name, value) in headers {
            let value = value.parse().unwrap();
            request.headers_mut().insert(*name, value);
        }
        let upgraded = tungstenite::client(request, Patient(stream));
        let (socket, response) = upgraded.expect("the server says 101");
        Self { socket, response }
    }

    /// Sends a text.
    pub(crate) fn send(&mut self, text: &str) {
        self.send_message(Message::text(text));
    }

    /// Sends any message.
    pub(crate) fn send_message(&mut self, message: Message) {
        self.socket.send(message).expect("a message can be sent");
    }

    /// The next message. Pings are answered and passed over, as every client does.
    #[track_caller]
    pub(crate) fn receive_message(&mut self) -> Message {
        loop {
            match self.socket.read() {
                Ok(Message::Ping(_)) => self.socket.flush().expect("a ping can be answered"),
                Ok(message) => return message,
                Err(error) => panic!("no message came: {error}"),
            }
        }
    }

    /// The next text.
    #[track_caller]
    pub(crate) fn receive(&mut self) -> String {
        match self.receive_message() {
            Message::Text(text) => text.to_string(),
            other => panic!("no text but {other:?}"),
        }
    }

    /// The next message must be this text, byte for byte.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        assert_eq!(self.receive(), text);
    }

    /// Sends one text and expects another.
    #[track_caller]
    pub(crate) fn ask(&mut self, text: &str, answer: &str) {
        self.send(text);
        self.expect(answer);
    }

    /// Subscribes to a relay topic and waits until that is confirmed.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, topic: &str) {
        self.ask(
            &format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#),
            &format!(r#"{{"type":"subscribed","topic":"{topic}"}}"#),
        );
    }

    /// Leaves a relay topic and waits until that is confirmed.
    #[track_caller]
    pub(crate) fn unsubscribe(&mut self, topic: &str) {
        self.ask(
            &format!(r#"{{"type":"unsubscribe","topic":"{topic}"}}"#),
            &format!(r#"{{"type":"unsubscribed","topic":"{topic}"}}"#),
        );
    }

    /// Sends a message to a relay topic.
    pub(crate) fn say(&mut self, topic: &str, event: &str, payload: &str) {
        self.send(&format!(
            r#"{{"type":"message","topic":"{topic}","event":"{event}","payload":{payload}}}"#
        ));
    }

    /// The next text must be this push.
    #[track_caller]
    pub(crate) fn expect_push(&mut self, topic: &str, event: &str, payload: &str) {
        self.expect(&format!(
            r#"{{"type":"push","topic":"{topic}","event":"{event}","payload":{payload}}}"#
        ));
    }

    /// The next text must be this error of the relay dialect.
    #[track_caller]
    pub(crate) fn expect_error(&mut self, message: &str) {
        self.expect(&format!(r#"{{"type":"error","message":"{message}"}}"#));
    }

    /// Nothing has been queued for this relay client that it has not seen yet: what its shard is
    /// asked now is answered next.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) {
        self.ask(r#"{"type":"ping"}"#, r#"{"type":"pong"}"#);
    }

    /// The server must close with this code and reason, and end the connection when it has seen
    /// our close.
    #[track_caller]
    pub(crate) fn expect_close(mut self, code: u16, reason: &str) {
        match self.receive_message() {
            Message::Close(Some(frame)) => {
                let found = (u16::from(frame.code), frame.reason.as_str());
                assert_eq!(found, (code, reason));
            }
            other => panic!("no close with {code} but {other:?}"),
        }
        self.expect_end();
    }

    /// The connection must end, whether or not the other side says goodbye.
    #[track_caller]
    pub(crate) fn expect_end(mut self) {
        loop {
            match self.socket.read() {
                Ok(Message::Ping(_) | Message::Close(_)) => {}
                Ok(message) => panic!("no end but {message:?}"),
                Err(Error::Io(error)) if is_timeout(&error) => panic!("the connection stays"),
                Err(_) => return,
            }
        }
    }

    /// Says goodbye and waits for the echo.
    #[track_caller]
    pub(crate) fn close(mut self) {
        let frame = tungstenite::protocol::CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        self.socket.close(Some(frame)).expect("a close can be sent");
        self.expect_close(1000, "");
    }

    /// Ends the connection without a word, by a reset.
    pub(crate) fn vanish(self) {
        let stream = &self.socket.get_ref().0;
        rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO)).unwrap();
    }
}

/// A stream with the deadlines of every test.
pub(crate) fn connected(address: SocketAddr) -> TcpStream {
    with_deadlines(TcpStream::connect_timeout(&address, PATIENCE).expect("the server listens"))
}

/// A stream whose kernel takes only a little in before the server has to wait.
pub(crate) fn connected_with_small_buffer(address: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    // Set before connecting: later the window has been announced.
    sockopt::set_socket_recv_buffer_size(&socket, SMALL_BUFFER_BYTES).unwrap();
    connect(&socket, &address).expect("the server listens");
    with_deadlines(socket.into())
}

/// A stream from this address of the machine.
pub(crate) fn connected_from(own: Ipv4Addr, address: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((own, 0))).unwrap();
    connect(&socket, &address).expect("the server listens");
    with_deadlines(socket.into())
}

fn with_deadlines(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

pub(super) fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock)
}

const SMALL_BUFFER_BYTES: usize = 4096;
