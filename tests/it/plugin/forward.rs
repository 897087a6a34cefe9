//! The way through the API server to the operator's pod. There is no kubelet here, so a stand-in speaks what the API
//! server speaks for a port-forward (`v4.channel.k8s.io`) and leads to the real operator.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::json;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::online::{account, kubeconfig_of, rule, run_as};
use crate::support::Stage;

/// What the API server has to show: the binding of the operator's account, its pod, and a tenant's that looks like it.
fn shown(line: &str) -> String {
    if line.contains("/clusterrolebindings?") {
        let bindings = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBindingList",
            "metadata": {}, "items": [{
            "metadata": {"name": "postrider"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "postrider"},
            "subjects": [{"kind": "ServiceAccount", "name": "postrider", "namespace": "system"}],
        }]});
        return bindings.to_string();
    }
    let pod = |namespace: &str, name: &str, account: &str| {
        json!({
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"serviceAccountName": account,
                "containers": [{"name": "postrider", "ports": [{"name": "http", "containerPort": 8081}]}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        })
    };
    let mut pods = vec![pod("system", "postrider-0", "postrider")];
    if line.starts_with("GET /api/v1/pods?") {
        pods.insert(0, pod("tenant", "greedy", "default"));
    }
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods}).to_string()
}

/// An API server that knows the operator and forwards a port of its pod.
struct StandIn {
    url: String,
    /// Request lines.
    asked: Arc<Mutex<Vec<String>>>,
}

impl StandIn {
    /// Forwards to the operator, or, without one, tells that the pod refuses.
    async fn start(operator: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, operator, Arc::clone(&log)));
            }
        });
        Self { url, asked }
    }
}

async fn serve(mut stream: TcpStream, operator: Option<SocketAddr>, log: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next().unwrap().to_owned();
    log.lock().unwrap().push(line.clone());
    if !line.contains("/portforward?") {
        let shown = shown(&line);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{shown}",
            shown.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        return;
    }
    let header = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(found, _)| found.eq_ignore_ascii_case(name));
        values.next().unwrap().1.to_owned()
    };
    assert!(header("sec-websocket-protocol").contains("v4.channel.k8s.io"));
    let digest = Sha1::new()
        .chain_update(header("sec-websocket-key"))
        .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-protocol: v4.channel.k8s.io\r\nsec-websocket-accept: {}\r\n\r\n",
        BASE64_STANDARD.encode(digest.finalize())
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    // Each channel begins with the port: data, then errors.
    for channel in [0, 1] {
        let [low, high] = 8081_u16.to_le_bytes();
        send(&mut to, &[channel, low, high]).await;
    }
    let Some(operator) = operator else {
        send(&mut to, b"\x01nobody listens on the port").await;
        // A close frame; what is still sent is read, so that nothing is lost to a reset.
        drop(to.write_all(&[0x88, 0]).await);
        drop(tokio::io::copy(&mut from, &mut tokio::io::sink()).await);
        return;
    };
    let (mut answers, questions) = TcpStream::connect(operator).await.unwrap().into_split();
    tokio::spawn(receive(from, questions));
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = answers.read(&mut bytes).await {
        send(&mut to, &[&[0], &bytes[..length]].concat()).await;
    }
}

/// Sends a binary frame.
async fn send(to: &mut OwnedWriteHalf, payload: &[u8]) {
    let mut frame = vec![0x82];
    if let Ok(length @ ..126) = u8::try_from(payload.len()) {
        frame.push(length);
    } else {
        frame.push(126);
        frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    }
    frame.extend(payload);
    drop(to.write_all(&frame).await);
}

/// Passes on what comes for the data channel, until the connection is closed.
async fn receive(mut from: OwnedReadHalf, mut questions: OwnedWriteHalf) {
    while let Ok(kind) = from.read_u8().await {
        let length = match from.read_u8().await.unwrap() & 0x7f {
            126 => u64::from(from.read_u16().await.unwrap()),
            127 => from.read_u64().await.unwrap(),
            length => u64::from(length),
        };
        let mut mask = [0; 4];
        from.read_exact(&mut mask).await.unwrap();
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        from.read_exact(&mut payload).await.unwrap();
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        match (kind & 0x0f, payload.split_first()) {
            (2, Some((0, bytes))) => questions.write_all(bytes).await.unwrap(),
            (8, _) => return,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_is_reached_through_the_api_server_alone() {
    let stage = Stage::set("plugin").await;
    stage.destination("hook", "/hook", &json!({}));
    let id = stage.publish("x", &json!({"text": "y".repeat(100_000)})).await;
    stage.receiver.wait_for("/hook", 1).await;
    let rules = json!([
        rule(&["get", "list"], &["eventdestinations/deliveries"]),
        rule(&["create"], &["eventdestinations/replay"]),
    ]);
    let token = account(&stage, "oncall", &rules);
    let url = stage.operator().publish_url("x");
    let operator = url.split('/').nth(2).unwrap().parse().unwrap();
    let server = StandIn::start(Some(operator)).await;
    let file = kubeconfig_of(&stage, &server.url, &token);

    let replayed = run_as(&file, &["replay", "hook", "--id", &id]);
    assert_eq!(
        (replayed.code, replayed.out.as_str()),
        (0, "1 delivery was made\n"),
        "{}",
        replayed.notes
    );
    stage.receiver.wait_for("/hook", 2).await;
    let shown = run_as(&file, &["show", "hook", &id, "--operator-namespace", "system"]);
    assert_eq!(shown.code, 0, "{}", shown.notes);
    assert!(shown.out.contains(&id), "{}", shown.out);
    let asked = server.asked.lock().unwrap().clone();
    let selector = "labelSelector=postrider.dev%2Fcomponent%3Doperator";
    let bindings = "GET /apis/rbac.authorization.k8s.io/v1/clusterrolebindings?";
    assert!(
        asked[0].starts_with(bindings) && asked[0].contains(selector),
        "{asked:?}"
    );
    for line in [&asked[1], &asked[3]] {
        let pods = line.starts_with("GET /api/v1/namespaces/system/pods?");
        assert!(pods && line.contains(selector), "{asked:?}");
    }
    for line in [&asked[2], &asked[4]] {
        let forward = line.starts_with("GET /api/v1/namespaces/system/pods/postrider-0/portforward?");
        assert!(forward && line.contains("ports=8081"), "{asked:?}");
    }
    assert_eq!(asked.len(), 5, "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_refuses_says_why() {
    let stage = Stage::set("plugin").await;
    let server = StandIn::start(None).await;
    let file = kubeconfig_of(&stage, &server.url, "token");
    let answer = run_as(&file, &["deliveries", "hook"]);
    assert_eq!((answer.code, answer.out.as_str()), (2, ""));
    assert!(
        answer.notes.contains("pod system/postrider-0")
            && answer.notes.contains("nobody listens on the port"),
        "{}",
        answer.notes
    );
}
