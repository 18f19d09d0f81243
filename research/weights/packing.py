"""Codes of fewer than eight bits side by side in bytes."""

import jax.numpy as jnp

from research.core.types import Array


def pack(codes: Array, bits: int) -> Array:
    """uint8 codes [..., I] below 2^bits in bytes; I is filled up with zeros where it does not divide.

    4 bits: two codes a byte, the first in the upper half, [..., ⌈I/2⌉]. Other widths: bit planes, each byte one bit of
    eight codes, [..., bits · ⌈I/8⌉].
    """
    if bits == 4:
        even = _filled(codes, 2)
        return (even[..., ::2] << 4) | even[..., 1::2]
    planes = [jnp.packbits((codes >> bit) & 1, axis=-1) for bit in range(bits)]
    return jnp.concatenate(planes, axis=-1)


def unpack(packed: Array, bits: int, features: int) -> Array:
    """The codes [..., features], the inverse of `pack`."""
    if bits == 4:
        pairs = jnp.stack([packed >> 4, packed & 15], axis=-1)
        return pairs.reshape(*packed.shape[:-1], -1)[..., :features]
    planes = jnp.split(packed, bits, axis=-1)
    ones = [jnp.unpackbits(plane, axis=-1)[..., :features] << bit for bit, plane in enumerate(planes)]
    return sum(ones[1:], ones[0])


def _filled(codes: Array, multiple: int) -> Array:
    short = -codes.shape[-1] % multiple
    return jnp.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, short)]) if short else codes
