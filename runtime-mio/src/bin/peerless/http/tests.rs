use std::{
    io::{Read, Write},
    net::SocketAddr,
    thread,
};

use super::*;

/// Serves `/hello`, and to how many bytes at most.
fn server(limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    serve(listener, limits, |path| match path {
        "/hello" => Some(Page::text(200, "hello")),
        "/huge" => Some(Page::text(200, &"x".repeat(64 << 20))),
        _ => None,
    })
    .unwrap();
    address
}

const PATIENT: Limits = Limits { connections: 4, patience: Duration::from_secs(60) };
const HELLO: &str = "GET /hello HTTP/1.1\r\n\r\n";

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    rest(stream)
}

/// What comes until the server closes; a reset counts as an end.
fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

#[test]
fn each_request_has_its_answer() {
    let address = server(PATIENT);
    let many = (0..=MAX_HEADERS).map(|n| format!("h{n}: x\r\n")).collect::<String>();
    let long = "x".repeat(MAX_REQUEST - "GET /".len());
    for (request, start) in [
        (HELLO.to_owned(), "HTTP/1.1 200 OK\r\n"),
        ("GET /hello?a=b HTTP/1.0\r\nHost: x\r\n\r\n".into(), "HTTP/1.1 200 OK\r\n"),
        ("GET /hell HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 404 Not Found\r\n"),
        ("POST /hello HTTP/1.1\r\n\r\n".into(), "HTTP/1.1 405 Method Not Allowed\r\n"),
        ("GET /hello HTTP/9\r\n\r\n".into(), "HTTP/1.1 400 Bad Request\r\n"),
        ("\0".into(), "HTTP/1.1 400 Bad Request\r\n"),
        (format!("GET /hello HTTP/1.1\r\n{many}\r\n"), "HTTP/1.1 431 "),
        (format!("GET /{long}"), "HTTP/1.1 431 "),
    ] {
        let answer = ask(address, &request);
        assert!(answer.starts_with(start), "{request}: {answer}");
    }
    assert!(ask(address, HELLO).ends_with("Content-Length: 6\r\nConnection: close\r\n\r\nhello\n"));
    let head = ask(address, "HEAD /hello HTTP/1.1\r\n\r\n");
    assert!(head.contains("Content-Length: 6\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut stream = TcpStream::connect(server(PATIENT)).unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in HELLO.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    assert!(rest(stream).starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn clients_that_dawdle_are_dropped_and_hold_nobody_up() {
    let address = server(Limits { connections: 3, patience: Duration::from_millis(300) });
    let silent = TcpStream::connect(address).unwrap();
    let mut deaf = TcpStream::connect(address).unwrap();
    deaf.write_all(b"GET /huge HTTP/1.1\r\n\r\n").unwrap();
    assert!(ask(address, HELLO).ends_with("hello\n"));
    assert_eq!(rest(silent), "");
    thread::sleep(Duration::from_millis(600));
    assert!(rest(deaf).len() < 64 << 20);
}

#[test]
fn whoever_comes_is_served_however_many_dawdle() {
    let address = server(Limits { connections: 2, ..PATIENT });
    let dawdlers: Vec<_> = (0..8)
        .map(|_| {
            let mut client = TcpStream::connect(address).unwrap();
            client.write_all(b"GET /hello HTTP/1.1\r\n").unwrap();
            assert!((0..100).any(|_| ask(address, HELLO).ends_with("hello\n") || {
                // Those that were hung up on may not have noticed yet.
                thread::sleep(Duration::from_millis(50));
                false
            }));
            client
        })
        .collect();
    assert_eq!(rest(dawdlers.into_iter().next().unwrap()), "", "the first has made room");
}
