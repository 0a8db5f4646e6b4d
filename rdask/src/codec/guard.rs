//! Decoding that ends, whatever the bytes are.

use super::Data;

/// Reads one value and returns what follows it.
pub(super) fn decode<T: Data>(bytes: &[u8]) -> postcard::Result<(T, &[u8])> {
    let mut deserializer = postcard::Deserializer::from_bytes(bytes);
    let value = T::deserialize(&mut deserializer)?;
    Ok((value, deserializer.finalize()?))
}
