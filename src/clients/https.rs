//! HTTPS for the AWS clients: HTTP/1.1 over rustls, kept connections, through a proxy where the environment names one.
//!
//! The SDK's own connector does the same and links HTTP/2 with it, a fortieth of the program, which no endpoint needs.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector as Tcp;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

/// A server that is reachable at all has answered, TLS included, in this time.
const CONNECT: Duration = Duration::from_secs(5);

/// A pool of connections; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Https(Client<Dial, SdkBody>);

impl Https {
    /// An empty pool; a proxy is spoken to without TLS.
    pub(super) fn new(tls: ClientConfig, proxies: Matcher) -> Self {
        let dial = Dial {
            tls: Arc::new(tls),
            proxies: Arc::new(proxies),
        };
        let mut client = Client::builder(TokioExecutor::new());
        Https(client.pool_timer(TokioTimer::new()).build(dial))
    }
}

impl HttpConnector for Https {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => {
                return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into())));
            }
        };
        let answer = self.0.request(request);
        HttpConnectorFuture::new(async move {
            let answer = answer.await.map_err(of_client)?;
            HttpResponse::try_from(answer.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// In the place of a pool, where no authority is known to trust: says so.
#[derive(Debug)]
pub(super) struct Untrusting(pub(super) String);

impl HttpConnector for Untrusting {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let why = io::Error::other(self.0.clone());
        HttpConnectorFuture::ready(Err(ConnectorError::io(why.into())))
    }
}

/// What an error means to the SDK; what it means to the data is read from its causes.
fn of_client(error: ClientError) -> ConnectorError {
    if error.is_connect() || error.source().is_some_and(|cause| cause.is::<io::Error>()) {
        ConnectorError::io(error.into())
    } else {
        ConnectorError::other(error.into(), None)
    }
}

/// Opens connections: straight, or through the proxy for that address.
#[derive(Debug, Clone)]
struct Dial {
    tls: Arc<ClientConfig>,
    proxies: Arc<Matcher>,
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Dial {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let mut tcp = Tcp::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let encrypted = to.scheme_str() == Some("https");
        // What is not encrypted is a private endpoint beside us, or a test's.
        let proxy = self.proxies.intercept(&to).filter(|_| encrypted);
        let connecting = match proxy {
            None => self.secured(tcp).call(to),
            Some(proxy) => match tunnel(&proxy, tcp) {
                Ok(tunnel) => self.secured(tunnel).call(to),
                Err(error) => return Box::pin(std::future::ready(Err(error.into()))),
            },
        };
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
            tokio::time::timeout(CONNECT, connecting)
                .await
                .map_err(late)?
        })
    }
}

impl Dial {
    fn secured<C>(&self, inner: C) -> HttpsConnector<C> {
        HttpsConnectorBuilder::new()
            .with_tls_config(ClientConfig::clone(&self.tls))
            .https_or_http()
            .enable_http1()
            .wrap_connector(inner)
    }
}

fn tunnel(proxy: &Intercept, tcp: Tcp) -> io::Result<Tunnel<Tcp>> {
    if proxy.uri().scheme_str() != Some("http") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "HTTPS_PROXY must start with http://",
        ));
    }
    let tunnel = Tunnel::new(proxy.uri().clone(), tcp);
    Ok(match proxy.basic_auth() {
        Some(login) => tunnel.with_auth(login.clone()),
        None => tunnel,
    })
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::client::http::HttpConnector;
    use http_body_util::BodyExt;
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// Asks `https://localhost:<port>/`, of a server with a certificate of its own. Returns the answer, or the
    /// innermost words, and what a proxy was asked, where `through` names one's scheme.
    async fn ask(trusted: bool, through: Option<&str>) -> (Result<String, String>, Option<String>) {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let server = server.with_safe_default_protocol_versions().unwrap();
        let server = server.with_no_client_auth();
        let server = server.with_single_cert(vec![cert.der().clone()], key.into());
        let acceptor = TlsAcceptor::from(Arc::new(server.unwrap()));
        let mut roots = rustls::RootCertStore::empty();
        if trusted {
            roots.add(cert.der().clone()).unwrap();
        }
        let tls = ClientConfig::builder_with_provider(provider);
        let tls = tls.with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(roots).with_no_client_auth();

        let (origin, address) = listen().await;
        let port = address.rsplit(':').next().unwrap().to_owned();
        let (proxy, proxy_address) = listen().await;
        let proxies = match through {
            None => Matcher::builder().build(),
            Some(scheme) => {
                let url = format!("{scheme}://user:pass@{proxy_address}");
                Matcher::builder().https(url).build()
            }
        };
        let serve = tokio::spawn(async move {
            let (stream, _) = origin.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                head(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
                stream.write_all(answer).await.unwrap();
            }
        });
        let relay = tokio::spawn(async move {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let asked = head(&mut stream).await;
            let mut onward = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
            asked
        });
        let https = Https::new(tls, proxies);
        let request = HttpRequest::get(format!("https://localhost:{port}/")).unwrap();
        let answer = match HttpConnector::call(&https, request).await {
            Ok(mut answer) => {
                let body = answer.take_body().collect().await.unwrap().to_bytes();
                Ok(String::from_utf8(body.to_vec()).unwrap())
            }
            Err(error) => Err(crate::clients::aws::innermost(&error)),
        };
        drop(https);
        let asked = match through {
            Some("http") => Some(relay.await.unwrap()),
            Some(_) | None => None,
        };
        serve.abort();
        (answer, asked)
    }

    #[tokio::test]
    async fn what_is_asked_arrives_where_the_server_is_trusted() {
        assert_eq!(ask(true, None).await, (Ok("hello".to_owned()), None));
        let (refused, _) = ask(false, None).await;
        assert_eq!(
            refused,
            Err("invalid peer certificate: UnknownIssuer".into())
        );
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_tunnel() {
        let (answer, asked) = ask(true, Some("http")).await;
        assert_eq!(answer, Ok("hello".to_owned()));
        let asked = asked.unwrap().to_lowercase();
        assert!(asked.starts_with("connect localhost:"), "{asked}");
        assert!(asked.contains("proxy-authorization: basic "), "{asked}");
        let (refused, _) = ask(true, Some("socks5")).await;
        assert_eq!(refused, Err("HTTPS_PROXY must start with http://".into()));
    }
}
