//! What goes over the wire, and a wire that breaks.

use super::*;
use crate::adapters::smtp::SmtpMetrics;

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
            wire: Wire::new(stream),
            since: Instant::now(),
            _open: SmtpMetrics::default().open(),
        };
        let error = session.content(&[b'x'; 1000]).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
