//! A server on this machine that answers as a test says.
#![allow(dead_code)] // each test binary uses its own part

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What an encrypted server shows of itself: made by `openssl req -x509 -newkey ec -nodes -days 36500` for
/// 127.0.0.1 and localhost, with `CA:FALSE`. Its key protects nothing.
pub(crate) const CERTIFICATE: &str = include_str!("cert.pem");
const KEY: &str = include_str!("key.pem");

/// What somebody asked for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Where the connection ends, if before the end of the body.
    pub(crate) cut: Option<usize>,
    /// Whether the connection stays open from there on, with nothing said.
    pub(crate) hangs: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: &[u8]) -> Reply {
        Reply {
            status,
            body: body.to_vec(),
            ..Reply::default()
        }
    }

    pub(crate) fn to(location: &str) -> Reply {
        Reply::new(302, b"").with("Location", location)
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn cut(self, at: usize) -> Reply {
        Reply {
            cut: Some(at),
            ..self
        }
    }

    pub(crate) fn hanging(self) -> Reply {
        Reply {
            hangs: true,
            ..self
        }
    }
}

/// A file as servers give it: whole, or from a byte on if it is the version that was begun with.
pub(crate) fn file(request: &Request, bytes: &[u8], etag: &str) -> Reply {
    let range = request.header("Range").and_then(|range| {
        let start = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        start.parse::<usize>().ok()
    });
    let same = request.header("If-Range").is_none_or(|had| had == etag);
    match range {
        Some(start) if start >= bytes.len() => {
            Reply::new(416, b"").with("Content-Range", format!("bytes */{}", bytes.len()))
        }
        Some(start) if same => Reply::new(206, &bytes[start..]).with(
            "Content-Range",
            format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()),
        ),
        _ => Reply::new(200, bytes),
    }
    .with("ETag", etag)
}

/// A server, until it is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        Self::start_on(answer, |stream| Some(Box::new(stream)))
    }

    /// One that speaks TLS, and shows [`CERTIFICATE`].
    pub(crate) fn start_encrypted(
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("a certificate")], key)
            .expect("they belong together");
        let config = Arc::new(config);
        Self::start_on(answer, move |stream| {
            let connection = ServerConnection::new(Arc::clone(&config)).ok()?;
            Some(Box::new(StreamOwned::new(connection, stream)))
        })
    }

    fn start_on(
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        open: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let server = Server {
            port,
            seen: Arc::clone(&seen),
        };
        let (answer, open) = (Arc::new(answer), Arc::new(open));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                let (answer, open) = (Arc::clone(&answer), Arc::clone(&open));
                std::thread::spawn(move || {
                    let mut stream = open(stream)?;
                    let request = read(&mut *stream)?;
                    seen.lock().expect("a list").push(request.clone());
                    // Whoever asked may have gone.
                    write(&mut *stream, &answer(&request)).ok()
                });
            }
        });
        server
    }

    /// An address on it.
    pub(crate) fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What was asked for so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("a list").clone()
    }

    /// The paths that were asked for so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen()
            .into_iter()
            .map(|request| request.path)
            .collect()
    }
}

/// A connection.
trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

fn read(stream: &mut dyn Stream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        })
        .collect();
    Some(Request { path, headers })
}

fn write(stream: &mut dyn Stream, reply: &Reply) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {} Odd\r\nConnection: close\r\n",
        reply.status
    )?;
    let states_length = reply
        .headers
        .iter()
        .any(|(name, _)| matches!(*name, "Content-Length" | "Transfer-Encoding"));
    if !states_length {
        write!(stream, "Content-Length: {}\r\n", reply.body.len())?;
    }
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "\r\n")?;
    let end = reply.cut.unwrap_or(usize::MAX).min(reply.body.len());
    stream.write_all(&reply.body[..end])?;
    stream.flush()?;
    if reply.hangs {
        std::thread::sleep(Duration::from_secs(20));
    }
    Ok(())
}

/// A made-up model of so many bytes.
pub(crate) fn model(bytes: usize) -> Vec<u8> {
    let mut noise = 1u32;
    let mut next = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    };
    let mut model = b"GGUF".to_vec();
    model.resize_with(bytes, &mut next);
    model
}
