"""Reed-Solomon in plain Python, from RFC 5510's words: multiply bit by bit, interpolate naively, no table.

Shares nothing with the fast path but the polynomial.
"""

from functools import cache

POLYNOMIAL = 0x11D
ALPHA = 2


@cache
def multiply(a: int, b: int) -> int:
    """Of polynomials over GF(2), modulo POLYNOMIAL."""
    product = 0
    while b:
        if b & 1:
            product ^= a
        a = a << 1 ^ (POLYNOMIAL if a & 0x80 else 0)
        b >>= 1
    return product


@cache
def power(base: int, exponent: int) -> int:
    return multiply(base, power(base, exponent - 1)) if exponent else 1


@cache
def inverse(a: int) -> int:
    """The group has 255 elements."""
    result, square, exponent = 1, a, 254
    while exponent:
        if exponent & 1:
            result = multiply(result, square)
        square, exponent = multiply(square, square), exponent >> 1
    return result


def coefficients(known: list[int], wanted: int) -> list[int]:
    """What each known symbol brings to the wanted one."""
    points = [power(ALPHA, position) for position in known]
    at = power(ALPHA, wanted)
    row = []
    for own in points:
        above, below = 1, 1
        for other in points:
            if other != own:
                above, below = multiply(above, at ^ other), multiply(below, own ^ other)
        row.append(multiply(above, inverse(below)))
    return row


def symbol(known: dict[int, bytes], wanted: int) -> bytes:
    """The symbol at a position, from the symbols at k others."""
    total = bytearray(len(next(iter(known.values()))))
    for coefficient, source in zip(coefficients(list(known), wanted), known.values(), strict=True):
        for at, byte in enumerate(source):
            total[at] ^= multiply(coefficient, byte)
    return bytes(total)


def encode(sources: list[bytes], m: int) -> list[bytes]:
    """The m repair symbols of a block."""
    known = dict(enumerate(sources))
    return [symbol(known, len(sources) + repair) for repair in range(m)]


def decode(k: int, received: dict[int, bytes]) -> dict[int, bytes]:
    """The missing source symbols from k received ones."""
    assert len(received) == k
    return {position: symbol(received, position) for position in range(k) if position not in received}
