//! HTTP(S) for trackers (BEP 3) and for `.torrent` files named by URL, with the rules that keep a
//! stranger's URL from being a weapon.
//!
//! - Names are resolved here, and only addresses that a stranger may name (`btdht::addr`) are
//!   connected to: the check comes after DNS and on the very address that is connected. A URL that the
//!   user gave is free of that rule, a redirect to another host is not.
//! - At most [`MAX_REDIRECTS`] redirects, each judged like the first URL; `http` and `https` only.
//! - The body is streamed, after decompression, and cut off at the caller's limit, so that neither a
//!   gigabyte nor a gzip bomb is ever held.
//! - Proxies named in the environment are not used: what goes over them could not be checked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use url::{Host, Url};

use crate::tracker::url::may_contact;

/// Redirects that are followed.
pub const MAX_REDIRECTS: usize = 3;
/// Longest tracker reply, after decompression.
pub const MAX_ANNOUNCE: usize = 1 << 20;
/// A request is given up after this, redirects and body included.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// Opening a connection is given up after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Who named a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The user: its host may be local.
    User,
    /// A torrent, a magnet or a server.
    Stranger,
}

/// Why a document could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// It is no URL, or of a scheme that we do not speak.
    #[error("not an http or https URL")]
    NotHttp,
    /// The host is local and a stranger named it.
    #[error("refused: the address is local or impossible (--allow-local accepts it)")]
    LocalAddress,
    /// The name could not be resolved.
    #[error("the name could not be resolved: {0}")]
    Resolve(std::io::Error),
    /// Too many redirects, or one to nowhere.
    #[error("too many redirects or a broken one")]
    Redirects,
    /// The server answered with another status than 200.
    #[error("status {0}")]
    Status(u16),
    /// The body goes on beyond the limit.
    #[error("the reply is longer than {0} bytes")]
    TooLong(usize),
    /// Nothing, or not everything, came in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection or TLS failed.
    #[error("{0}")]
    Transfer(String),
}

/// The HTTP client of a session.
#[derive(Clone, Debug)]
pub struct Http {
    strict: Client,
    free: Client,
    allow_local: bool,
}

impl Http {
    /// A client. With `allow_local` every address may be connected to; `source` is the address that it
    /// connects from.
    ///
    /// # Errors
    /// When the TLS library refuses its own defaults.
    pub fn new(allow_local: bool, source: Option<IpAddr>) -> Result<Self, HttpError> {
        Ok(Self { strict: client(allow_local, source)?, free: client(true, source)?, allow_local })
    }

    /// Gets a document of at most `limit` bytes within [`TIMEOUT`].
    ///
    /// # Errors
    /// See [`HttpError`].
    pub async fn get(&self, url: &str, trust: Trust, limit: usize) -> Result<Vec<u8>, HttpError> {
        let get = Box::pin(self.follow(url, trust, limit));
        tokio::time::timeout(TIMEOUT, get).await.map_err(|_| HttpError::Timeout)?
    }

    async fn follow(&self, url: &str, trust: Trust, limit: usize) -> Result<Vec<u8>, HttpError> {
        let first = parse(url)?;
        let mut at = first.clone();
        for _ in 0..=MAX_REDIRECTS {
            let free = self.allow_local || (trust == Trust::User && same_origin(&first, &at));
            let response = self.request(&at, free).await?;
            if !response.status().is_redirection() {
                return body(response, limit).await;
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| at.join(location).ok()).ok_or(HttpError::Redirects)?;
            at = parse(next.as_str())?;
        }
        Err(HttpError::Redirects)
    }

    async fn request(&self, url: &Url, free: bool) -> Result<Response, HttpError> {
        // An address in place of a name never reaches the resolver, so it is judged here.
        let literal = match url.host() {
            Some(Host::Ipv4(ip)) => Some(IpAddr::from(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::from(ip)),
            _ => None,
        };
        if literal.is_some_and(|ip| !may_contact(ip, free)) {
            return Err(HttpError::LocalAddress);
        }
        let client = if free { &self.free } else { &self.strict };
        let response = client.get(url.clone()).send().await.map_err(explain)?;
        match response.remote_addr() {
            Some(addr) if !may_contact(addr.ip(), free) => Err(HttpError::LocalAddress),
            _ => Ok(response),
        }
    }
}

/// Resolves a `host` for a service at `port` and keeps the addresses that may be connected to.
///
/// # Errors
/// [`HttpError::Resolve`], or [`HttpError::LocalAddress`] when none is left.
pub async fn resolve(host: &str, port: u16, free: bool) -> Result<Vec<SocketAddr>, HttpError> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let found = tokio::net::lookup_host((host, port)).await.map_err(HttpError::Resolve)?;
    let allowed: Vec<_> = found.filter(|addr| may_contact(addr.ip(), free)).take(MAX_ADDRESSES).collect();
    if allowed.is_empty() { Err(HttpError::LocalAddress) } else { Ok(allowed) }
}

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

fn same_origin(a: &Url, b: &Url) -> bool {
    a.host() == b.host() && a.port_or_known_default() == b.port_or_known_default()
}

fn parse(url: &str) -> Result<Url, HttpError> {
    let url = Url::parse(url).map_err(|_| HttpError::NotHttp)?;
    if matches!(url.scheme(), "http" | "https") && url.has_host() { Ok(url) } else { Err(HttpError::NotHttp) }
}

async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, HttpError> {
    if response.status().as_u16() != 200 {
        return Err(HttpError::Status(response.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(explain)? {
        if body.len() + chunk.len() > limit {
            return Err(HttpError::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn client(free: bool, source: Option<IpAddr>) -> Result<Client, HttpError> {
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::Transfer(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(Resolver { free }))
        .redirect(Policy::none())
        .no_proxy()
        .local_address(source)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(0)
        .user_agent(concat!("btfetch/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(explain)
}

/// Our own resolver, so that every address is judged after DNS and before it is connected to.
struct Resolver {
    free: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let free = self.free;
        Box::pin(async move {
            // Port 0 is replaced by the one of the URL.
            let addrs = resolve(name.as_str(), 0, free).await?;
            Ok(Box::new(addrs.into_iter()) as Addrs)
        })
    }
}

/// The innermost cause in words; our own errors are handed through.
fn explain(error: reqwest::Error) -> HttpError {
    if error.is_timeout() {
        return HttpError::Timeout;
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        if let Some(HttpError::LocalAddress) = inner.downcast_ref() {
            return HttpError::LocalAddress;
        }
        cause = inner;
    }
    HttpError::Transfer(cause.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// Serves `replies` one a connection on loopback and returns its address.
    fn serve(replies: Vec<Vec<u8>>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for reply in replies {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let mut len = 0;
                while !request[..len].windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut request[len..]) {
                        Ok(n) if n > 0 => len += n,
                        _ => break,
                    }
                }
                // The client hangs up on what is too long.
                let _ = stream.write_all(&reply);
            }
        });
        addr
    }

    fn ok(headers: &str, body: &[u8]) -> Vec<u8> {
        let mut reply = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        reply.extend_from_slice(body);
        reply
    }

    fn redirect(to: &str) -> Vec<u8> {
        format!("HTTP/1.1 302 Found\r\nconnection: close\r\ncontent-length: 0\r\nlocation: {to}\r\n\r\n")
            .into_bytes()
    }

    #[tokio::test]
    async fn a_document_is_fetched_and_cut_at_the_limit() {
        let addr = serve(vec![ok("", b"d8:intervali60ee"), ok("", &[0; 2000])]);
        let http = Http::new(true, None).unwrap();
        let url = format!("http://{addr}/announce?a=%00");
        assert_eq!(http.get(&url, Trust::Stranger, 1000).await.unwrap(), b"d8:intervali60ee");
        let long = http.get(&url, Trust::Stranger, 1000).await;
        assert!(matches!(long, Err(HttpError::TooLong(1000))), "{long:?}");
    }

    #[tokio::test]
    async fn local_hosts_are_refused_without_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let http = Http::new(false, None).unwrap();
        for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "127.1"] {
            let got = http.get(&format!("http://{host}:{port}/"), Trust::Stranger, 1000).await;
            assert!(matches!(got, Err(HttpError::LocalAddress | HttpError::Resolve(_))), "{host}: {got:?}");
        }
        let got = http.get("http://169.254.169.254/latest", Trust::Stranger, 1000).await;
        assert!(matches!(got, Err(HttpError::LocalAddress)), "{got:?}");
        assert!(listener.accept().is_err(), "nobody connected");
    }

    #[tokio::test]
    async fn the_users_own_local_server_may_not_redirect_to_another_local_one() {
        let inner = TcpListener::bind("127.0.0.1:0").unwrap();
        inner.set_nonblocking(true).unwrap();
        let target = format!("http://{}/secret", inner.local_addr().unwrap());
        let addr = serve(vec![redirect("/same"), ok("", b"same"), redirect(&target)]);
        let http = Http::new(false, None).unwrap();
        let url = format!("http://{addr}/a");
        assert_eq!(http.get(&url, Trust::User, 1000).await.unwrap(), b"same");
        let got = http.get(&url, Trust::User, 1000).await;
        assert!(matches!(got, Err(HttpError::LocalAddress)), "{got:?}");
        assert!(inner.accept().is_err());
    }

    #[tokio::test]
    async fn endless_redirects_end_and_other_schemes_are_refused() {
        let addr = serve(vec![redirect("/a"), redirect("/b"), redirect("/c"), redirect("/d")]);
        let http = Http::new(true, None).unwrap();
        let got = http.get(&format!("http://{addr}/"), Trust::User, 1000).await;
        assert!(matches!(got, Err(HttpError::Redirects)), "{got:?}");
        let addr = serve(vec![redirect("file:///etc/passwd")]);
        let got = http.get(&format!("http://{addr}/"), Trust::User, 1000).await;
        assert!(matches!(got, Err(HttpError::NotHttp)), "{got:?}");
        let got = http.get("ftp://example.org/x", Trust::User, 1000).await;
        assert!(matches!(got, Err(HttpError::NotHttp)), "{got:?}");
    }

    #[tokio::test]
    async fn a_failing_status_is_named() {
        let addr = serve(vec![b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()]);
        let got = Http::new(true, None).unwrap().get(&format!("http://{addr}/"), Trust::User, 9).await;
        assert!(matches!(got, Err(HttpError::Status(404))), "{got:?}");
    }
}
