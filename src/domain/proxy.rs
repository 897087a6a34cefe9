//! [`Proxy`]: the HTTP proxy that a destination's requests go through.
//!
//! A destination names one, or has the one that Postrider was installed with. Whether the proxy's own address may be
//! connected to is asked when it is, because a refusal there must keep events and not give them up. A receiver's name is
//! resolved by the proxy, so the proxy decides where it leads.

use http::HeaderValue;
use url::{Url, form_urlencoded};

use super::oauth2;
use super::request::Fingerprint;
use super::secret::Secret;

/// Most bytes of a proxy's URL.
const MAX_URL: usize = 2048;

/// A proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The way to the proxy itself is TLS.
    pub secure: bool,
    /// Its host; an IPv6 address in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Value of `Proxy-Authorization`, marked sensitive.
    pub authorization: Option<HeaderValue>,
    /// It is the one that Postrider was installed with: its address is not for the egress guard to judge.
    pub is_of_installation: bool,
    /// Differs when anything else differs, the password too.
    pub fingerprint: Fingerprint,
}

impl Proxy {
    /// Reads a proxy's URL, which may carry a user name and password; `login` takes their place.
    ///
    /// # Errors
    /// What is wrong and what to do; never the URL itself.
    pub fn read(text: &str, login: Option<HeaderValue>) -> Result<Self, String> {
        const EXAMPLE: &str = "for example http://proxy.example.com:3128";
        if text.len() > MAX_URL {
            return Err(format!("the URL is over {MAX_URL} characters"));
        }
        let url =
            Url::parse(text).map_err(|_| format!("this is not a URL; give an absolute one, {EXAMPLE}"))?;
        let secure = match url.scheme() {
            "http" => false,
            "https" => true,
            _ => return Err(format!("a proxy's scheme is http or https, {EXAMPLE}")),
        };
        let host = url.host_str().filter(|host| !host.is_empty());
        let (Some(host), Some(port)) = (host, url.port_or_known_default()) else {
            return Err(format!("the URL has no host, {EXAMPLE}"));
        };
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(format!("a proxy's URL has no path and no query, {EXAMPLE}"));
        }
        let own = || {
            let password = Secret::new(decoded(url.password().unwrap_or_default()));
            let user = decoded(url.username());
            (!user.is_empty())
                .then(|| oauth2::basic(&user, &password))
                .flatten()
        };
        let authorization = login.or_else(own);
        let fingerprint = Fingerprint::of([
            url.scheme().as_bytes(),
            host.as_bytes(),
            &port.to_be_bytes(),
            authorization.as_ref().map_or(&[][..], HeaderValue::as_bytes),
        ]);
        Ok(Self {
            secure,
            host: host.to_owned(),
            port,
            authorization,
            is_of_installation: false,
            fingerprint,
        })
    }

    /// The same as the one that Postrider was installed with. Its connections are not shared with a proxy that a
    /// destination names, whose address is checked.
    #[must_use]
    pub fn of_installation(self) -> Self {
        Self {
            is_of_installation: true,
            fingerprint: self.fingerprint.and(b"installation"),
            ..self
        }
    }

    /// Scheme, host and port: all that is ever shown.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.host, self.port)
    }
}

/// A part of a URL without its percent-encoding.
fn decoded(text: &str) -> String {
    // A form's value differs from it in these two alone.
    let form = Secret::new(format!("v={}", text.replace('+', "%2B").replace('&', "%26")));
    let mut pairs = form_urlencoded::parse(form.expose().as_bytes());
    pairs
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_read_with_its_password_which_does_not_show() {
        let proxy = Proxy::read("http://me:p%40ss+w%26rd@Proxy.Example.com:3128/", None).unwrap();
        assert_eq!(proxy.origin(), "http://proxy.example.com:3128");
        let value = proxy.authorization.clone().unwrap();
        assert!(value.is_sensitive());
        // me:p@ss+w&rd
        assert_eq!(value, "Basic bWU6cEBzcyt3JnJk");
        assert!(!format!("{proxy:?}").contains("bWU6"), "{proxy:?}");
        let other = Proxy::read("http://me:other@proxy.example.com:3128", None).unwrap();
        assert_ne!(proxy.fingerprint, other.fingerprint);
        assert_ne!(
            other.fingerprint,
            other.clone().of_installation().fingerprint,
            "one is checked, the other is not"
        );
        let login = HeaderValue::from_static("Basic eDp5");
        let replaced = Proxy::read("http://me:other@proxy.example.com:3128", Some(login.clone())).unwrap();
        assert_eq!(replaced.authorization, Some(login));
    }

    #[test]
    fn ports_follow_the_scheme_and_other_urls_are_refused_without_being_told() {
        for (url, origin) in [
            ("http://p.example", "http://p.example:80"),
            ("https://p.example", "https://p.example:443"),
            ("http://[::1]:8080", "http://[::1]:8080"),
        ] {
            assert_eq!(Proxy::read(url, None).unwrap().origin(), origin);
        }
        for url in [
            "socks5://p.example:1080",
            "p.example:3128",
            "http://",
            "http://p.example/hunter2",
            "http://p.example/?hunter2",
            "hunter2",
        ] {
            let fault = Proxy::read(url, None).unwrap_err();
            assert!(!fault.contains("hunter2"), "{fault}");
        }
    }
}
