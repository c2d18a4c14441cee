//! Fixed-size fields at an offset, without a way to panic.

/// Copies out the `N` bytes at `at`; `None` if they are not all there.
#[inline(always)]
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

/// Reads the big-endian number at `at`.
#[inline(always)]
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_be_bytes)
}

/// Reads the big-endian number at `at`.
#[inline(always)]
pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

/// Overwrites the `N` bytes at `at`, which a parser has found to be there.
#[inline(always)]
pub(super) fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    match bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<N>) {
        Some(slot) => *slot = value,
        None => debug_assert!(
            false,
            "a field of {N} bytes at {at} lies outside {} bytes",
            bytes.len()
        ),
    }
}

/// Takes the low 16 bits of a length that is known to fit.
#[inline(always)]
pub(super) const fn low16(number: usize) -> u16 {
    debug_assert!(number <= 0xffff);
    (number as u64 & 0xffff) as u16
}

/// Takes the low 32 bits: TCP sequence numbers wrap.
#[inline(always)]
pub(super) const fn low32(number: usize) -> u32 {
    (number as u64 & 0xffff_ffff) as u32
}
