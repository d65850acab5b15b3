"""Which images train, which choose, which judge: by a hash, so that adding images moves none of those that were there."""

from __future__ import annotations

import hashlib
from typing import Literal

from segpipe.config import SplitParams

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def assign_split(identity: str, params: SplitParams) -> Split:
    """The split of everything that shares an identity (a group's name, or an image's content hash).

    SHA-256 of seed and identity, read as a number in [0, 1), falls below `test`, below `test + val`, or above: shares hold in
    expectation, and depend on nothing but the identity itself.
    """
    digest = hashlib.sha256(f"{params.seed}\0{identity}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < params.test:
        return "test"
    return "val" if position < params.test + params.val else "train"
