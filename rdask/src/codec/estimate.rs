//! How long a value would be if it were encoded, without encoding it.
//!
//! A serializer that only counts, and that looks at no more than the first elements of a sequence:
//! those behind them are taken to be like them. A vector of a million structs costs a million calls
//! that return at once.

use std::fmt;

use serde::Serialize;
use serde::ser::{self, SerializeMap, SerializeSeq, Serializer};

use super::{Data, raw};

/// How many elements of a sequence are looked at.
const SAMPLE: usize = 32;

/// About how many bytes the value takes when encoded, for scheduling. Exact for numbers, text and
/// vectors of numbers.
///
/// Runs the user's `Serialize`. Where that refuses, the estimate ends there.
pub fn size_hint<T: Data>(value: &T) -> usize {
    if let Some(bytes) = raw::bytes_of(value) {
        return bytes.len();
    }
    let mut bytes = 0;
    match value.serialize(Count { bytes: &mut bytes }) {
        Ok(()) | Err(fmt::Error) => bytes,
    }
}

/// Counts bytes.
struct Count<'a> {
    bytes: &'a mut usize,
}

type Counted = Result<(), fmt::Error>;

/// The length of a number at seven bits per byte.
fn varint_length(number: u128) -> usize {
    (number.max(1).ilog2() / 7 + 1) as usize
}

fn zigzag(number: i128) -> u128 {
    ((number << 1) ^ (number >> 127)).cast_unsigned()
}

impl Count<'_> {
    fn add(self, bytes: usize) -> Counted {
        *self.bytes = self.bytes.saturating_add(bytes);
        Ok(())
    }

    fn again(&mut self) -> Count<'_> {
        Count { bytes: self.bytes }
    }
}

macro_rules! count {
    ($($method:ident($value:ident: $type:ty) $length:expr;)*) => {
        $(fn $method(self, $value: $type) -> Counted {
            self.add($length)
        })*
    };
}

impl<'a> Serializer for Count<'a> {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Sampled<'a>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Sampled<'a>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    count! {
        serialize_bool(_value: bool) 1;
        serialize_i8(_value: i8) 1;
        serialize_i16(value: i16) varint_length(zigzag(value.into()));
        serialize_i32(value: i32) varint_length(zigzag(value.into()));
        serialize_i64(value: i64) varint_length(zigzag(value.into()));
        serialize_i128(value: i128) varint_length(zigzag(value));
        serialize_u8(_value: u8) 1;
        serialize_u16(value: u16) varint_length(value.into());
        serialize_u32(value: u32) varint_length(value.into());
        serialize_u64(value: u64) varint_length(value.into());
        serialize_u128(value: u128) varint_length(value);
        serialize_f32(_value: f32) 4;
        serialize_f64(_value: f64) 8;
        serialize_char(value: char) 1 + value.len_utf8();
        serialize_str(value: &str) varint_length(value.len() as u128) + value.len();
        serialize_bytes(value: &[u8]) varint_length(value.len() as u128) + value.len();
        serialize_unit_struct(_name: &'static str) 0;
    }

    fn serialize_none(self) -> Counted {
        self.add(1)
    }

    fn serialize_some<T: ?Sized + Serialize>(mut self, value: &T) -> Counted {
        self.again().add(1)?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Counted {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Counted {
        self.serialize_u32(index)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Counted {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Counted {
        self.again().serialize_u32(index)?;
        value.serialize(self)
    }

    fn serialize_seq(mut self, length: Option<usize>) -> Result<Sampled<'a>, fmt::Error> {
        self.again().add(varint_length(length.unwrap_or_default() as u128))?;
        let start = *self.bytes;
        Ok(Sampled { count: self, elements: 0, start })
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Sampled<'a>, fmt::Error> {
        self.serialize_seq(length)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        mut self,
        _: &'static str,
        index: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, fmt::Error> {
        self.again().serialize_u32(index)?;
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self, fmt::Error> {
        self.serialize_tuple_variant(name, index, variant, length)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// A sequence or a map, of which only the first elements are counted.
struct Sampled<'a> {
    count: Count<'a>,
    elements: usize,
    /// The bytes before the first element.
    start: usize,
}

impl SerializeSeq for Sampled<'_> {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Counted {
        self.elements += 1;
        if self.elements <= SAMPLE { value.serialize(self.count.again()) } else { Ok(()) }
    }

    fn end(self) -> Counted {
        let sampled = *self.count.bytes - self.start;
        let rest = self.elements.saturating_sub(SAMPLE);
        self.count.add(sampled.saturating_mul(rest) / SAMPLE)
    }
}

impl SerializeMap for Sampled<'_> {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_key<T: ?Sized + Serialize>(&mut self, key: &T) -> Counted {
        self.serialize_element(key)
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Counted {
        if self.elements <= SAMPLE { value.serialize(self.count.again()) } else { Ok(()) }
    }

    fn end(self) -> Counted {
        SerializeSeq::end(self)
    }
}

macro_rules! count_parts {
    ($($trait:ident $method:ident($($name:ty)?);)*) => {
        $(impl ser::$trait for Count<'_> {
            type Ok = ();
            type Error = fmt::Error;

            fn $method<T: ?Sized + Serialize>(&mut self, $(_: $name,)? part: &T) -> Counted {
                part.serialize(self.again())
            }

            fn end(self) -> Counted {
                Ok(())
            }
        })*
    };
}

count_parts! {
    SerializeTuple serialize_element();
    SerializeTupleStruct serialize_field();
    SerializeTupleVariant serialize_field();
    SerializeStruct serialize_field(&'static str);
    SerializeStructVariant serialize_field(&'static str);
}
