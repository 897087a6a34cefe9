//! A server that says what a test wrote down for it.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What is said on one connection: the first at once, each other one after a line, a mail, or the
/// beginning of a TLS handshake.
pub(super) type Script = Vec<Vec<u8>>;

/// A script with one answer after the other.
pub(super) fn answers(text: &str) -> Script {
    let mut script: Script = vec![Vec::new()];
    for line in text.split_inclusive('\n') {
        script.last_mut().unwrap().extend_from_slice(line.as_bytes());
        if line.as_bytes().get(3) != Some(&b'-') {
            script.push(Vec::new());
        }
    }
    script.retain(|answer| !answer.is_empty());
    script
}

/// Serves the first connection by the first script, and so on; the last script goes for all further ones.
pub(super) async fn scripted(mut scripts: Vec<Script>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = if scripts.len() > 1 {
                scripts.remove(0)
            } else {
                scripts[0].clone()
            };
            tokio::spawn(play(stream, script));
        }
    });
    (port, task)
}

async fn play(stream: TcpStream, script: Script) {
    let mut stream = BufReader::new(stream);
    let (mut in_mail, mut in_handshake) = (false, false);
    for (number, answer) in script.into_iter().enumerate() {
        let mut line = Vec::new();
        let mut heard = number == 0;
        while !heard {
            line.clear();
            let read = if in_handshake {
                stream.read_buf(&mut line).await
            } else {
                stream.read_until(b'\n', &mut line).await
            };
            if read.unwrap_or(0) == 0 {
                return;
            }
            heard = !in_mail || line == b".\r\n";
        }
        in_mail = answer.starts_with(b"354");
        in_handshake = line == b"STARTTLS\r\n";
        stream.write_all(&answer).await.ok();
    }
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
}
