//! placeholder
use std::{net::SocketAddr, path::Path};
use crate::Error;
/// x
pub async fn serve(_address: SocketAddr, _folder: &Path, _shutdown: flux_service::shutdown::Shutdown) -> Result<SocketAddr, Error> { Err(Error::Broken{what:"not yet".into(), fix:"".into()}) }
