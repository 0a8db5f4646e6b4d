//! Vectors of primitive numbers as raw bytes, found by type id: stable Rust has no specialisation.
//!
//! Both ends run the same program, so they agree on what is raw. Bytes are little-endian: on a
//! big-endian machine nothing is raw, and postcard does it all.

use std::any::{Any, TypeId, type_name};

use bytemuck::Pod;
use rdask_core::bulk::Bulk;

use super::{DecodeError, Received};

/// Expands `$each!(type)` for every number whose vectors travel raw.
macro_rules! for_each_number {
    ($each:ident) => {
        $each!(u8);
        $each!(u16);
        $each!(u32);
        $each!(u64);
        $each!(u128);
        $each!(usize);
        $each!(i8);
        $each!(i16);
        $each!(i32);
        $each!(i64);
        $each!(i128);
        $each!(isize);
        $each!(f32);
        $each!(f64);
    };
}

/// Whether `T` is a vector that travels raw. Known at compile time once optimised.
#[inline]
pub(crate) fn is_raw<T: 'static>() -> bool {
    macro_rules! check {
        ($number:ty) => {
            if TypeId::of::<T>() == TypeId::of::<Vec<$number>>() {
                return cfg!(target_endian = "little");
            }
        };
    }
    for_each_number!(check);
    false
}

/// The value's bytes, if it is a vector that travels raw.
#[inline]
pub(crate) fn bytes_of<T: 'static>(value: &T) -> Option<&[u8]> {
    if !is_raw::<T>() {
        return None;
    }
    let value: &dyn Any = value;
    macro_rules! cast {
        ($number:ty) => {
            if let Some(numbers) = value.downcast_ref::<Vec<$number>>() {
                return Some(bytemuck::cast_slice(numbers));
            }
        };
    }
    for_each_number!(cast);
    None
}

/// The value with these bytes, if `T` is a vector that travels raw.
#[inline]
pub(super) fn value_of<T: 'static>(bytes: &[u8]) -> Option<Result<T, DecodeError>> {
    if !is_raw::<T>() {
        return None;
    }
    let mut value: Option<T> = None;
    let slot: &mut dyn Any = &mut value;
    macro_rules! fill {
        ($number:ty) => {
            if let Some(slot) = slot.downcast_mut::<Option<Vec<$number>>>() {
                *slot = numbers(bytes);
            }
        };
    }
    for_each_number!(fill);
    let length = bytes.len();
    Some(value.ok_or(DecodeError::PartialElement { type_name: type_name::<T>(), length }))
}

/// The value in the memory in which it arrived, if `T` is a vector that travels raw, the memory is
/// aligned for it, and nobody else has a share.
///
/// # Errors
/// Gives the bytes back otherwise.
pub(crate) fn take_over<T: 'static>(bulk: Bulk) -> Result<T, Bulk> {
    if !is_raw::<T>() {
        return Err(bulk);
    }
    let mut left = Some(bulk.into_memory::<Received>()?);
    let mut value: Option<T> = None;
    let slot: &mut dyn Any = &mut value;
    macro_rules! fill {
        ($number:ty) => {
            if let Some(slot) = slot.downcast_mut::<Option<Vec<$number>>>() {
                match left.take().map(Received::into_numbers) {
                    Some(Ok(numbers)) => *slot = Some(numbers),
                    Some(Err(received)) => left = Some(received),
                    None => {}
                }
            }
        };
    }
    for_each_number!(fill);
    value.ok_or_else(|| left.map(Bulk::in_memory).unwrap_or_default())
}

/// Copies, so the bytes may have any alignment.
fn numbers<N: Pod>(bytes: &[u8]) -> Option<Vec<N>> {
    if !bytes.len().is_multiple_of(size_of::<N>()) {
        return None;
    }
    let mut numbers = vec![N::zeroed(); bytes.len() / size_of::<N>()];
    bytemuck::cast_slice_mut(&mut numbers).copy_from_slice(bytes);
    Some(numbers)
}

/// A copy of the value, if it is of a type that is known to be cheap to copy: a number, a vector of
/// numbers or text.
pub(crate) fn duplicate<T: 'static>(value: &T) -> Option<T> {
    let value: &dyn Any = value;
    let mut copy: Option<T> = None;
    let slot: &mut dyn Any = &mut copy;
    macro_rules! clone {
        ($plain:ty) => {
            if let (Some(value), Some(slot)) =
                (value.downcast_ref::<$plain>(), slot.downcast_mut::<Option<$plain>>())
            {
                *slot = Some(value.clone());
            }
        };
    }
    macro_rules! clone_number {
        ($number:ty) => {
            clone!($number);
            clone!(Vec<$number>);
        };
    }
    for_each_number!(clone_number);
    clone!(bool);
    clone!(char);
    clone!(String);
    copy
}

/// Appends a length, seven bits per byte, low ones first.
pub(super) fn push_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Reads a length and as many bytes; returns these and what follows.
pub(super) fn split_length(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut length = 0usize;
    for (i, &byte) in bytes.iter().enumerate() {
        let shift = u32::try_from(i).ok()?.checked_mul(7)?;
        let bits = usize::from(byte & 0x7f);
        let shifted = bits.checked_shl(shift)?;
        if shifted >> shift != bits {
            return None;
        }
        length |= shifted;
        if byte & 0x80 == 0 {
            return bytes[i + 1..].split_at_checked(length);
        }
    }
    None
}
