"""Hostile cases, each from its number alone, and what becomes of them."""

from __future__ import annotations

import gc
import json
import os
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idgen.errors import IdgenError

SECONDS, BYTES = 10.0, 1 << 30
DEEP = "§deep§"
"""Stands in JSON for lists in lists, which `json.dumps` itself cannot write."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 7.5, 10**6, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), -0.0),
    *("", "a", "mlp", "\ud800", "x" * 100_000, "[/b]", "../../etc/passwd", [], [[]], [1], ["a"], [None], [10**9], {}),
    *({"a": 1}, {"": {}}, [1] * 5000, DEEP),
)


@dataclass
class Tally:
    """Counts what cases ended in; `failures` must stay empty."""

    count: int = 0
    opened: int = 0
    refused: int = 0
    longest: float = 0.0
    largest: int = 0
    failures: list[str] = field(default_factory=list)

    def run(self, name: str, work: Callable[[], Any]) -> None:
        """Run one case; it may work, or end in an error of ours, within the limits of time and memory."""
        self.count += 1
        before, start, cpu = _reset_peak(), time.perf_counter(), time.process_time()
        try:
            work()
            self.opened += 1
        except IdgenError as error:
            self.refused += 1
            if not str(error):
                self.failures.append(f"{name}: an error that says nothing")
        except BaseException as error:
            self.failures.append(f"{name}: {type(error).__name__}: {error}"[:300])
            if isinstance(error, KeyboardInterrupt):
                raise
        seconds, peak = time.process_time() - cpu, max(_status("VmHWM") - before, 0)
        waited = time.perf_counter() - start > 20 * SECONDS  # how long work takes depends on what else runs
        self.longest, self.largest = max(self.longest, seconds), max(self.largest, peak)
        if seconds > SECONDS or waited:
            self.failures.append(f"{name}: {seconds:.1f} s")
        if peak > BYTES:
            self.failures.append(f"{name}: {peak >> 20} MB")

    def __str__(self) -> str:
        return (
            f"{self.count} cases: {self.opened} opened, {self.refused} refused by errors of ours, "
            f"{len(self.failures)} failures; longest {self.longest:.2f} s, most memory {self.largest >> 20} MB"
        )


def _reset_peak() -> int:
    """Let the process' peak memory begin anew; bytes that it holds now. Only Linux can measure it."""
    gc.collect(0)
    if os.path.exists("/proc/self/clear_refs"):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    if not os.path.exists("/proc/self/status"):
        return 0
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) << 10


def mutate_bytes(chance: random.Random, content: bytes) -> bytes:
    """Cut, flipped, filled or shifted."""
    data = bytearray(content)
    place = chance.randrange(len(data) or 1)
    if chance.random() < 0.5:  # where the headers are
        place = min(place, chance.randrange(300))
    kind = chance.randrange(7)
    if kind == 0:
        del data[place:]
    elif kind == 1:
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 2:
        data[place : place + 8] = chance.choice((b"\xff" * 8, b"\0" * 8, struct.pack("<Q", 1 << 62), b"\x7f" * 8))
    elif kind == 3:
        data[place:place] = chance.randbytes(chance.randint(1, 64))
    elif kind == 4:
        del data[place : place + chance.randint(1, 64)]
    elif kind == 5:
        data[place : place + chance.randint(1, 4096)] = chance.randbytes(16)
    else:
        data = bytearray(chance.choice((b"", b"\0", b"[" * 50_000, chance.randbytes(99), b"PK\x03\x04", content * 2)))
    return bytes(data)


def mutate_json(chance: random.Random, value: Any) -> Any:
    """The value with one to three entries, anywhere in it, lost, new or of another kind."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        value = _mutate_once(chance, value)
    return value


def _mutate_once(chance: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.95:
        value, name = dict(value), chance.choice(list(value))
        kind = chance.randrange(10)
        if kind == 0:
            del value[name]
        elif kind == 1:
            value[chance.choice(("", "extra", "_class_name", "a.b", "keys"))] = chance.choice(VALUES)
        elif kind == 2:
            value[f"{name}x"] = value.pop(name)
        else:
            value[name] = _mutate_once(chance, value[name])
        return value
    if isinstance(value, list) and value and chance.random() < 0.5:
        value, i = list(value), chance.randrange(len(value))
        value[i] = _mutate_once(chance, value[i])
        return value
    return chance.choice(VALUES)


def to_json(value: Any) -> str:
    """JSON, with `DEEP` as 100,000 lists in lists."""
    return json.dumps(value).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)


def mutate_safetensors(chance: random.Random, content: bytes) -> bytes:
    """Another header over the same bytes: types, shapes, offsets, names, and the text in the metadata."""
    size = int.from_bytes(content[:8], "little")
    header, rest = json.loads(content[8 : 8 + size]), content[8 + size :]
    metadata = header.get("__metadata__", {})
    names = [name for name in header if name != "__metadata__"]
    kind = chance.randrange(8)
    if kind < 3 and metadata:
        name = chance.choice(list(metadata))
        try:
            metadata[name] = to_json(mutate_json(chance, json.loads(metadata[name])))
        except ValueError:
            metadata[name] = chance.choice(("", "{}", "x", "[" * 50_000, "\ud800"))
    elif kind == 3:
        header[chance.choice(names)]["dtype"] = chance.choice(
            ("F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "X", "U16")
        )
    elif kind == 4:
        entry = header[chance.choice(names)]
        entry["shape"] = chance.choice((list(reversed(entry["shape"])), [], [0], [*entry["shape"], 1], [2**40], [-1]))
    elif kind == 5:
        header[f"{chance.choice(names)}x"] = header.pop(chance.choice(names))
    elif kind == 6:
        header = mutate_json(chance, header)
    else:  # the same header, and nothing in order among the numbers
        rest = chance.choice((b"\xff", b"\0", b"\x7f", b"\x7f\x80")) * len(rest)
        rest = rest[: len(content) - 8 - size]
    text = to_json(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + rest
