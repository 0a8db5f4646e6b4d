//! Decoding that ends, whatever the bytes are.
//!
//! Two kinds of bytes would take a type's own `Deserialize` to its end: a list that nests as deep
//! as there are bytes overflows the stack, and 2^60 elements of no bytes each take centuries. So
//! this wraps postcard's deserializer, counts how deep it is, and counts the elements of sequences.
//! Elements that take bytes are never more than there are bytes.
//!
//! Numbers and text pass straight through.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::Data;

/// How deep values may nest. A level takes less than 4 KiB of stack in debug builds, for the types
/// of the tests; threads have 2 MiB, slots 8 MiB.
const DEPTH_MAX: u32 = 512;

/// How many elements without bytes a value may have. That many take milliseconds.
const EMPTY_ELEMENTS_MAX: usize = 1 << 20;

/// Why decoding stopped.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The bytes are no such value.
    Malformed(postcard::Error),
    /// A limit was passed.
    Excessive,
}

/// Reads one value and returns what follows it.
#[inline]
pub(super) fn decode<T: Data>(bytes: &[u8]) -> Result<(T, &[u8]), Stopped> {
    let elements = Cell::new(bytes.len().saturating_add(EMPTY_ELEMENTS_MAX));
    let limits = Limits { elements, passed: Cell::new(false) };
    let mut deserializer = postcard::Deserializer::from_bytes(bytes);
    let guarded = Guarded { inner: &mut deserializer, depth: 0, limits: &limits, counts: false };
    let value = T::deserialize(guarded);
    if limits.passed.get() {
        return Err(Stopped::Excessive);
    }
    let value = value.map_err(Stopped::Malformed)?;
    let rest = deserializer.finalize().map_err(Stopped::Malformed)?;
    Ok((value, rest))
}

struct Limits {
    /// How many elements there may still be.
    elements: Cell<usize>,
    passed: Cell<bool>,
}

/// Anything of serde's that decodes, with the limits at hand.
struct Guarded<'g, T> {
    inner: T,
    depth: u32,
    limits: &'g Limits,
    /// Whether this reads a sequence or map, whose length the bytes tell. That of tuples and
    /// structs is the type's.
    counts: bool,
}

impl<'g, T> Guarded<'g, T> {
    /// The same limits around something else.
    fn around<U>(&self, inner: U) -> Guarded<'g, U> {
        Guarded { inner, depth: self.depth, limits: self.limits, counts: self.counts }
    }

    fn split<V>(self, visitor: V, counts: bool) -> (T, Guarded<'g, V>) {
        let depth = self.depth + 1;
        (self.inner, Guarded { inner: visitor, depth, limits: self.limits, counts })
    }

    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth < DEPTH_MAX { Ok(()) } else { Err(self.pass()) }
    }

    fn count_element<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.counts {
            let left = self.limits.elements.get().checked_sub(1).ok_or_else(|| self.pass())?;
            self.limits.elements.set(left);
        }
        Ok(())
    }

    #[cold]
    fn pass<E: serde::de::Error>(&self) -> E {
        self.limits.passed.set(true);
        E::custom("a limit of decoding was passed")
    }
}

macro_rules! pass_through {
    ($($method:ident)*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
                self.inner.$method(visitor)
            }
        )*
    };
}

macro_rules! guard {
    ($($method:ident($($name:ident: $type:ty),*) counts: $counts:literal;)*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(
                self,
                $($name: $type,)*
                visitor: V,
            ) -> Result<V::Value, D::Error> {
                self.check_depth()?;
                let (inner, visitor) = self.split(visitor, $counts);
                inner.$method($($name,)* visitor)
            }
        )*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarded<'_, D> {
    type Error = D::Error;

    pass_through! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
        deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    guard! {
        deserialize_option() counts: false;
        deserialize_newtype_struct(name: &'static str) counts: false;
        deserialize_seq() counts: true;
        deserialize_tuple(len: usize) counts: false;
        deserialize_tuple_struct(name: &'static str, len: usize) counts: false;
        deserialize_map() counts: true;
        deserialize_struct(name: &'static str, fields: &'static [&'static str]) counts: false;
        deserialize_enum(name: &'static str, variants: &'static [&'static str]) counts: false;
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// What postcard calls for the compound types above.
impl<'de, V: Visitor<'de>> Visitor<'de> for Guarded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        let guarded = self.around(deserializer);
        self.inner.visit_some(guarded)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        let guarded = self.around(deserializer);
        self.inner.visit_newtype_struct(guarded)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let guarded = self.around(access);
        self.inner.visit_seq(guarded)
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let guarded = self.around(access);
        self.inner.visit_map(guarded)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let guarded = self.around(access);
        self.inner.visit_enum(guarded)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guarded<'_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let guarded = self.around(deserializer);
        self.inner.deserialize(guarded)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        let element = self.inner.next_element_seed(seed)?;
        if element.is_some() {
            self.count_element()?;
        }
        Ok(element)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.inner.size_hint()?.min(self.limits.elements.get()))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let seed = self.around(seed);
        let key = self.inner.next_key_seed(seed)?;
        if key.is_some() {
            self.count_element()?;
        }
        Ok(key)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.inner.size_hint()?.min(self.limits.elements.get()))
    }
}

impl<'de, 'g, A: EnumAccess<'de>> EnumAccess<'de> for Guarded<'g, A> {
    type Error = A::Error;
    type Variant = Guarded<'g, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let Self { inner, depth, limits, counts } = self;
        let (value, variant) = inner.variant_seed(seed)?;
        Ok((value, Guarded { inner: variant, depth, limits, counts }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.around(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.around(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
