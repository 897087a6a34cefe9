//! [`EgressPolicy`]: which addresses requests may go to (DESIGN §7).
//!
//! Owns the list of addresses that are refused by default and the rules by which `--allow-egress` opens some of them.
//! The list is a default deny: for IPv4 everything but the special-purpose blocks is reachable, for IPv6 nothing but
//! `2000::/3` minus its special-purpose blocks. The invariants:
//!
//! - An address that carries an IPv4 address (mapped, NAT64, 6to4, Teredo, ISATAP) is never better off than that
//!   address: a mapped one *is* the IPv4 address, the others are refused, and when opened the inner one is checked too.
//! - `--allow-egress` opens ranges in three degrees, see [`Opening`]. A wide range (`0.0.0.0/0`) opens private
//!   networks, but neither loopback, where our own administration listens, nor link-local and metadata addresses,
//!   which hand out credentials: those open only by a range that lies *inside* the block, such as `127.0.0.1/32`
//!   or `169.254.0.0/16`. Multicast, broadcast and unspecified addresses never open.
//! - The check is of addresses, not of names: `localhost` and friends are answered by the resolver, whose answers
//!   come through [`EgressPolicy::check`] like all others.
//!
//! In a cluster receivers usually have Service addresses: an installation that delivers to them opens the service
//! range (for example `--allow-egress 10.96.0.0/12`), and the pod range only for headless Services.
//!
//! Who asks is left to others: `Endpoint::parse` when a destination is applied, the transport before each request
//! and at each name lookup.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use strum::IntoStaticStr;
use url::{Host, Url};

#[cfg(test)]
mod tests;

/// What an installation allows; the default allows the public Internet only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    allowed: Vec<IpNet>,
    is_unguarded: bool,
}

/// Why an address was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The address is in a block that is not open.
    #[error("{address} is {}; {}", block.kind.noun(), block.remedy())]
    Address {
        /// The address as it would be connected to; mapped addresses are shown as IPv4.
        address: IpAddr,
        /// The block it is in.
        block: &'static Block,
    },
    /// An open address carries an IPv4 address that is not open.
    #[error("{address} leads to {inner}, which is {}; {}", block.kind.noun(), block.remedy())]
    Inner {
        /// The IPv6 address.
        address: IpAddr,
        /// The IPv4 address inside.
        inner: Ipv4Addr,
        /// The block that one is in.
        block: &'static Block,
    },
    /// The URL carries a user name or a password.
    #[error("the URL must not carry a user name or password; use a header from a Secret")]
    Userinfo,
    /// The URL's scheme is another than http and https.
    #[error("the URL's scheme must be http or https")]
    Scheme,
    /// The URL has no host.
    #[error("the URL has no host")]
    NoHost,
}

impl Refusal {
    /// The block of the refused address; `None` when the URL as such was refused.
    #[must_use]
    pub const fn block(&self) -> Option<&'static Block> {
        match self {
            Self::Address { block, .. } | Self::Inner { block, .. } => Some(block),
            Self::Userinfo | Self::Scheme | Self::NoHost => None,
        }
    }
}

/// Addresses that are refused for one reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    net: IpNet,
    /// Why.
    pub kind: Kind,
    /// What opens it.
    pub opening: Opening,
}

/// What opens a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Any allowed range that holds the address.
    Any,
    /// An allowed range that holds the address and lies inside the block.
    Inside,
    /// Nothing.
    Never,
}

/// Why a block is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Kind {
    /// This host.
    Loopback,
    /// RFC 1918 and its kin.
    Private,
    /// One hop, and where clouds put their metadata services.
    LinkLocal,
    /// A cloud's metadata service outside link-local.
    Metadata,
    /// No receiver can have it.
    Impossible,
    /// Carries another address.
    Tunnel,
    /// Documentation, benchmarks, protocol assignments.
    Reserved,
}

impl Kind {
    /// How a message calls an address of this kind.
    #[must_use]
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Loopback => "a loopback address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata address",
            Self::Impossible => "no address that a receiver can have",
            Self::Tunnel => "an address that leads to another",
            Self::Reserved => "a reserved address",
        }
    }
}

impl Block {
    const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8, kind: Kind, opening: Opening) -> Self {
        Self {
            net: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)),
            kind,
            opening,
        }
    }

    const fn v6(address: [u16; 8], length: u8, kind: Kind, opening: Opening) -> Self {
        let mut bits = 0_u128;
        let mut rest: &[u16] = &address;
        while let [segment, tail @ ..] = rest {
            bits = bits << 16 | *segment as u128;
            rest = tail;
        }
        Self {
            net: IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length)),
            kind,
            opening,
        }
    }

    /// What to do about a refusal.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self.opening {
            Opening::Any => {
                "allow its range with --allow-egress if receivers are meant to be there".to_owned()
            }
            Opening::Inside => {
                format!(
                    "only an --allow-egress range inside {} opens it, a wider one does not",
                    self.net
                )
            }
            Opening::Never => "give another address".to_owned(),
        }
    }
}

/// Refused blocks, the narrower before the wider: the first that holds an address decides.
///
/// Sources: the IANA special-purpose registries; the address lists of AWS, Azure, Google, Oracle, Alibaba and Scaleway.
static V4: [Block; 20] = {
    use Kind::{Impossible, LinkLocal, Loopback, Metadata, Private, Reserved, Tunnel};
    use Opening::{Any, Inside, Never};
    [
        Block::v4(100, 100, 100, 200, 32, Metadata, Inside), // Alibaba Cloud
        Block::v4(168, 63, 129, 16, 32, Metadata, Inside),   // Azure's wire server
        Block::v4(192, 0, 0, 192, 32, Metadata, Inside),     // Oracle Cloud, classic
        Block::v4(127, 0, 0, 0, 8, Loopback, Inside),
        Block::v4(169, 254, 0, 0, 16, LinkLocal, Inside), // 169.254.169.254, .170.2 and .170.23 of most clouds
        Block::v4(0, 0, 0, 0, 8, Impossible, Never),      // Linux connects 0.0.0.0 to this host
        Block::v4(10, 0, 0, 0, 8, Private, Any),
        Block::v4(172, 16, 0, 0, 12, Private, Any),
        Block::v4(192, 168, 0, 0, 16, Private, Any),
        Block::v4(100, 64, 0, 0, 10, Private, Any), // carrier-grade NAT; pods and nodes of some clouds
        Block::v4(192, 0, 0, 0, 24, Reserved, Any), // protocol assignments
        Block::v4(192, 0, 2, 0, 24, Reserved, Any), // documentation
        Block::v4(198, 51, 100, 0, 24, Reserved, Any),
        Block::v4(203, 0, 113, 0, 24, Reserved, Any),
        Block::v4(198, 18, 0, 0, 15, Reserved, Any), // benchmarks; some meshes hand these out
        Block::v4(192, 52, 193, 0, 24, Reserved, Any), // AMT
        Block::v4(192, 88, 99, 0, 24, Tunnel, Any),  // 6to4 relays
        Block::v4(224, 0, 0, 0, 4, Impossible, Never), // multicast
        Block::v4(255, 255, 255, 255, 32, Impossible, Never),
        Block::v4(240, 0, 0, 0, 4, Reserved, Any), // some clouds use it inside
    ]
};

/// As [`V4`]. The last entry holds every address: what is not in [`GLOBAL_UNICAST`] is refused.
static V6: [Block; 21] = {
    use Kind::{Impossible, LinkLocal, Loopback, Metadata, Private, Reserved, Tunnel};
    use Opening::{Any, Inside, Never};
    [
        Block::v6([0, 0, 0, 0, 0, 0, 0, 0], 128, Impossible, Never),
        Block::v6([0, 0, 0, 0, 0, 0, 0, 1], 128, Loopback, Inside),
        Block::v6([0, 0, 0, 0, 0, 0, 0, 0], 96, Tunnel, Never), // IPv4-compatible
        Block::v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, Tunnel, Never), // IPv4-translated (SIIT)
        Block::v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, Tunnel, Any), // NAT64
        Block::v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Tunnel, Any), // NAT64, an operator's own
        Block::v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0], 32, Metadata, Inside), // AWS: fd00:ec2::254, ::23
        Block::v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, Metadata, Inside), // Google
        Block::v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42], 128, Metadata, Inside), // Scaleway
        Block::v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, LinkLocal, Inside),
        Block::v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Private, Any), // site-local, deprecated
        Block::v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Private, Any),
        Block::v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Impossible, Never), // multicast
        Block::v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, Tunnel, Any),      // Teredo
        Block::v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Reserved, Any),    // protocol assignments
        Block::v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Reserved, Any), // documentation
        Block::v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Reserved, Any),    // documentation
        Block::v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Tunnel, Any),      // 6to4
        Block::v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, Impossible, Never), // discard
        Block::v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, Reserved, Any),    // segment routing
        Block::v6([0, 0, 0, 0, 0, 0, 0, 0], 0, Reserved, Any),
    ]
};

/// ISATAP: the last 64 bits are `[02]00:5efe` and an IPv4 address, behind any prefix.
static ISATAP: Block = Block::v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, Kind::Tunnel, Opening::Any);

/// What IANA hands out for the Internet.
const GLOBAL_UNICAST: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

impl EgressPolicy {
    /// A policy that opens ranges besides the public Internet; host bits of a range are ignored.
    #[must_use]
    pub fn new(allowed: impl IntoIterator<Item = IpNet>) -> Self {
        // `::ffff:10.0.0.0/104` means 10.0.0.0/8: addresses are unwrapped before they are compared.
        let allowed = allowed.into_iter().map(|net| match net {
            IpNet::V6(net) if net.prefix_len() >= 96 => {
                let inner = net
                    .addr()
                    .to_ipv4_mapped()
                    .map(|inner| Ipv4Net::new(inner, net.prefix_len() - 96));
                inner.and_then(Result::ok).map_or(IpNet::V6(net), IpNet::V4)
            }
            net => net,
        });
        Self {
            allowed: allowed.map(|net| net.trunc()).collect(),
            is_unguarded: false,
        }
    }

    /// A policy that refuses nothing, for addresses that whoever runs Postrider has set.
    #[must_use]
    pub fn unguarded() -> Self {
        Self {
            is_unguarded: true,
            ..Self::default()
        }
    }

    /// Checks an address that is about to be connected to.
    ///
    /// # Errors
    /// When it is neither public nor opened.
    pub fn check(&self, address: IpAddr) -> Result<(), Refusal> {
        if self.is_unguarded {
            return Ok(());
        }
        let address = address.to_canonical();
        if let Some(block) = block_of(address)
            && !self.opens(block, address)
        {
            return Err(Refusal::Address { address, block });
        }
        let IpAddr::V6(outer) = address else { return Ok(()) };
        for inner in embedded(outer).into_iter().flatten() {
            if let Some(block) = block_of(inner.into())
                && !self.opens(block, inner.into())
            {
                return Err(Refusal::Inner {
                    address,
                    inner,
                    block,
                });
            }
        }
        Ok(())
    }

    /// Checks a URL before it is used: its scheme, that it carries no credentials, and its host when that is an
    /// address. The URL type has already normalised every notation of one (decimal, octal, hex, short, full-width).
    ///
    /// # Errors
    /// When the URL must not be used, whatever its name may resolve to.
    pub fn check_literal(&self, url: &Url) -> Result<(), Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Userinfo);
        }
        match url.host() {
            None | Some(Host::Domain("")) => Err(Refusal::NoHost),
            Some(Host::Domain(_)) => Ok(()),
            Some(Host::Ipv4(address)) => self.check(address.into()),
            Some(Host::Ipv6(address)) => self.check(address.into()),
        }
    }

    fn opens(&self, block: &Block, address: IpAddr) -> bool {
        self.allowed.iter().any(|net| {
            net.contains(&address)
                && match block.opening {
                    Opening::Any => true,
                    Opening::Inside => block.net.contains(net),
                    Opening::Never => false,
                }
        })
    }
}

/// The block an address is in; `None` for a public one.
fn block_of(address: IpAddr) -> Option<&'static Block> {
    match address {
        IpAddr::V4(_) => V4.iter().find(|block| block.net.contains(&address)),
        IpAddr::V6(v6) => {
            // The catch-all at the end of the table must not swallow the Internet.
            let block = V6.iter().find(|block| block.net.contains(&address))?;
            if block.net.prefix_len() > 0 || !GLOBAL_UNICAST.contains(&v6) {
                Some(block)
            } else {
                isatap(v6).map(|_| &ISATAP)
            }
        }
    }
}

/// The IPv4 addresses that an IPv6 address leads to.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    match address.segments() {
        [0x2002, high, low, ..] | [0x64, 0xff9b, .., high, low] => [Some(v4(high, low)), None],
        // Teredo: the server's address, and the client's with its bits flipped.
        [0x2001, 0, high, low, .., client_high, client_low] => {
            [Some(v4(high, low)), Some(v4(!client_high, !client_low))]
        }
        _ => [isatap(address), None],
    }
}

fn isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}
