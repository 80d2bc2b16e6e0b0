"""Fuzzing: a corpus of inputs that once were interesting, byte mutations of them, and how long to go on.

A search is seeded, so that what it finds it finds again. It takes 1 s; SESSIOND_TEST_THOROUGH=1 gives it 20 s, and
SESSIOND_TEST_FUZZ_SECONDS any other number. An input that breaks something belongs into tests/fuzz/corpus.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
SECONDS = float(
    os.environ.get("SESSIOND_TEST_FUZZ_SECONDS", "20" if os.environ.get("SESSIOND_TEST_THOROUGH") == "1" else "1")
)
SEED = 7377

INTERESTING = [
    b"\0",
    b"\xff" * 4,
    b"\xff" * 9,
    b"\r\n",
    b"\r\n\r\n",
    b'"',
    b"\\ud800",
    b"%",
    b"{",
    b"[" * 40,
    b"\x7f" * 8,
    b"\x80",
    b"\xc1",
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"1e999",
    b"-0",
    b"9" * 30,
    b"chunked",
    b"\x82\xff",
    b"\x88\x00",
]


def corpus(name: str) -> list[bytes]:
    """The kept inputs of one target, in the order of their names."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def mutate(seed: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """The seed with a few changes: bits, bytes, cuts, doublings, what others hold, and what parsers stumble over."""
    data = bytearray(seed)
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((1, 2, 4, 16, 200)))
        kind = chance.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at:end] = chance.randbytes(end - at)
        elif kind == 2:
            del data[at:end]
        elif kind == 3:
            data[at:at] = data[at:end] * chance.choice((1, 2, 50))
        elif kind == 4:
            data[at:at] = chance.choice(INTERESTING)
        elif kind == 5:
            other = chance.choice(others)
            start = chance.randrange(len(other) + 1)
            data[at:end] = other[start : start + chance.choice((4, 20, 200))]
        else:
            del data[at:]
    return bytes(data[:20_000])


def inputs(name: str, chance: random.Random) -> Iterator[bytes]:
    """The corpus, and then mutations without end."""
    seeds = corpus(name)
    yield from seeds
    while True:
        yield mutate(chance.choice(seeds), seeds, chance)


def fuzz(name: str, check: Callable[[bytes], None], seconds: float = SECONDS) -> int:
    """Checks the whole corpus, and mutations of it until the time is up. How many; an input that fails is in the error."""
    number, end = 0, time.monotonic() + seconds
    seeds = len(corpus(name))
    for data in inputs(name, random.Random(SEED)):
        if number >= seeds and time.monotonic() > end:
            return number
        try:
            check(data)
        except Exception as e:
            raise AssertionError(f"{name}: input {number} is not taken as it should be: {data!r}") from e
        number += 1
    return number
