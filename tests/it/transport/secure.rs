//! TLS and HTTP/2.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use postrider::adapters::webhook::{HttpTransport, TransportSettings, Trust};
use postrider::domain::outcome::Failure;
use postrider::domain::outcome::FailureReason::{
    ConnectionReset, ProtocolError, ResponseTooLarge, Timeout, TlsError,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::receiver::{Log, Receiver, answer, closed, request};
use super::{LONG, SHORT, send, settings};

const NAME: &str = "receiver.example";

/// An authority of our own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    fn transport(&self) -> HttpTransport {
        let trust = Trust::Only(vec![self.0.der().clone()]);
        HttpTransport::new(TransportSettings { trust, ..settings() }).expect("a transport")
    }

    fn certificate(&self, name: &str, expired: bool) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::new([name.to_owned()]).expect("parameters");
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (
            certificate.der().clone(),
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
    }

    fn acceptor(&self, name: &str, expired: bool, protocols: &[&str]) -> TlsAcceptor {
        let (certificate, key) = self.certificate(name, expired);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate");
        config.alpn_protocols = protocols
            .iter()
            .map(|protocol| protocol.as_bytes().to_vec())
            .collect();
        Arc::new(config).into()
    }

    /// A receiver that finishes the handshake and then does as told.
    async fn receiver<H, F>(&self, protocols: &[&str], handler: H) -> Receiver
    where
        H: Fn(TlsStream<TcpStream>, Log) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let acceptor = self.acceptor(NAME, false, protocols);
        Receiver::start(move |stream, log| {
            let (acceptor, handler) = (acceptor.clone(), handler.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    handler(stream, log).await;
                }
            }
        })
        .await
    }
}

fn origin(receiver: &Receiver) -> String {
    format!("https://{NAME}:{}", receiver.address().port())
}

async fn failure(transport: &HttpTransport, receiver: &Receiver) -> Failure {
    send(transport, &origin(receiver), LONG)
        .await
        .expect_err("a failure")
}

#[tokio::test]
async fn a_trusted_receiver_is_reached_by_name() {
    let authority = Authority::new("ours");
    let receiver = authority
        .receiver(&["http/1.1"], |mut stream, log| async move {
            log.note(request(&mut stream).await);
            answer(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
            closed(&mut stream).await;
        })
        .await;
    assert_eq!(
        send(&authority.transport(), &origin(&receiver), LONG)
            .await
            .expect("an answer")
            .status,
        204
    );
    let host = format!("host: {NAME}:{}\r\n", receiver.address().port());
    let request = receiver.noted().await;
    assert!(
        request.to_ascii_lowercase().contains(&host),
        "no {host} in {request}"
    );
}

#[tokio::test]
async fn certificates_that_do_not_fit_are_tls_errors() {
    let authority = Authority::new("ours");
    let stranger = Authority::new("theirs");
    for (issuer, name, expired, part) in [
        (&stranger, NAME, false, "not trusted"),
        (&authority, "other.example", false, "another host name"),
        (&authority, NAME, true, "expired"),
    ] {
        let acceptor = issuer.acceptor(name, expired, &[]);
        let receiver = Receiver::start(move |stream, log| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    log.note(request(&mut stream).await);
                }
                log.note("");
            }
        })
        .await;
        let failure = failure(&authority.transport(), &receiver).await;
        assert_eq!(
            (failure.reason, failure.status),
            (TlsError, None),
            "{}",
            failure.message
        );
        assert!(
            failure.message.contains(part),
            "{} lacks {part:?}",
            failure.message
        );
        assert_eq!(
            receiver.noted().await,
            "",
            "something was sent to a receiver that is not trusted"
        );
    }
}

#[tokio::test]
async fn the_compiled_in_authorities_do_not_trust_a_stranger() {
    let receiver = Authority::new("ours")
        .receiver(&[], async |mut stream, _| closed(&mut stream).await)
        .await;
    let transport = HttpTransport::new(settings()).expect("a transport");
    assert_eq!(failure(&transport, &receiver).await.reason, TlsError);
}

#[tokio::test]
async fn a_port_without_tls_is_a_tls_error() {
    for text in ["HTTP/1.1 400 Bad Request\r\n\r\n", "SSH-2.0-OpenSSH_9.2\r\n"] {
        let receiver = Receiver::start(move |mut stream, _| async move {
            answer(&mut stream, text).await;
            closed(&mut stream).await;
        })
        .await;
        let failure = failure(&Authority::new("ours").transport(), &receiver).await;
        assert_eq!(failure.reason, TlsError, "{}", failure.message);
        assert!(
            failure.message.contains("does not speak TLS"),
            "{}",
            failure.message
        );
    }
}

#[tokio::test]
async fn a_handshake_that_breaks_or_hangs_is_told_apart() {
    let transport = Authority::new("ours").transport();
    let hangs = Receiver::start(async |mut stream, _| closed(&mut stream).await).await;
    let failed = send(&transport, &origin(&hangs), SHORT)
        .await
        .expect_err("a failure");
    assert_eq!(failed.reason, Timeout, "{}", failed.message);

    let closes = Receiver::start(|mut stream, _| async move {
        let mut hello = [0; 64];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut hello)
            .await
            .ok();
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.ok();
        closed(&mut stream).await;
    })
    .await;
    let failed = failure(&transport, &closes).await;
    assert_eq!(failed.reason, TlsError, "{}", failed.message);

    let resets = Receiver::start(|mut stream, _| async move {
        let mut hello = [0; 64];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut hello)
            .await
            .ok();
        stream.set_zero_linger().expect("an option");
    })
    .await;
    let failed = failure(&transport, &resets).await;
    assert_eq!(failed.reason, ConnectionReset, "{}", failed.message);
}

/// Serves HTTP/2; the path is not looked at, `body` makes the answer.
async fn serve<B>(stream: TlsStream<TcpStream>, body: impl Fn() -> http::Response<B> + Clone + Send + 'static)
where
    B: hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static,
{
    let service = service_fn(move |_| {
        let body = body.clone();
        async move { Ok::<_, std::convert::Infallible>(body()) }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered_and_shares_a_connection() {
    let authority = Authority::new("ours");
    let receiver = authority
        .receiver(&["h2", "http/1.1"], |stream, log| async move {
            log.note(format!(
                "{:?}",
                stream.get_ref().1.alpn_protocol().map(String::from_utf8_lossy)
            ));
            serve(stream, || {
                http::Response::new(http_body_util::Full::new(Bytes::from_static(b"ok")))
            })
            .await;
        })
        .await;
    let transport = authority.transport();
    let origin = origin(&receiver);
    for reply in join_all((0..50).map(|_| send(&transport, &origin, LONG))).await {
        let reply = reply.expect("an answer");
        assert_eq!((reply.status, &reply.excerpt[..]), (200, &b"ok"[..]));
    }
    assert_eq!(receiver.noted().await, "Some(\"h2\")");
    let connections = receiver.accepted();
    send(&transport, &origin, LONG).await.expect("an answer");
    assert_eq!(receiver.accepted(), connections);
}

#[tokio::test]
async fn an_http2_flood_is_cut_off_at_the_cap() {
    let authority = Authority::new("ours");
    let produced = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = produced.clone();
    let receiver = authority
        .receiver(&["h2"], move |stream, _| {
            let count = count.clone();
            serve(stream, move || {
                let count = count.clone();
                let frames = futures::stream::repeat_with(move || {
                    count.fetch_add(8192, std::sync::atomic::Ordering::SeqCst);
                    Ok(Frame::data(Bytes::from_static(&[b'x'; 8192])))
                });
                http::Response::new(StreamBody::new(frames))
            })
        })
        .await;
    let failed = failure(&authority.transport(), &receiver).await;
    assert_eq!(
        (failed.reason, failed.status),
        (ResponseTooLarge, Some(200)),
        "{}",
        failed.message
    );
    let produced = produced.load(std::sync::atomic::Ordering::SeqCst);
    assert!(produced < 4 << 20, "{produced}");
}

#[tokio::test]
async fn too_many_http2_headers_are_a_protocol_error() {
    let authority = Authority::new("ours");
    let receiver = authority
        .receiver(&["h2"], |stream, _| async move {
            serve(stream, || {
                let mut response = http::Response::new(http_body_util::Empty::<Bytes>::new());
                for index in 0..1000 {
                    let name: http::HeaderName = format!("x-flood-{index}").parse().expect("a name");
                    response
                        .headers_mut()
                        .insert(name, "y".repeat(100).parse().expect("a value"));
                }
                response
            })
            .await;
        })
        .await;
    let failed = failure(&authority.transport(), &receiver).await;
    assert_eq!(
        (failed.reason, failed.status),
        (ProtocolError, None),
        "{}",
        failed.message
    );
}

#[tokio::test]
async fn http2_without_answer_and_http2_nonsense_are_told_apart() {
    let authority = Authority::new("ours");
    let hangs = authority
        .receiver(&["h2"], async |mut stream, _| closed(&mut stream).await)
        .await;
    let failed = send(&authority.transport(), &origin(&hangs), SHORT)
        .await
        .expect_err("a failure");
    assert_eq!(failed.reason, Timeout, "{}", failed.message);

    let nonsense = authority
        .receiver(&["h2"], |mut stream, _| async move {
            answer(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            closed(&mut stream).await;
        })
        .await;
    let failed = failure(&authority.transport(), &nonsense).await;
    assert_eq!(failed.reason, ProtocolError, "{}", failed.message);

    let closes = authority.receiver(&["h2"], |_, _| async move {}).await;
    let failed = failure(&authority.transport(), &closes).await;
    assert_eq!(failed.reason, ConnectionReset, "{}", failed.message);
}
