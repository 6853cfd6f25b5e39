//! `advcl watch`: pages about a run, from a server that changes nothing.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::{Transcript, advcl, contents, folder, folder_after, get, program, put};

/// The server and its address, `127.0.0.1:PORT`.
fn serve(folder: &Path, args: &str) -> (Child, String) {
    serve_by(program(folder), args)
}

/// The same of a command that is the program, or starts it.
fn serve_by(mut command: Command, args: &str) -> (Child, String) {
    command.args(format!("watch {args} --port 0").split_whitespace());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let mut line = String::new();
    let out = child.stdout.take().expect("piped");
    BufReader::new(out).read_line(&mut line).expect("a line");
    let address = line.trim().trim_start_matches("http://");
    (child, address.trim_end_matches('/').to_owned())
}

/// Status and content of an answer.
fn ask(address: &str, method: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("a server");
    // Of the older kind, whose answers come in one piece.
    let request = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a reader");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let content = answer
        .split_once("\r\n\r\n")
        .map_or("", |(_, content)| content);
    (code.expect("a status"), content.to_owned())
}

#[test]
fn a_run_is_watched_and_left_as_it_is() {
    let folder =
        folder_after("run tiny.toml --run run --set data.holdout=0.25 --set probe.every=1");
    let path = folder.path();
    let before = contents(path);
    let (mut child, address) = serve(path, "run");
    let (code, page) = ask(&address, "GET", "/", &address);
    assert_eq!(code, 200);
    for words in ["simclr/slf", "2 of 2", "http-equiv=\"refresh\"", "<svg "] {
        assert!(page.contains(words), "{words} in {page}");
    }
    let (code, page) = ask(&address, "GET", "/report", "localhost");
    assert_eq!(code, 200);
    crate::page::check_page(&page);
    assert!(page.contains("Clean and robust accuracy"), "{page}");
    // Figures alone are read, so images that were not counted are not said to be none.
    assert!(
        page.contains("Nearest neighbours, held-out images"),
        "{page}"
    );
    assert_eq!(ask(&address, "HEAD", "/", &address), (200, String::new()));
    assert_eq!(ask(&address, "GET", "/recipe.toml", &address).0, 404);
    assert_eq!(ask(&address, "POST", "/", &address).0, 405);
    // The name of a page of elsewhere that leads here.
    assert_eq!(ask(&address, "GET", "/", "elsewhere.example").0, 403);
    assert!(before == contents(path), "a file was changed");
    // By a clock that was set back, the log is of the future.
    let log = File::options()
        .append(true)
        .open(path.join("run/metrics.jsonl"));
    let future = SystemTime::now() + Duration::from_secs(3600);
    let set = log.and_then(|log| log.set_modified(future));
    set.expect("a file of ours");
    let (_, page) = ask(&address, "GET", "/", &address);
    assert!(
        page.contains("The last epoch ended 0 seconds ago."),
        "{page}"
    );
    end(&mut child);
}

/// A connection on which nothing is waited for without end.
fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a server");
    let limit = stream.set_read_timeout(Some(Duration::from_secs(20)));
    limit.expect("a limit");
    stream
}

#[test]
fn no_client_ends_the_server_or_keeps_it_from_the_others() {
    let folder = folder();
    let path = folder.path();
    put(path.join("run/recipe.toml"), get(path.join("tiny.toml")));
    let (mut child, address) = serve(path, "run");
    // Bodies that never come.
    for (host, code) in [("elsewhere.example", 403), (address.as_str(), 405)] {
        for length in ["5000", "1000000000000000", "99999999999999999999999"] {
            let mut stream = connect(&address);
            let request =
                format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("a reader");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            let begin = format!("HTTP/1.1 {code} ");
            assert!(answer.starts_with(&begin), "{length}: {answer}");
        }
    }
    // Headers without an end, and what is no request.
    let long = format!("GET / HTTP/1.1\r\nCookie: {}", "a".repeat(1 << 13));
    for (request, code) in [(&long[..(1 << 13) + 1], 431), ("hello\r\n\r\n", 400)] {
        let mut stream = connect(&address);
        stream.write_all(request.as_bytes()).expect("a reader");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let begin = format!("HTTP/1.1 {code} ");
        assert!(answer.starts_with(&begin), "{answer}");
    }
    // Connections on which nothing comes, and requests whose answers are never read.
    let idle: Vec<TcpStream> = (0..8).map(|_| connect(&address)).collect();
    let mut unread = connect(&address);
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let limit = unread.set_write_timeout(Some(Duration::from_secs(20)));
    limit.expect("a limit");
    // Refused after the first one.
    let _ = unread.write_all(request.repeat(10_000).as_bytes());
    assert_eq!(ask(&address, "GET", "/", &address).0, 200);
    drop((idle, unread));
    end(&mut child);
}

#[cfg(unix)]
#[test]
fn a_server_without_a_file_to_spare_goes_on() {
    let folder = folder();
    let path = folder.path();
    put(path.join("run/recipe.toml"), get(path.join("tiny.toml")));
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 14; exec \"$0\" \"$@\""]);
    command.current_dir(path).arg(env!("CARGO_BIN_EXE_advcl"));
    command.stdin(Stdio::null());
    let (mut child, address) = serve_by(command, "run");
    let idle: Vec<TcpStream> = (0..14).map(|_| connect(&address)).collect();
    std::thread::sleep(Duration::from_millis(200));
    drop(idle);
    assert_eq!(ask(&address, "GET", "/", &address).0, 200);
    end(&mut child);
}

/// Ends the server as Ctrl-C does.
fn end(child: &mut Child) {
    #[cfg(unix)]
    {
        crate::signals::signal(child, "-INT");
        let status = child.wait().expect("a child of ours");
        assert_eq!(status.code(), Some(0));
    }
    #[cfg(not(unix))]
    child.kill().expect("a child of ours");
}

#[test]
fn what_has_begun_is_watched_and_nothing_else() {
    let folder = folder();
    let path = folder.path();
    let mut transcript = Transcript::new(path);
    for args in ["watch", "watch nowhere", "watch ."] {
        transcript.refuse(args);
    }
    transcript.check("folders_that_cannot_be_watched");
    // Begun, without an epoch yet: what is there is shown.
    advcl(path, "pretrain tiny.toml --method simclr --run run").expect(0);
    put(path.join("run/metrics.jsonl"), b"");
    let (mut child, address) = serve(path, "run");
    let (code, page) = ask(&address, "GET", "/", &address);
    assert!(
        code == 200 && page.contains("No epoch has ended yet"),
        "{page}"
    );
    let (code, page) = ask(&address, "GET", "/report", &address);
    assert!(code == 404 && page.contains("No report yet"), "{page}");
    end(&mut child);
}

#[cfg(unix)]
#[test]
fn signals_that_were_ignored_do_not_end_the_server() {
    let folder = folder();
    let path = folder.path();
    put(path.join("run/recipe.toml"), get(path.join("tiny.toml")));
    let mut command = Command::new("nohup");
    command.current_dir(path).arg(env!("CARGO_BIN_EXE_advcl"));
    command.stdin(Stdio::null());
    let (mut child, address) = serve_by(command, "run");
    crate::signals::signal(&child, "-HUP");
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().expect("a child of ours").is_none());
    assert_eq!(ask(&address, "GET", "/", &address).0, 200);
    crate::signals::signal(&child, "-TERM");
    let status = child.wait().expect("a child of ours");
    assert_eq!(status.code(), Some(0));
}
