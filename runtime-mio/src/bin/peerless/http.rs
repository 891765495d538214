//! Pages over HTTP/1.1, for few clients at a time, none of which may dawdle. One request per connection.

use std::{
    io,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use crate::clients::{self, Client, Deadline};

/// Most bytes of a request; no body is read.
const MAX_REQUEST: usize = 8 << 10;
/// Most header fields of a request.
const MAX_HEADERS: usize = 64;

/// What a server puts up with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time; for another one the first is closed.
    pub(crate) connections: usize,
    /// How long a client may take to ask, and then to take the answer.
    pub(crate) patience: Duration,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Page {
    /// A page of plain text.
    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: format!("{body}\n") }
    }
}

/// Serves `pages`, by path and without the query, on threads of its own until the process ends.
pub(crate) fn serve(
    listener: TcpListener,
    limits: Limits,
    pages: impl Fn(&str) -> Option<Page> + Send + Sync + 'static,
) -> io::Result<()> {
    let accept = move || listener.accept().map(|(stream, _)| stream);
    clients::serve("http", limits.connections, accept, move |stream| {
        converse(stream, limits.patience, &pages)
    })
}

fn converse(stream: &TcpStream, patience: Duration, pages: &impl Fn(&str) -> Option<Page>) -> io::Result<()> {
    let (page, with_body) = match read_request(stream, Deadline::after(patience))? {
        Request::Get { path, with_body } => {
            (pages(&path).unwrap_or_else(|| Page::text(404, "no such page")), with_body)
        }
        Request::Refused(page) => (page, true),
    };
    let Page { status, content_type, body } = page;
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let mut answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        reason(status),
        body.len(),
    );
    if with_body {
        answer.push_str(&body);
    }
    clients::answer(stream, answer.as_bytes(), Deadline::after(patience))
}

/// What a client wants.
#[derive(Debug)]
enum Request {
    Get { path: String, with_body: bool },
    Refused(Page),
}

fn read_request(stream: &TcpStream, deadline: Deadline) -> io::Result<Request> {
    let mut buffer = [0; MAX_REQUEST];
    let mut len = 0;
    while len < MAX_REQUEST {
        match stream.read_within(&mut buffer[len..], deadline.left()?)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => len += n,
        }
        if let Some(request) = parse(&buffer[..len]) {
            return Ok(request);
        }
    }
    Ok(Request::Refused(Page::text(431, "the request is too long")))
}

/// `None` if there is more to come.
fn parse(bytes: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Some(Request::Refused(Page::text(431, "too many header fields")));
        }
        Err(error) => return Some(Request::Refused(Page::text(400, &error.to_string()))),
    }
    let with_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Some(Request::Refused(Page::text(405, "GET or HEAD is needed"))),
    };
    let path = request.path.unwrap_or_default();
    Some(Request::Get { path: path.split('?').next().unwrap_or_default().to_owned(), with_body })
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    }
}

#[cfg(test)]
mod tests;
