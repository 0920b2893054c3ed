"""Shuffles a data set without state: an index is a function of the sample number alone.

There is no state to save: sample s of a run is the same image in every process. A run that resumes
in the middle of an epoch, or on another number of processes, asks for the samples it has not seen.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def shuffled(length: int, seed: int, samples: range | Sequence[int]) -> Tensor:
    """Computes the indices of samples in an endless shuffled pass over a data set.

    Sample s belongs to epoch s // length; its place in the epoch is looked up in a permutation
    drawn from (seed, epoch). Each epoch holds every index once.

    Args:
        length: number of items of the data set.
        seed: seed of the run.
        samples: sample numbers counted from the start of the run, >= 0. Process r of R takes
            `range(start + r, stop, R)`.

    Returns:
        Indices [len(samples)], int64 in [0, length).

    Raises:
        ValueError: if the data set is empty or a sample number is negative.
    """
    if length < 1:
        raise ValueError(f"length is {length}: expected at least one item")
    indices = []
    for sample in samples:
        if sample < 0:
            raise ValueError(f"sample number {sample} is negative")
        epoch, place = divmod(int(sample), length)
        indices.append(int(_permutation(length, seed, epoch)[place]))
    return torch.tensor(indices, dtype=torch.int64)


# Two: a batch may hold samples of two epochs.
@lru_cache(maxsize=2)
def _permutation(length: int, seed: int, epoch: int) -> Tensor:
    # A hash, because neighbouring seeds of a generator may draw related permutations, and because
    # (seed, epoch + 1) and (seed + 1, epoch) must differ.
    digest = hashlib.sha256(f"{seed} {epoch}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randperm(length, generator=generator)
