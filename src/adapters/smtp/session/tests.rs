//! What goes over the wire, and a wire that breaks.

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::adapters::smtp::SmtpMetrics;
use crate::domain::secret::Secret;

#[test]
fn nothing_in_a_mail_can_end_it() {
    for (mail, wire) in [
        ("a\r\nb\r\n", "a\r\nb\r\n.\r\n"),
        ("a", "a\r\n.\r\n"),
        (".\r\n..\r\n", "..\r\n...\r\n.\r\n"),
        (
            "a\r\n.\r\nMAIL FROM:<x@y>\r\n",
            "a\r\n..\r\nMAIL FROM:<x@y>\r\n.\r\n",
        ),
        ("a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"),
        ("a\r.\rb", "a\r\n..\r\nb\r\n.\r\n"),
        ("", "\r\n.\r\n"),
    ] {
        assert_eq!(
            String::from_utf8(transparent(mail.as_bytes())).unwrap(),
            wire,
            "{mail:?}"
        );
    }
}

/// A server that takes some bytes and then breaks off, with an answer.
struct Broken {
    takes: usize,
    says: &'static [u8],
}

impl AsyncRead for Broken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.takes > 0 {
            return Poll::Pending;
        }
        to.put_slice(std::mem::take(&mut self.says));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Broken {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(self.takes);
        self.takes -= taken;
        Poll::Ready(if taken == 0 {
            Err(io::ErrorKind::BrokenPipe.into())
        } else {
            Ok(taken)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_within_a_mail_is_heard_first() {
    for (says, expected) in [
        (&b"552 5.3.4 too much\r\n"[..], "the server answered 552"),
        (b"250 taken\r\n", "the connection broke"),
        (b"", "the connection broke"),
    ] {
        let stream: Box<dyn Stream> = Box::new(Broken { takes: 100, says });
        let mut session = Session {
            wire: Wire::new(stream, None),
            since: Instant::now(),
            _open: SmtpMetrics::default().open(),
        };
        let error = session.content(&[b'x'; 1000]).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

/// A server that repeats the password, with every refusal from the given one on.
async fn repeating(refuses: &'static str) -> SmtpError {
    const SECRET: &str =
        "5.7.1 your password is Pa55WordSuperSecret, b64 AHVAeC50ZXN0AFBhNTVXb3JkU3VwZXJTZWNyZXQ=";
    let (ours, theirs) = tokio::io::duplex(1024);
    let server = async move {
        let mut theirs = tokio::io::BufReader::new(theirs);
        let mut line = String::from("greeting");
        loop {
            let answer = match line.trim_end() {
                said if said.starts_with(refuses) => format!("550 {SECRET}\r\n"),
                "greeting" => "220 hello\r\n".to_owned(),
                said if said.starts_with("EHLO") => "250-x\r\n250 AUTH PLAIN\r\n".to_owned(),
                said if said.starts_with("DATA") => "354 go\r\n".to_owned(),
                said if said.starts_with("AUTH") => "235 in\r\n".to_owned(),
                "x" => String::new(),
                _ => "250 ok\r\n".to_owned(),
            };
            theirs.get_mut().write_all(answer.as_bytes()).await.unwrap();
            line.clear();
            if theirs.read_line(&mut line).await.unwrap() == 0 {
                return;
            }
        }
    };
    let client = async {
        let credentials = Credentials {
            username: "u@x.test".to_owned(),
            password: Secret::new("Pa55WordSuperSecret".to_owned()),
        };
        let mut opening = Opening::greet(ours, Some(&credentials)).await?;
        opening.hello("me").await?;
        let mut session = opening.sign_in(SmtpMetrics::default().open()).await?;
        session.recipient(&Mailbox::parse("a@x.test").unwrap()).await?;
        session.data().await?;
        session.content(b"x").await?;
        session.reset().await
    };
    let (error, ()) = tokio::join!(client, server);
    error.unwrap_err()
}

#[tokio::test]
async fn a_server_that_repeats_the_password_is_not_repeated() {
    for refuses in ["greeting", "EHLO", "AUTH", "RCPT", "DATA", ".", "RSET"] {
        let SmtpError::Answer { text, .. } = repeating(refuses).await else {
            panic!("{refuses}");
        };
        let expected = match refuses {
            "AUTH" => "",
            _ => "5.7.1 your password is ***, b64 ***",
        };
        assert_eq!(text, expected, "{refuses}");
    }
}
