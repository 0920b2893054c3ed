"""Seeds derived from names and counters, so that no random state ever needs to be stored."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A seed that depends on nothing but its arguments: the same in every process and version.

    Args:
        parts: what the seed stands for, such as ``(7, "noise", 1200)``.

    Returns:
        An integer in [0, 2**63), as ``torch.Generator.manual_seed`` takes it.
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
