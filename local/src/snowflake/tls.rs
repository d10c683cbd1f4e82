//! A private certificate authority, made once, and a listener that speaks TLS.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{Error, state};

/// The authority's PEM file, and an acceptor with a certificate of it for 127.0.0.1 and localhost.
pub(super) fn acceptor(folder: &Path) -> Result<(PathBuf, TlsAcceptor), Error> {
    let broken = |error: String| Error::Broken {
        what: format!("no certificate: {error}"),
        fix: "remove the data folder and start over (--fresh)".into(),
    };
    let (ca, certificate, key) = (folder.join("ca.pem"), folder.join("certificate.pem"), folder.join("key.pem"));
    if !key.exists() {
        let (authority, server, server_key) = issue().map_err(|error| broken(error.to_string()))?;
        state::replace(&ca, authority.as_bytes())?;
        state::replace(&certificate, server.as_bytes())?;
        state::replace(&key, server_key.as_bytes())?;
        super::private(&key)?;
    }
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&certificate)
        .and_then(Iterator::collect)
        .map_err(|error| broken(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| broken(error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| broken(error.to_string()))?;
    Ok((ca, TlsAcceptor::from(Arc::new(config))))
}

/// Authority, server certificate and server key, as PEM.
fn issue() -> Result<(String, String, String), rcgen::Error> {
    let authority_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Flux local authority");
    let authority = params.self_signed(&authority_key)?;
    let issuer = Issuer::new(params, authority_key);
    let server_key = KeyPair::generate()?;
    let mut server = CertificateParams::new(vec!["localhost".to_string(), "127.0.0.1".to_string()])?;
    server.distinguished_name.push(DnType::CommonName, "Flux Snowpipe emulator");
    let server = server.signed_by(&server_key, &issuer)?;
    Ok((authority.pem(), server.pem(), server_key.serialize_pem()))
}

/// Accepts TLS connections; a slow handshake holds nobody up.
pub(super) struct TlsListener {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: std::io::Result<SocketAddr>,
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

impl TlsListener {
    pub(super) fn new(listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let address = listener.local_addr();
        let (sender, accepted) = mpsc::channel(64);
        tokio::spawn(async move {
            while !sender.is_closed() {
                let Ok((stream, address)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                        // The server is gone: so is the connection.
                        sender.send((stream, address)).await.ok();
                    }
                });
            }
        });
        Self { accepted, address }
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.address.as_ref().copied().map_err(|error| error.kind().into())
    }
}
