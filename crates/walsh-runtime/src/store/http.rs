//! Speaking to servers: one exchange at a time, over `https`, or over `http` to this machine.
//!
//! An exchange runs on a thread of its own and hands over what comes, so that a caller can end it at any
//! moment, be it in a name's resolution or a handshake. Redirects are followed here rather than by the
//! client, because each of them has to be looked at: where it leads, and whether the token may go there.
//!
//! Certificates and proxies are those of the machine, found by the libraries where its other programs find
//! them: a company's own roots and proxy work as they do for pip. No proxy is asked for this machine itself.

use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ureq::http::header::{self, HeaderMap, HeaderName};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::reference::Address;
use super::token::Token;
use crate::error::{Error, Result};
use crate::shown::shown;
use crate::watch::Watch;

/// How many times a server may refer to another address.
const REDIRECTS: usize = 10;

/// How often a caller's wish to end is looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// How much is read at a time.
const CHUNK: usize = 1 << 17;

/// A header in which the hub states the SHA-256 of a large file before it refers to where that lies.
const LINKED_ETAG: &str = "x-linked-etag";

/// Why an exchange ended early.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It might go well another time: the connection broke, or nothing came. The reason is a part of a
    /// sentence.
    Broken(String),
    /// It cannot go well as things are.
    Final(Error),
}

impl Trouble {
    /// The error of a caller that does not try again.
    pub(super) fn into_error(self) -> Error {
        match self {
            Trouble::Broken(why) => Error::store(format!("{why}: check the network and try again")),
            Trouble::Final(error) => error,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Final(error)
    }
}

/// Speaks to servers.
#[derive(Debug)]
pub(super) struct Client {
    line: Arc<Line>,
}

/// The one server that is given a token.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) hub: Address,
    pub(super) token: Option<Token>,
    /// Where a token is looked for.
    pub(super) token_file: PathBuf,
}

/// What exchanges share.
#[derive(Debug)]
struct Line {
    hub: Access,
    silence: Duration,
    encrypted: OnceLock<Result<Agent, String>>,
    loopback: OnceLock<Agent>,
}

/// What comes back, in this order.
enum Message {
    Head(Head),
    Chunk(Vec<u8>),
    End,
    Trouble(Trouble),
}

/// The beginning of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// The status: 200, 206, 416 and refusals of every kind.
    pub(super) status: u16,
    /// Who gave it, behind all redirects.
    pub(super) address: Address,
    /// The SHA-256 that the hub states for the file.
    pub(super) sha256: Option<String>,
    /// Whether the token was sent to whoever gave it.
    pub(super) had_token: bool,
    headers: HeaderMap,
}

impl Head {
    /// A header's value, if it is text.
    pub(super) fn text(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// An answer, whose body comes piece by piece.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Head,
    messages: Receiver<Message>,
}

impl Client {
    /// A client that gives up on a server that says nothing for as long as `silence`.
    pub(super) fn new(hub: Access, silence: Duration) -> Client {
        let line = Line {
            hub,
            silence,
            encrypted: OnceLock::new(),
            loopback: OnceLock::new(),
        };
        Client {
            line: Arc::new(line),
        }
    }

    /// Asks for what lies at an address.
    ///
    /// # Errors
    /// When there is no answer, or the caller no longer wants one. A refusal is an answer.
    pub(super) fn get(
        &self,
        address: &Address,
        headers: &[(HeaderName, String)],
        watch: &Watch,
    ) -> Result<Answer, Trouble> {
        watch.check()?;
        let (line, address) = (Arc::clone(&self.line), address.clone());
        let headers = headers.to_vec();
        let (sender, messages) = sync_channel(8);
        std::thread::spawn(move || line.exchange(address, &headers, &sender));
        match next(&messages, watch)? {
            Message::Head(head) => Ok(Answer { head, messages }),
            Message::Trouble(trouble) => Err(trouble),
            Message::Chunk(_) | Message::End => Err(stopped()),
        }
    }

    /// Why a server did not give what was asked for, and what to do.
    pub(super) fn refusal(&self, head: &Head, what: &str) -> Error {
        let (host, status) = (head.address.host(), head.status);
        let is_hub = head.address.has_origin_of(&self.line.hub.hub);
        Error::store(match status {
            401 | 403 if head.had_token => format!(
                "{host} does not give {what} to the owner of the token in {} ({status}): check the name, accept the licence on the model's page, or make another token",
                self.line.hub.token_file.display()
            ),
            401 | 403 if is_hub => format!(
                "{what} does not exist or is not open to all ({status}): check the name; where a licence is to be accepted, do so on the model's page and put a token into {} (HF_TOKEN is not read)",
                self.line.hub.token_file.display()
            ),
            401 | 403 => format!(
                "{host} does not give {what} to everybody ({status}): fetch it otherwise, and give its path"
            ),
            404 | 410 => format!("{host} has no {what} ({status}): check the name"),
            429 => {
                let after = head.text(header::RETRY_AFTER);
                let seconds = after.and_then(|after| after.parse::<u32>().ok());
                let when = seconds.map_or("later".to_owned(), |seconds| format!("in {seconds} s"));
                format!("{host} has too much to do (429): try again {when}")
            }
            500..=599 => format!("{host} has a fault ({status}): try again later"),
            status => format!("{host} answers {status} instead of {what}: check the address"),
        })
    }
}

/// Ends what exchanges are still under way.
impl Drop for Client {
    fn drop(&mut self) {
        let encrypted = self.line.encrypted.get();
        let agents = [
            encrypted.and_then(|agent| agent.as_ref().ok()),
            self.line.loopback.get(),
        ];
        for agent in agents.into_iter().flatten() {
            agent.clone().shutdown();
        }
    }
}

impl Answer {
    /// The next piece of the body; None at its end.
    ///
    /// # Errors
    /// When the connection breaks before the end, or the caller no longer wants it.
    pub(super) fn next(&mut self, watch: &Watch) -> Result<Option<Vec<u8>>, Trouble> {
        match next(&self.messages, watch)? {
            Message::Chunk(bytes) => Ok(Some(bytes)),
            Message::End => Ok(None),
            Message::Trouble(trouble) => Err(trouble),
            Message::Head(_) => Err(stopped()),
        }
    }
}

fn next(messages: &Receiver<Message>, watch: &Watch) -> Result<Message, Trouble> {
    loop {
        watch.check()?;
        match messages.recv_timeout(GLANCE) {
            Ok(message) => return Ok(message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(stopped()),
        }
    }
}

fn stopped() -> Trouble {
    Trouble::Broken("the exchange with the server ended in the middle".to_owned())
}

impl Line {
    /// Sends all that an exchange gives, until nobody listens any more.
    fn exchange(
        &self,
        address: Address,
        headers: &[(HeaderName, String)],
        sender: &SyncSender<Message>,
    ) {
        let (head, body) = match self.head(address, headers) {
            Ok(head) => head,
            Err(trouble) => return drop(sender.send(Message::Trouble(trouble))),
        };
        let address = head.address.clone();
        if sender.send(Message::Head(head)).is_err() {
            return;
        }
        let mut body = body.into_reader();
        loop {
            let mut chunk = vec![0; CHUNK];
            let message = match body.read(&mut chunk) {
                Ok(0) => Message::End,
                Ok(count) => {
                    chunk.truncate(count);
                    Message::Chunk(chunk)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => Message::Trouble(trouble(unwrapped(error), &address, self.silence)),
            };
            let is_last = !matches!(message, Message::Chunk(_));
            if sender.send(message).is_err() || is_last {
                return;
            }
        }
    }

    /// Follows redirects to the beginning of an answer.
    fn head(
        &self,
        mut address: Address,
        headers: &[(HeaderName, String)],
    ) -> Result<(Head, Body), Trouble> {
        let mut sha256 = None;
        for _ in 0..=REDIRECTS {
            let is_hub = address.has_origin_of(&self.hub.hub);
            let mut request = self.agent(&address)?.get(address.uri());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let token = self.hub.token.as_ref().filter(|_| is_hub);
            if let Some(token) = token {
                request = request.header(header::AUTHORIZATION, token.bearer());
            }
            let answer = request
                .call()
                .map_err(|error| trouble(error, &address, self.silence))?;
            let (parts, body) = answer.into_parts();
            if is_hub && let Some(etag) = parts.headers.get(LINKED_ETAG) {
                let etag = etag.to_str().unwrap_or_default().trim_matches('"');
                sha256 = is_sha256(etag).then(|| etag.to_owned()).or(sha256);
            }
            if matches!(parts.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                let location = parts.headers.get(header::LOCATION);
                let location = location.and_then(|location| location.to_str().ok());
                let location = location.ok_or_else(|| {
                    Error::store(format!(
                        "{} refers to another address, but says none: check the address",
                        address.plain()
                    ))
                })?;
                address = address.join(location)?;
                continue;
            }
            let head = Head {
                status: parts.status.as_u16(),
                had_token: token.is_some(),
                address,
                sha256,
                headers: parts.headers,
            };
            return Ok((head, body));
        }
        Err(Trouble::Final(Error::store(format!(
            "{} refers to another address more than {REDIRECTS} times: check the address",
            address.host()
        ))))
    }

    fn agent(&self, address: &Address) -> Result<&Agent> {
        if !address.is_encrypted() {
            // No proxy stands between a machine and itself.
            let config = || {
                let config = Agent::config_builder().proxy(None);
                self.with_limits(config).build().into()
            };
            return Ok(self.loopback.get_or_init(config));
        }
        let agent = self.encrypted.get_or_init(|| {
            let found = rustls_native_certs::load_native_certs();
            if found.certs.is_empty() {
                let why = found.errors.first().map(|error| format!(" ({error})"));
                return Err(format!(
                    "this machine has no certificates to tell servers by{}: install them (Debian: ca-certificates)",
                    why.unwrap_or_default()
                ));
            }
            let roots = found.certs.iter().map(|root| Certificate::from_der(root).to_owned());
            let tls = TlsConfig::builder()
                .unversioned_rustls_crypto_provider(Arc::new(
                    rustls::crypto::ring::default_provider(),
                ))
                .root_certs(RootCerts::new_with_certs(&roots.collect::<Vec<_>>()))
                .build();
            let config = Agent::config_builder().https_only(true).tls_config(tls);
            Ok(self.with_limits(config).build().into())
        });
        agent.as_ref().map_err(|why| Error::store(why.clone()))
    }

    /// What holds for every exchange.
    fn with_limits(
        &self,
        config: ureq::config::ConfigBuilder<ureq::typestate::AgentScope>,
    ) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
        let silence = Some(self.silence);
        config
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("walsh/", env!("CARGO_PKG_VERSION")))
            // What is fetched is counted and compared byte by byte.
            .accept_encoding("identity")
            .timeout_resolve(silence)
            .timeout_connect(silence)
            .timeout_send_request(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence)
            .timeout_per_write(silence)
    }
}

/// Whether a word can be a SHA-256 in lower-case hexadecimal.
pub(super) fn is_sha256(word: &str) -> bool {
    word.len() == 64 && word.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The client's error inside that of a read.
fn unwrapped(error: io::Error) -> ureq::Error {
    match error.downcast::<ureq::Error>() {
        Ok(error) => error,
        Err(error) => ureq::Error::Io(error),
    }
}

/// What a client's error means, and whether to try again.
fn trouble(error: ureq::Error, address: &Address, silence: Duration) -> Trouble {
    let host = address.host();
    let broken = |what: String| Trouble::Broken(what);
    let last = |what: String| Trouble::Final(Error::store(what));
    let untrusted = |why: &dyn std::fmt::Display| {
        last(format!(
            "{host} cannot be trusted ({}): check the address, the clock, and the certificates of this machine",
            bounded(&why.to_string())
        ))
    };
    match error {
        ureq::Error::HostNotFound => broken(not_found(host)),
        ureq::Error::Timeout(_) => broken(silent(host, silence)),
        ureq::Error::Rustls(error) => untrusted(&error),
        ureq::Error::Tls(why) => untrusted(&why),
        ureq::Error::Io(error) => {
            let inner = error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>());
            if let Some(inner) = inner {
                return untrusted(inner);
            }
            match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => broken(silent(host, silence)),
                ErrorKind::ConnectionRefused => broken(format!("{host} refuses the connection")),
                ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe => broken(format!("the connection to {host} broke")),
                // What a resolver has to say has no kind of its own.
                _ if error.to_string().contains("lookup address") => broken(not_found(host)),
                _ => broken(format!(
                    "{host} cannot be reached ({})",
                    bounded(&error.to_string())
                )),
            }
        }
        ureq::Error::ConnectionFailed => broken(format!("{host} cannot be reached")),
        ureq::Error::ConnectProxyFailed(why) => last(format!(
            "the proxy does not let through to {host} ({}): check the proxy's settings, such as HTTPS_PROXY",
            bounded(&why)
        )),
        ureq::Error::InvalidProxyUrl => last(
            "the proxy's address cannot be used: check the proxy's settings, such as HTTPS_PROXY"
                .to_owned(),
        ),
        other => last(format!(
            "{host} does not answer as servers do ({}): check the address",
            bounded(&other.to_string())
        )),
    }
}

fn not_found(host: &str) -> String {
    format!("{host} was not found by its name")
}

fn silent(host: &str, silence: Duration) -> String {
    format!("{host} said nothing for {} s", silence.as_secs_f32())
}

/// Words of somebody else, in a line of bounded length.
pub(super) fn bounded(words: &str) -> String {
    const LONGEST: usize = 160;
    let words = words.trim();
    let start: String = words.chars().take(LONGEST).collect();
    let more = if start.len() < words.len() { "…" } else { "" };
    format!("{}{more}", shown(&start))
}
