//! Snowpipe offset tokens: `1:<identity, 16 hexadecimal digits>:<next offset>`.
//!
//! The service stores the token opaquely, so it has to say by itself which topic it belongs to.

use std::fmt;

use crate::source::{Position, Source};

/// A parsed offset token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// [`Source::identity`] of the topic.
    pub identity: String,
    /// The next offset to read.
    pub next: Position,
}

impl Token {
    /// The token that says `next` for `source`.
    pub fn new(source: &Source, next: Position) -> Self {
        Self { identity: source.identity(), next }
    }

    /// Reads a token; `None` for anything that this grammar does not make.
    pub fn parse(text: &str) -> Option<Self> {
        let (identity, next) = text.strip_prefix("1:")?.split_once(':')?;
        let hexadecimal = identity.len() == 16 && identity.bytes().all(|byte| byte.is_ascii_hexdigit());
        let next = next.parse().ok().filter(|_| hexadecimal)?;
        Some(Self { identity: identity.into(), next: Position(next) })
    }
}

impl fmt::Display for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "1:{}:{}", self.identity, self.next)
    }
}

/// The channel of one partition: stable, so that a reopen fences whoever held it before.
pub fn channel(sink: &str, source: &Source) -> String {
    format!("flux_{sink}_{}_{}", source.topic, source.partition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_parse_what_they_print_and_nothing_else() {
        let token = Token { identity: "0123456789abcdef".into(), next: Position(42) };
        assert_eq!(Token::parse(&token.to_string()), Some(token));
        for wrong in ["", "42", "1:short:42", "2:0123456789abcdef:42", "1:0123456789abcdef:-1", "1:0123456789abcdeg:1"]
        {
            assert_eq!(Token::parse(wrong), None, "{wrong}");
        }
    }
}
