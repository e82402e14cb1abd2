//! TLS, as a client: 1.3, nothing is verified, and sessions are either resumed whenever there is a ticket, or never.

use std::{
    io::{self, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    SignatureScheme,
    client::{
        ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{
    options::{Options, Outcome},
    poller::not_yet,
};

/// The bytes that are received at once: rustls asks for few at a time.
const BUFFER: usize = 32 << 10;

/// The bytes that a write that blocks takes at once.
const PART: usize = 64 << 10;

/// Takes every server for the right one.
#[derive(Debug)]
struct Trusting(Vec<SignatureScheme>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// The tickets that the server gave. Each is used once. (The store of rustls keeps eight.)
#[derive(Debug, Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

impl Tickets {
    /// How many there are.
    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _server_name: ServerName<'static>, _group: NamedGroup) {}

    fn kx_hint(&self, _server_name: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(
        &self,
        _server_name: ServerName<'static>,
        _value: Tls12ClientSessionValue,
    ) {
    }

    fn tls12_session(&self, _server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _server_name: &ServerName<'static>) {}

    fn insert_tls13_ticket(
        &self,
        _server_name: ServerName<'static>,
        value: Tls13ClientSessionValue,
    ) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.push(value);
    }

    fn take_tls13_ticket(
        &self,
        _server_name: &ServerName<'static>,
    ) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

/// What all sessions have in common.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The settings of rustls.
    config: Arc<ClientConfig>,
    /// Where the tickets are, if sessions are to be resumed.
    tickets: Option<Arc<Tickets>>,
}

impl Client {
    /// `--tls full` or `--tls resumed`; without it there is no TLS.
    pub(crate) fn of(options: &Options) -> Outcome<Option<Self>> {
        match options.optional::<String>("tls")?.as_deref() {
            None => Ok(None),
            Some("full") => Ok(Some(Self::new(None)?)),
            Some("resumed") => Ok(Some(Self::new(Some(Arc::default()))?)),
            Some(other) => Err(format!("--tls {other} makes no sense").into()),
        }
    }

    /// A client that resumes sessions if it has a place for tickets.
    fn new(tickets: Option<Arc<Tickets>>) -> Outcome<Self> {
        let provider = Arc::new(ring::default_provider());
        let schemes = provider
            .signature_verification_algorithms
            .supported_schemes();
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Trusting(schemes)))
            .with_no_client_auth();
        config.resumption = match &tickets {
            Some(tickets) => Resumption::store(tickets.clone()),
            None => Resumption::disabled(),
        };
        Ok(Self {
            config: Arc::new(config),
            tickets,
        })
    }

    /// Are sessions to be resumed?
    pub(crate) fn resumes(&self) -> bool {
        self.tickets.is_some()
    }

    /// How many sessions can be resumed now.
    pub(crate) fn tickets(&self) -> usize {
        self.tickets.as_ref().map_or(0, |tickets| tickets.count())
    }

    /// Says hello. The handshake goes on while the session is read.
    pub(crate) fn begin(&self, socket: TcpStream) -> io::Result<Session> {
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let expected = match self.tickets() {
            0 => HandshakeKind::Full,
            _ => HandshakeKind::Resumed,
        };
        let mut connection =
            ClientConnection::new(self.config.clone(), name).map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        let mut session = Session {
            socket: BufReader::with_capacity(BUFFER, socket),
            connection,
            expected,
        };
        session.flush_records()?;
        Ok(session)
    }
}

/// A connection that speaks TLS. `receive` and `send` are for sockets that do not block, `Read` and `Write` for
/// those that do. It says goodbye when it is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    /// The socket.
    socket: BufReader<TcpStream>,
    /// The state of TLS.
    connection: ClientConnection,
    /// What the handshake has to be.
    expected: HandshakeKind,
}

impl Session {
    /// The socket, to be watched.
    pub(crate) fn socket(&self) -> &TcpStream {
        self.socket.get_ref()
    }

    /// Reads what is there: `None` for nothing yet, 0 for the end. Where the buffer is not full afterwards, there is
    /// no more on this side of the socket.
    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut length = 0;
        loop {
            match not_yet(self.connection.reader().read(&mut buffer[length..])) {
                Ok(Some(0)) => return Ok(Some(length)),
                // Without a goodbye it is an end all the same, and none of ours expects one.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(Some(length)),
                outcome => length += outcome?.unwrap_or(0),
            }
            if length == buffer.len() || (length > 0 && self.socket.buffer().is_empty()) {
                self.check_handshake()?;
                return Ok(Some(length));
            }
            if not_yet(self.connection.read_tls(&mut self.socket))?.is_none() {
                return Ok((length > 0).then_some(length));
            }
            let outcome = self.connection.process_new_packets();
            self.flush_records()?;
            outcome.map_err(io::Error::other)?;
        }
    }

    /// Fails if the handshake was longer or shorter than it should be.
    fn check_handshake(&self) -> io::Result<()> {
        let kind = self.connection.handshake_kind();
        if kind == Some(self.expected) {
            Ok(())
        } else {
            let wanted = self.expected;
            let text = format!("the handshake was to be {wanted:?} and is {kind:?}");
            Err(io::Error::other(text))
        }
    }

    /// Takes all of `data`, and sends what there is room for.
    pub(crate) fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = self.connection.writer().write(data)?;
        self.flush_records()?;
        Ok(length)
    }

    /// Does something wait for room?
    pub(crate) fn is_owing(&self) -> bool {
        self.connection.wants_write()
    }

    /// Sends records while there is room.
    fn flush_records(&mut self) -> io::Result<()> {
        while self.connection.wants_write() {
            if not_yet(self.connection.write_tls(self.socket.get_mut()))?.is_none() {
                break;
            }
        }
        Ok(())
    }
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.receive(buffer)?
            .ok_or_else(|| ErrorKind::TimedOut.into())
    }
}

impl Write for Session {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = self.send(&data[..data.len().min(PART)])?;
        self.flush()?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush_records()?;
        if self.is_owing() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.send_close_notify();
        // The other end may have gone already.
        let _ = self.flush_records();
    }
}
