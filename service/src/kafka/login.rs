//! How to reach a cluster, and the client settings that no guarantee lets a user change.

use rdkafka::ClientConfig;

use crate::settings::{Error, Key, Secret, Settings};

/// Keys of this module.
pub const KEYS: &[Key] = &[
    Key {
        name: "kafka.brokers",
        default: "127.0.0.1:9092",
        help: "bootstrap servers, host:port, comma separated",
        secret: false,
    },
    Key {
        name: "kafka.security_protocol",
        default: "plaintext",
        help: "plaintext, ssl, sasl_plaintext or sasl_ssl",
        secret: false,
    },
    Key { name: "kafka.sasl_mechanism", default: "", help: "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512", secret: false },
    Key { name: "kafka.sasl_username", default: "", help: "SASL user", secret: false },
    Key {
        name: "kafka.sasl_password",
        default: "",
        help: "SASL password; prefer kafka.sasl_password_file",
        secret: true,
    },
    Key { name: "kafka.sasl_password_file", default: "", help: "file that holds the SASL password", secret: false },
    Key {
        name: "kafka.ssl_ca",
        default: "",
        help: "PEM file of the certificate authority; the system's when not set",
        secret: false,
    },
    Key {
        name: "kafka.properties",
        default: "",
        help: "librdkafka properties, name=value, comma separated; those a guarantee needs are set last",
        secret: false,
    },
];

/// How to reach a cluster.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Bootstrap servers.
    pub brokers: String,
    properties: Vec<(String, String)>,
    password: Option<Secret>,
}

impl KafkaSettings {
    /// A plaintext cluster.
    pub fn plaintext(brokers: &str) -> Self {
        Self { brokers: brokers.into(), properties: Vec::new(), password: None }
    }

    /// From the `kafka.*` keys.
    ///
    /// # Errors
    /// [`Error`] names the key.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let protocol = settings.require("kafka.security_protocol")?;
        if !["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"].contains(&protocol) {
            return Err(settings.wrong("kafka.security_protocol", "use plaintext, ssl, sasl_plaintext or sasl_ssl"));
        }
        let mut properties = vec![("security.protocol".to_string(), protocol.to_string())];
        for (key, property) in [
            ("kafka.sasl_mechanism", "sasl.mechanism"),
            ("kafka.sasl_username", "sasl.username"),
            ("kafka.ssl_ca", "ssl.ca.location"),
        ] {
            if let Some(value) = settings.get(key) {
                properties.push((property.into(), value.into()));
            }
        }
        for pair in settings.get("kafka.properties").unwrap_or_default().split(',').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                settings.wrong("kafka.properties", format!("{pair:?} has no =; write name=value,name=value"))
            })?;
            properties.push((name.trim().into(), value.trim().into()));
        }
        let password = settings.secret("kafka.sasl_password", "kafka.sasl_password_file")?;
        if protocol.starts_with("sasl") && password.is_none() {
            return Err(settings
                .wrong("kafka.sasl_password_file", "kafka.security_protocol asks for SASL, so a password is needed"));
        }
        Ok(Self { brokers: settings.require("kafka.brokers")?.into(), properties, password })
    }

    /// A client configuration: the user's properties first, so that a role's own come last and win.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        if let Some(password) = &self.password {
            config.set("sasl.password", password.expose());
        }
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "flux")
            .set("reconnect.backoff.max.ms", "2000")
            .set("log.connection.close", "false");
        config
    }
}
