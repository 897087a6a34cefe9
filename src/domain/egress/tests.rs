//! Tables of every kind of address and every notation of one.

use super::*;

fn policy(allowed: &[&str]) -> EgressPolicy {
    EgressPolicy::new(allowed.iter().map(|net| net.parse::<IpNet>().unwrap()))
}

fn kind(policy: &EgressPolicy, address: &str) -> Option<Kind> {
    policy
        .check(address.parse().unwrap())
        .err()
        .map(|refusal| refusal.block().unwrap().kind)
}

fn literal(policy: &EgressPolicy, url: &str) -> Result<(), Refusal> {
    policy.check_literal(&Url::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")))
}

#[test]
fn public_addresses_are_allowed() {
    for address in [
        "1.1.1.1",
        "8.8.8.8",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "168.63.129.15",
        "2606:4700:4700::1111",
        "2001:4860:4860::8888",
        "2a00:1450::1",
        "2001:200::1",
        "3ffe:ffff::1",
        "::ffff:8.8.8.8",
    ] {
        assert_eq!(kind(&EgressPolicy::default(), address), None, "{address}");
    }
}

#[test]
fn everything_else_is_refused_by_default() {
    use Kind::*;
    for (expected, addresses) in [
        (
            Loopback,
            &[
                "127.0.0.1",
                "127.1.2.3",
                "127.255.255.255",
                "::1",
                "::ffff:127.0.0.1",
            ][..],
        ),
        (
            Private,
            &[
                "10.0.0.0",
                "10.255.255.255",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.0.1",
                "100.64.0.0",
                "100.127.255.255",
                "fc00::1",
                "fdff:ffff::1",
                "fec0::1",
                "::ffff:10.0.0.1",
            ],
        ),
        (
            LinkLocal,
            &[
                "169.254.0.1",
                "169.254.169.254",
                "169.254.170.2",
                "169.254.170.23",
                "fe80::1",
                "fe80::a9fe:a9fe",
                "febf::1",
                "::ffff:169.254.169.254",
            ],
        ),
        (
            Metadata,
            &[
                "168.63.129.16",
                "100.100.100.200",
                "192.0.0.192",
                "fd00:ec2::254",
                "fd00:ec2::23",
                "fd20:ce::254",
                "fd00:42::42",
            ],
        ),
        (
            Impossible,
            &[
                "0.0.0.0",
                "0.1.2.3",
                "224.0.0.1",
                "239.255.255.255",
                "255.255.255.255",
                "::",
                "ff02::1",
                "ff0e::1",
                "100::1",
                "::ffff:0.0.0.0",
            ],
        ),
        (
            Reserved,
            &[
                "192.0.0.1",
                "192.0.2.1",
                "198.51.100.7",
                "203.0.113.255",
                "198.18.0.1",
                "198.19.255.255",
                "240.0.0.1",
                "255.255.255.254",
                "192.52.193.1",
                "2001:db8::1",
                "2001:2::1",
                "2001:10::1",
                "2001:20::1",
                "2001:1ff::1",
                "3fff::1",
                "3fff:fff::1",
                "5f00::1",
                "4000::1",
                "100:0:0:1::1",
                "1::1",
                "e000::1",
            ],
        ),
        (
            Tunnel,
            &[
                "192.88.99.1",
                "::127.0.0.1",
                "::8.8.8.8",
                "::ffff:0:127.0.0.1",
                "::ffff:0:8.8.8.8",
                "64:ff9b::127.0.0.1",
                "64:ff9b::8.8.8.8",
                "64:ff9b:1::a00:1",
                "64:ff9b:1:ffff::1",
                "2002:7f00:1::1",
                "2002:a9fe:a9fe::",
                "2002:808:808::1",
                "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                "2001::1",
                "2606:4700::5efe:127.0.0.1",
                "2606:4700::200:5efe:8.8.8.8",
            ],
        ),
    ] {
        for address in addresses {
            assert_eq!(
                kind(&EgressPolicy::default(), address),
                Some(expected),
                "{address}"
            );
        }
    }
}

#[test]
fn a_range_opens_what_it_holds_and_nothing_else() {
    let policy = policy(&["10.96.0.0/12", "192.168.7.9/32", "fd12:3456::/32"]);
    for address in [
        "10.96.0.1",
        "10.111.255.255",
        "192.168.7.9",
        "fd12:3456::1",
        "::ffff:10.96.0.1",
        "8.8.8.8",
    ] {
        assert_eq!(kind(&policy, address), None, "{address}");
    }
    for address in [
        "10.95.255.255",
        "10.112.0.0",
        "192.168.7.8",
        "fd12:3457::1",
        "127.0.0.1",
    ] {
        assert!(kind(&policy, address).is_some(), "{address}");
    }
}

#[test]
fn a_wide_range_opens_neither_loopback_nor_metadata() {
    let policy = policy(&["0.0.0.0/0", "::/0", "169.0.0.0/8", "fd00::/8"]);
    for address in [
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "198.18.0.1",
        "fd12::1",
        "2001:db8::1",
    ] {
        assert_eq!(kind(&policy, address), None, "{address}");
    }
    for address in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "fd20:ce::254",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "255.255.255.255",
        "224.0.0.1",
        "ff02::1",
        "::127.0.0.1",
        "::8.8.8.8",
        "::ffff:0:8.8.8.8",
    ] {
        assert!(kind(&policy, address).is_some(), "{address}");
    }
}

#[test]
fn a_range_inside_the_block_opens_loopback_and_metadata() {
    let policy = policy(&[
        "169.254.0.0/16",
        "fd00:ec2::254/128",
        "127.0.0.0/8",
        "::1/128",
        "fe80::/64",
        "100.100.100.200/32",
    ]);
    for address in [
        "169.254.169.254",
        "::ffff:169.254.1.1",
        "fd00:ec2::254",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "fe80::1",
        "100.100.100.200",
    ] {
        assert_eq!(kind(&policy, address), None, "{address}");
    }
    for address in [
        "fd00:ec2::23",
        "100.100.100.201",
        "0.0.0.0",
        "::",
        "::127.0.0.1",
        "fe80:1::1",
    ] {
        assert!(kind(&policy, address).is_some(), "{address}");
    }
}

#[test]
fn an_open_tunnel_is_no_way_around_the_policy() {
    let policy = policy(&[
        "64:ff9b::/96",
        "2002::/16",
        "2001::/32",
        "fd00::/8",
        "2606:4700::/32",
    ]);
    for address in [
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2606:4700::5efe:8.8.8.8",
        "fd00::5efe:8.8.8.8",
    ] {
        assert_eq!(kind(&policy, address), None, "{address}");
    }
    for address in [
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "2002:7f00:1::1",
        "2002:a00:1::1",
        "fd00::5efe:127.0.0.1",
        "2606:4700::200:5efe:10.0.0.1",
        "2001:0:4136:e378:8000:63bf:f5ff:fffe",
        "2001:0:a00:1:8000:63bf:f7f7:f7f7",
    ] {
        assert!(
            matches!(policy.check(address.parse().unwrap()), Err(Refusal::Inner { .. })),
            "{address}"
        );
    }
}

#[test]
fn a_mapped_range_is_read_as_ipv4_and_host_bits_are_ignored() {
    let policy = policy(&["::ffff:10.0.0.0/104", "192.168.7.9/24"]);
    assert_eq!(kind(&policy, "10.1.2.3"), None);
    assert_eq!(kind(&policy, "192.168.7.1"), None);
    assert_eq!(kind(&policy, "11.1.2.3"), None);
    assert_eq!(kind(&policy, "192.168.8.1"), Some(Kind::Private));
}

#[test]
fn every_notation_of_an_address_is_refused() {
    for host in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "127.0.0.1.",
        "0x7f.1",
        "0x7f000001",
        "0X7F.0.0.0x1",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "0177.0.0.01",
        "127.0x0.00.1",
        "0",
        "0.0.0.0",
        "0x0",
        "00",
        "１２７．０．０．１",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "127．1",
        "%31%32%37.0.0.1",
        "127.0.0.%31",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::0001]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "[::127.0.0.1]",
        "[::7f00:1]",
        "[::ffff:0:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[fe80::1]",
        "[fe80::5efe:127.0.0.1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[::FFFF:A9FE:A9FE]",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "0251.0376.0251.0376",
        "169.254.43518",
        "0xa9.0xfe.0xa9.0xfe",
        "10.1",
        "0xa000001",
        "3232235521",
        "192.168.1",
        "172.16.1",
        "100.64.1",
        "255.255.255.255",
        "4294967295",
    ] {
        for scheme in ["http", "https"] {
            for rest in ["", ":8080", "/in?token=a@b", "#@8.8.8.8"] {
                let url = format!("{scheme}://{host}{rest}");
                let refused = literal(&EgressPolicy::default(), &url);
                assert!(
                    matches!(refused, Err(Refusal::Address { .. })),
                    "{url}: {refused:?}"
                );
            }
        }
    }
}

#[test]
fn what_looks_like_an_address_but_is_none_does_not_parse() {
    for url in [
        "http://127.0.0.256",
        "http://1.2.3.4.5",
        "http://[fe80::1%25eth0]/",
        "http://0x100000000",
        "http://[127.0.0.1]",
    ] {
        assert!(Url::parse(url).is_err(), "{url}");
    }
}

#[test]
fn names_are_left_to_the_resolver_and_public_literals_pass() {
    for url in [
        "https://hooks.example.com/in",
        "http://localhost:8080",
        "http://a.localhost",
        "https://receiver.default.svc",
        "https://8.8.8.8/in",
        "https://134744072",
        "https://[2606:4700::1111]:8443/",
        "https://127.0.0.1.nip.io",
    ] {
        assert_eq!(literal(&EgressPolicy::default(), url), Ok(()), "{url}");
    }
}

#[test]
fn credentials_and_other_schemes_are_refused() {
    let policy = EgressPolicy::default();
    for url in [
        "https://user@example.com",
        "https://user:secret@example.com",
        "https://:secret@8.8.8.8",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1:80@example.com/",
    ] {
        assert_eq!(literal(&policy, url), Err(Refusal::Userinfo), "{url}");
    }
    for url in [
        "file:///etc/passwd",
        "ftp://example.com",
        "gopher://127.0.0.1",
        "data:text/plain,x",
    ] {
        assert_eq!(literal(&policy, url), Err(Refusal::Scheme), "{url}");
    }
}

#[test]
fn a_refusal_says_what_to_do() {
    let policy = EgressPolicy::new([]);
    let text = |address: &str| policy.check(address.parse().unwrap()).unwrap_err().to_string();
    assert_eq!(
        text("::ffff:10.1.2.3"),
        "10.1.2.3 is a private address; allow its range with --allow-egress if receivers are meant to be there"
    );
    assert_eq!(
        text("169.254.169.254"),
        "169.254.169.254 is a link-local address; only an --allow-egress range inside 169.254.0.0/16 opens it, a \
         wider one does not"
    );
    assert_eq!(
        text("0.0.0.0"),
        "0.0.0.0 is no address that a receiver can have; give another address"
    );
}

#[test]
fn no_block_is_hidden_by_an_earlier_one() {
    for table in [&V4[..], &V6[..]] {
        for (index, block) in table.iter().enumerate() {
            let hidden = table
                .iter()
                .take(index)
                .find(|earlier| earlier.net.contains(&block.net));
            assert!(
                hidden.is_none(),
                "{} is hidden by {}",
                block.net,
                hidden.unwrap().net
            );
        }
    }
}
