//! Key-pair JWTs in, scoped tokens out.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rsa::{
    RsaPublicKey,
    pkcs1v15::{Signature, VerifyingKey},
    pkcs8::EncodePublicKey,
    signature::Verifier,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Lifetime of a scoped token, seconds.
const LIFETIME: u64 = 3600;

pub(super) struct Tokens {
    verifier: VerifyingKey<Sha256>,
    issuer: String,
    subject: String,
    granted: Mutex<HashMap<String, u64>>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

impl Tokens {
    pub(super) fn new(key: RsaPublicKey) -> Self {
        let der = key.to_public_key_der().expect("an RSA key has a DER form");
        let fingerprint = STANDARD.encode(Sha256::digest(der.as_bytes()));
        let subject = format!("{}.{}", super::ACCOUNT, super::USER);
        Self {
            verifier: VerifyingKey::new(key),
            issuer: format!("{subject}.SHA256:{fingerprint}"),
            subject,
            granted: Mutex::default(),
        }
    }

    /// Whether the JWT is the user's and in its time; the error says what is wrong with it.
    pub(super) fn check_jwt(&self, jwt: &str) -> Result<(), String> {
        let (signed, signature) = jwt.rsplit_once('.').ok_or("JWT token is invalid")?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).map_err(|error| error.to_string());
        let signature = Signature::try_from(decode(signature)?.as_slice()).map_err(|error| error.to_string())?;
        self.verifier
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| "JWT signature does not match the user's public key")?;
        let claims = signed.split('.').nth(1).ok_or("JWT has no claims")?;
        let claims: Value = serde_json::from_slice(&decode(claims)?).map_err(|error| error.to_string())?;
        if claims["iss"] != self.issuer || claims["sub"] != self.subject {
            return Err(format!("JWT issuer or subject is not {}", self.subject));
        }
        // The SDK writes milliseconds, everybody else seconds; the service takes both.
        let seconds = |claim: &str| claims[claim].as_u64().map(|at| if at > 100_000_000_000 { at / 1000 } else { at });
        let (issued, expires) = (seconds("iat").ok_or("JWT has no iat")?, seconds("exp").ok_or("JWT has no exp")?);
        if expires <= now() || issued > now() + 60 || expires - issued > 3600 {
            return Err("JWT is expired, not yet valid, or longer than an hour".into());
        }
        Ok(())
    }

    /// A new scoped token: JWT-shaped, with an `exp` that the SDK reads; its header must name an algorithm that the SDK
    /// knows, though nobody checks the signature.
    pub(super) fn grant(&self) -> String {
        let expires = now() + LIFETIME;
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!(
            "{}.{}.{}",
            part(json!({ "typ": "JWT", "alg": "RS256" })),
            part(json!({ "exp": expires, "sub": self.subject })),
            uuid::Uuid::new_v4().simple()
        );
        self.granted.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone(), expires);
        token
    }

    /// Whether the token was granted by this process and is in its time.
    pub(super) fn check(&self, token: &str) -> bool {
        let mut granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner);
        granted.retain(|_, expires| *expires > now());
        granted.contains_key(token)
    }
}
