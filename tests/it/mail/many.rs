//! Many mails: connections are used again, bounded in number, and nothing is left behind.

use futures::StreamExt as _;
use postrider::adapters::smtp::{MAX_CONNECTIONS, MAX_SERVERS};
use serde_json::json;

use super::server::{Make, Server};
use super::*;

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn send_many(mailer: &SmtpMailer, mail: &Mail, count: usize) {
    let taken = futures::stream::iter(0..count)
        .map(|_| async { words(mailer, mail).await == ["Taken"] })
        .buffer_unordered(64)
        .filter(|taken| std::future::ready(*taken))
        .count()
        .await;
    assert_eq!(taken, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_mails_leave_nothing_behind() {
    let mut server = Server::start(Make::Node, &json!({"quiet": true}));
    let (mailer, mail) = (mailer(), some_mail(&email(&json!({}), &server.plain())));
    send_many(&mailer, &mail, 1_000).await;
    let before = resident();
    send_many(&mailer, &mail, 9_000).await;
    let after = resident();
    assert_eq!(server.count(), 10_000);
    let metrics = mailer.metrics();
    assert!(
        metrics.opened() <= MAX_CONNECTIONS as u64,
        "{} connections",
        metrics.opened()
    );
    assert!(metrics.waits() > 0, "more wanted one than there may be");
    assert!(after < before + 24 * 1024, "{before} KiB grew to {after} KiB");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_costs_no_attempt() {
    let server = Server::start(Make::Node, &json!({}));
    let port = server.port.clone();
    let (mailer, mail) = (mailer(), some_mail(&email(&json!({}), &server.plain())));
    assert_eq!(words(&mailer, &mail).await, ["Taken"]);
    assert_eq!(mailer.metrics().open_connections(), 1);
    drop(server);
    // Another server on the same port: the kept connection leads to nobody.
    let listener = take(&port).await;
    let serving = tokio::spawn(serve(listener));
    assert_eq!(words(&mailer, &mail).await, ["Taken"]);
    assert_eq!(mailer.metrics().opened(), 2);
    serving.abort();
}

async fn take(port: &str) -> tokio::net::TcpListener {
    loop {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        if socket.bind(format!("127.0.0.1:{port}").parse().unwrap()).is_ok() {
            return socket.listen(8).unwrap();
        }
        tokio::task::yield_now().await;
    }
}

/// Takes whatever is sent.
async fn serve(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            stream.write_all(b"220 x\r\n").await.unwrap();
            let (mut line, mut content) = (String::new(), false);
            while stream.read_line(&mut line).await.is_ok_and(|count| count > 0) {
                let answer = match (line.trim_end(), content) {
                    ("DATA", false) => "354 go\r\n",
                    (".", true) => "250 taken\r\n",
                    (_, true) => "",
                    _ => "250 x\r\n",
                };
                content = answer == "354 go\r\n" || (content && answer.is_empty());
                stream.write_all(answer.as_bytes()).await.ok();
                line.clear();
            }
        });
    }
}

#[tokio::test]
async fn servers_that_nobody_uses_make_room_for_others() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let serving = tokio::spawn(serve(listener));
    let mailer = mailer();
    let more = MAX_SERVERS + 10;
    for number in 0..more {
        // Another sender in its settings makes it another server.
        let from = format!("s{number}@x.example");
        let secret = [
            ("host", "localhost"),
            ("port", &*port),
            ("security", "None"),
            ("from", &*from),
        ];
        assert_eq!(
            words(&mailer, &some_mail(&email(&json!({}), &secret))).await,
            ["Taken"]
        );
    }
    assert_eq!(mailer.metrics().evictions(), 10);
    assert_eq!(
        usize::try_from(mailer.metrics().open_connections()),
        Ok(MAX_SERVERS)
    );
    serving.abort();
}
