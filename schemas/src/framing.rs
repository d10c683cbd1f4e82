//! The Confluent frame: a zero byte, the schema id as four big-endian bytes, then the Avro datum.

/// Bytes before the datum.
pub const HEADER_BYTES: usize = 5;

/// Id of a schema in a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchemaId(pub u32);

/// Appends the frame header.
pub fn write_header(out: &mut Vec<u8>, id: SchemaId) {
    out.push(0);
    out.extend_from_slice(&id.0.to_be_bytes());
}

/// Splits a framed value into schema id and datum; `None` when there is no frame.
pub fn split(value: &[u8]) -> Option<(SchemaId, &[u8])> {
    let (header, datum) = value.split_at_checked(HEADER_BYTES)?;
    let [0, id @ ..] = header else { return None };
    Some((SchemaId(u32::from_be_bytes(id.try_into().ok()?)), datum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_round_trips_and_anything_else_is_refused() {
        let mut value = Vec::new();
        write_header(&mut value, SchemaId(0x0102_0304));
        value.extend_from_slice(b"datum");
        assert_eq!(value, b"\0\x01\x02\x03\x04datum");
        assert_eq!(split(&value), Some((SchemaId(0x0102_0304), &b"datum"[..])));
        assert_eq!(split(b"\x01\0\0\0\x01x"), None);
        assert_eq!(split(b"\0\0\0"), None);
    }
}
