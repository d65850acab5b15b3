"""Random damage to a source: bytes, numbers in headers, values of JSON, YAML and text files. The same seed gives the same damage."""

from __future__ import annotations

import gzip
import json
import random
import struct
from collections.abc import Callable
from typing import Any

from tests.worlds.mutation_seeds import Source

_TEXTS = (".txt", ".yaml", ".csv")
_ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    2**31,
    2**63,
    10**30,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "7",
    "cell",
    "../../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "x" * 5000,
    "雪\u202e\n",
    "{0}%s{}",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    [1e9, 1e9, -1e9, -1e9, 0, 1e9],
    [[2**40, 2**40, 0, 0, 5, 2**40]],
    [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
)
_ODD_TOKENS = (
    "nan",
    "inf",
    "-1",
    "1e999",
    "99999999999999999999",
    "0.5",
    "x",
    "",
    "\0",
    "0x10",
    "1,5",
    "&a [*a]",
    "[" * 3000,
    "{",
    "../..",
    ": :",
    "\ufeff",
    "é" * 400,
    "!!python/object/apply:os.system [ls]",
)


def damaged(source: Source, random_source: random.Random) -> tuple[Source, str, str]:
    """Return a copy of a source with one file damaged, the name of this file, and the kind of the damage."""
    name = random_source.choice(_weighted(source))
    kinds = _BYTE_KINDS
    if name.endswith(".json"):
        kinds = {**_JSON_KINDS, **_BYTE_KINDS} if random_source.random() < 0.2 else _JSON_KINDS
    elif name.endswith(_TEXTS):
        kinds = {**_TEXT_KINDS, **_BYTE_KINDS}
    elif name.endswith((".nii", ".nii.gz")) and random_source.random() < 0.6:
        kinds = {"NIfTI header": _nifti_header}
    kind = random_source.choice(sorted(kinds))
    return source | {name: kinds[kind](source[name], random_source)}, name, kind


def _weighted(source: Source) -> list[str]:
    """Return the names of files, those of annotations and tables more often than the images beside them."""
    texts = [name for name in source if name.endswith((".json", *_TEXTS))]
    return sorted(source) + texts * 4


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        position = rng.randrange(len(changed)) if rng.random() < 0.5 else rng.randrange(min(len(changed), 400))
        changed[position] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def _overwrite(content: bytes, rng: random.Random) -> bytes:
    """Overwrite 1 to 8 bytes by an extreme number, mostly in the header."""
    number = rng.choice(
        (b"\xff", b"\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff" * 8, b"\x80")
    )
    position = rng.randrange(min(len(content), 600 if rng.random() < 0.8 else len(content)))
    return content[:position] + number + content[position + len(number) :]


def _remove_part(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randrange(1, 200) :]


def _double_part(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    stop = start + rng.randrange(1, 400)
    return content[:stop] + content[start:stop] + content[stop:]


def _noise(content: bytes, rng: random.Random) -> bytes:
    return rng.choice((rng.randbytes(200), content[:16] + rng.randbytes(len(content)), content + rng.randbytes(99)))


def _nifti_header(content: bytes, rng: random.Random) -> bytes:
    """Change one field of a header."""
    is_packed = content[:2] == b"\x1f\x8b"
    header = bytearray(gzip.decompress(content) if is_packed else content)
    number = rng.choice((0, -1, 1, 2, 7, 8, 9, 256, 16384, 32767, -32768))
    if rng.random() < 0.5:
        struct.pack_into("<h", header, rng.choice((40, 42, 44, 46, 48, 50, 68, 70, 72, 252, 254)), number)
    else:
        value = rng.choice((0.0, -1.0, float("nan"), float("inf"), 1e38, 1e-38, 352.5, float(number)))
        struct.pack_into("<f", header, rng.choice((76, 80, 84, 88, 92, 108, 112, 116, *range(256, 328, 4))), value)
    return gzip.compress(bytes(header), mtime=0) if is_packed else bytes(header)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a JSON value."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, child in below for inner in _paths(child, (*path, key)))]


def _change(content: bytes, rng: random.Random, change: Callable[[Any, Any], object]) -> bytes:
    """Apply a change to one random value of a JSON document, given its parent and its key."""
    document = json.loads(content)
    path = rng.choice(_paths(document)[1:])
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    change(parent, path[-1])
    return json.dumps(document, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _swap_value(content: bytes, rng: random.Random) -> bytes:
    return _change(content, rng, lambda parent, key: parent.__setitem__(key, rng.choice(_ODD_VALUES)))


def _as_text(content: bytes, rng: random.Random) -> bytes:
    return _change(content, rng, lambda parent, key: parent.__setitem__(key, str(parent[key])))


def _negate(content: bytes, rng: random.Random) -> bytes:
    def change(parent: Any, key: Any) -> None:
        value = parent[key]
        parent[key] = -value * 10**9 if isinstance(value, int | float) else [value]

    return _change(content, rng, change)


def _delete(content: bytes, rng: random.Random) -> bytes:
    return _change(content, rng, lambda parent, key: parent.__delitem__(key))


def _repeat(content: bytes, rng: random.Random) -> bytes:
    def change(parent: Any, key: Any) -> None:
        parent[key] = [parent[key]] * 50 if isinstance(parent, dict) else parent[key]
        if isinstance(parent, list):
            parent[key:key] = [parent[key]] * 50

    return _change(content, rng, change)


def _nest(content: bytes, rng: random.Random) -> bytes:
    depth = rng.choice((50, 900, 100_000))
    text = _change(content, rng, lambda parent, key: parent.__setitem__(key, "@@"))
    return text.replace(b'"@@"', b"[" * depth + b"]" * depth)


def _double_key(content: bytes, rng: random.Random) -> bytes:
    """Repeat a key of an object with another value."""
    text = content.decode()
    keys = [part for part in text.split('"')[1::2] if part]
    key = rng.choice(keys)
    position = rng.choice([i for i, letter in enumerate(text) if letter == "{"])
    odd = json.dumps(rng.choice(_ODD_VALUES))
    return (text[: position + 1] + f'"{key}": {odd}, ' + text[position + 1 :]).encode()


def _swap_token(content: bytes, rng: random.Random) -> bytes:
    text = content.decode()
    for separator in rng.sample((" ", "\n", ",", ":"), 4):
        parts = text.split(separator)
        if len(parts) > 1:
            parts[rng.randrange(len(parts))] = rng.choice(_ODD_TOKENS)
            return separator.join(parts).encode()
    return text.encode()


def _double_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    line = rng.choice(lines)
    return b"".join(lines) + line * rng.choice((1, 3000))


def _other_encoding(content: bytes, rng: random.Random) -> bytes:
    return content.decode("latin-1").encode(rng.choice(("utf-16", "utf-8-sig", "utf-32", "cp037")))


_BYTE_KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flipped bits": _flip,
    "cut": _cut,
    "extreme number": _overwrite,
    "part removed": _remove_part,
    "part doubled": _double_part,
    "noise": _noise,
}
_JSON_KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "JSON value": _swap_value,
    "JSON number as text": _as_text,
    "JSON negative": _negate,
    "JSON deleted": _delete,
    "JSON repeated": _repeat,
    "JSON nested": _nest,
    "JSON key doubled": _double_key,
}
_TEXT_KINDS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "token": _swap_token,
    "line doubled": _double_line,
    "other encoding": _other_encoding,
}
