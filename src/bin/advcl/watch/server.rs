//! A small HTTP server: pages by GET and HEAD. No client can end it or keep it from the others.
//!
//! The crates that are as small wait for bodies that never come and claim what a client declares; those that do not bring a runtime.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// Connections that are answered at the same time; others wait.
const AT_ONCE: usize = 16;
/// Time that a client has to send its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time until the next look at connections, where there are as many as there may be or the system gives no more.
const PAUSE: Duration = Duration::from_millis(20);
/// Largest line and headers of a request in bytes.
const MAX_HEAD: usize = 8 << 10;
/// Answer to a request with more: browsers send what any server of this machine left with them.
const TOO_LONG: &str =
    "Too many cookies: delete those of this name (localhost, 127.0.0.1), or ask by the other one.";
/// Stack of a thread in bytes: that of the program's first thread, which pages were made by before.
const STACK: usize = 8 << 20;

/// Line and headers of a request.
pub struct Request {
    pub method: String,
    pub path: String,
    /// Name by which the client asks for this machine; empty where it gives none.
    pub host: String,
}

/// Status and page of an answer.
pub type Answer = (u16, String);

/// Answers requests without end, each connection by a thread of its own.
pub fn serve(listener: &TcpListener, answer: impl Fn(&Request) -> Answer + Sync) -> ! {
    let answer = &answer;
    thread::scope(|scope| {
        let mut running: Vec<thread::ScopedJoinHandle<()>> = Vec::new();
        loop {
            running.retain(|one| !one.is_finished());
            if running.len() >= AT_ONCE {
                thread::sleep(PAUSE);
                continue;
            }
            let started = listener.accept().and_then(|(stream, _)| {
                // A client that went away is no fault.
                let work = move || drop(converse(stream, answer));
                let thread = thread::Builder::new().stack_size(STACK);
                thread.spawn_scoped(scope, work)
            });
            match started {
                Ok(thread) => running.push(thread),
                // No file or thread is left, which others give back, or the client went away.
                Err(_) => thread::sleep(PAUSE),
            }
        }
    })
}

/// Answers one request and closes the connection. What a client sends after the headers is never read, whatever it says of it.
fn converse(mut stream: TcpStream, answer: impl Fn(&Request) -> Answer) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    let request = head.as_deref().map(Request::parse);
    let (code, page) = match &request {
        None => (431, TOO_LONG.to_owned()),
        Some(None) => (400, "No request of HTTP.".to_owned()),
        Some(Some(request)) => answer(request),
    };
    let reason = match code {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Request Header Fields Too Large",
    };
    let mut text = format!(
        "HTTP/1.1 {code} {reason}\r\n\
         Content-Type: text/html; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n\
         Connection: close\r\n\r\n",
        page.len()
    );
    let headers_alone = matches!(&request, Some(Some(request)) if request.method == "HEAD");
    if !headers_alone {
        text += &page;
    }
    write(&mut stream, text.as_bytes())
}

/// Reads a request as far as the end of its headers; none where they are too long.
fn read_head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let until = Instant::now() + PATIENCE;
    let (mut head, mut block) = (Vec::new(), [0; 1 << 10]);
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut block)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => head.extend(&block[..count]),
        }
        let end = head.windows(4).position(|four| four == b"\r\n\r\n");
        match end {
            Some(end) if end <= MAX_HEAD => {
                return Ok(Some(String::from_utf8_lossy(&head[..end]).into_owned()));
            }
            None if head.len() <= MAX_HEAD => {}
            _ => return Ok(None),
        }
    }
}

/// Writes all bytes, to a client that takes them in time.
fn write(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(until)?))?;
        match stream.write(bytes)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            count => bytes = &bytes[count..],
        }
    }
    Ok(())
}

/// Time that is left. A limit of each read or write alone would let a client take hours, byte by byte.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.checked_duration_since(Instant::now());
    let left = left.filter(|left| !left.is_zero());
    left.ok_or(ErrorKind::TimedOut.into())
}

impl Request {
    /// Reads the lines of a request; none where they are of something else.
    fn parse(head: &str) -> Option<Self> {
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        let version = words.next()?;
        let mut headers = lines.filter_map(|line| line.split_once(':'));
        let host = headers.find(|(name, _)| name.eq_ignore_ascii_case("host"));
        version.starts_with("HTTP/1.").then(|| Self {
            method: method.to_owned(),
            path: path.to_owned(),
            host: host.map_or("", |(_, value)| value.trim()).to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_nothing_else_is_one() {
        let read = |head: &str| {
            let request = Request::parse(head)?;
            Some([request.method, request.path, request.host])
        };
        let parts = |words: [&str; 3]| Some(words.map(str::to_owned));
        assert_eq!(
            read("GET /report HTTP/1.1\r\nA: b\r\nhOST:  [::1]:80 \r\nHost: other"),
            parts(["GET", "/report", "[::1]:80"])
        );
        assert_eq!(read("HEAD / HTTP/1.0"), parts(["HEAD", "/", ""]));
        for other in ["", "GET", "GET /", "GET / HTTP/2", "\u{fffd}\u{fffd}"] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }
}
