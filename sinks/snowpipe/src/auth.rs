//! Key-pair JWT, as Snowflake documents it: RS256, issuer with the public key's fingerprint, at most an hour.

use std::path::Path;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rsa::{
    RsaPrivateKey,
    pkcs1v15::SigningKey,
    pkcs8::{DecodePrivateKey, EncodePublicKey},
    signature::{SignatureEncoding, Signer},
};
use serde_json::json;
use sha2::{Digest, Sha256};

/// Why a key cannot sign.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("snowpipe.private_key_file is {path}: cannot read it")]
    File {
        /// Path.
        path: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// The file is no private key.
    #[error("snowpipe.private_key_file is {path}: not an unencrypted PKCS#8 PEM key")]
    Key {
        /// Path.
        path: String,
        /// Cause.
        #[source]
        source: rsa::pkcs8::Error,
    },
}

/// Signs tokens for one user.
pub struct KeyPair {
    signer: SigningKey<Sha256>,
    subject: String,
    issuer: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("KeyPair").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Reads the key. `ACCOUNT.USER` in upper case; what follows the account's first dot (region, cloud) is left out.
    ///
    /// # Errors
    /// [`Error`] names the file.
    pub fn read(path: &Path, account: &str, user: &str) -> Result<Self, Error> {
        let name = path.display().to_string();
        let pem = std::fs::read_to_string(path).map_err(|source| Error::File { path: name.clone(), source })?;
        let key_error = |source| Error::Key { path: name.clone(), source };
        let key = RsaPrivateKey::from_pkcs8_pem(&pem).map_err(key_error)?;
        let public = key.to_public_key().to_public_key_der().map_err(|error| key_error(error.into()))?;
        let fingerprint = STANDARD.encode(Sha256::digest(public.as_bytes()));
        let account = account.split('.').next().unwrap_or_default().to_uppercase();
        let subject = format!("{account}.{}", user.to_uppercase());
        let issuer = format!("{subject}.SHA256:{fingerprint}");
        Ok(Self { signer: SigningKey::new(key), subject, issuer })
    }

    /// A token that is valid for 59 minutes from `now` (Unix seconds).
    pub fn token(&self, now: u64, role: Option<&str>) -> String {
        let mut claims = json!({ "sub": self.subject, "iss": self.issuer, "iat": now, "exp": now + 59 * 60 });
        if let Some(role) = role {
            claims["scp"] = format!("session:role:{role}").into();
        }
        let header = URL_SAFE_NO_PAD.encode(json!({ "typ": "JWT", "alg": "RS256" }).to_string());
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.signer.sign(signed.as_bytes()).to_bytes());
        format!("{signed}.{signature}")
    }
}
