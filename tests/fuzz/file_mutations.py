"""Damage to TOML, JSON, CSV, NPY, NPZ and IDX files: of values by their meaning, of headers, of raw bytes."""

from __future__ import annotations

import copy
import io
import json
import random
import tomllib
import warnings
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .onnx_mutations import FLOATS, INTEGERS, TEXTS, damaged_bytes

Chance = random.Random

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, *INTEGERS, *FLOATS, 10**30, *TEXTS[:-2], [], {}, [[]], [1, "a"], {"a": {}}, [None],
    {"": 1}, "\ud800", "1" * 500, "fixed<8,3>", "int8", "e4m3", "khot<8,9>", "fixed<9999999,1>", "int0",
    "../x", "/etc/passwd",
)  # fmt: skip
"""Values of every type, in place of any."""

DESCRIPTORS = (
    "<f4", ">f4", "<f8", "<f2", "|b1", "|u1", "|i1", "<i8", ">i2", "<u8", "<c8", "<c16", "|O", "|S4", "<U3",
    "<U0", "|V8", "<M8[ns]", "<m8", "<f16", "|S0", "<i3", "", "<U999999999", "[('a', '<f4')]",
)  # fmt: skip
SHAPES = (
    (), (0,), (1,), (2, 3), (-1,), (-1, -1), (2**31,), (2**62, 2), (2**63,), (10**20,), (0, 10**15), (1,) *
    33, (1,) * 70, (True,), (1.5,), ("a",), (3, 1, 8, 8), (1, 1, 8, 8), (4, 8, 8), (2**16, 2**16),
)  # fmt: skip


# --- values of TOML and JSON ---


def mutated_json(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """JSON text with other values, fields or structure, or with damage to the text itself."""
    if chance.random() < 0.35:
        return damaged_text(content, chance)
    document, told = json.loads(content), []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        document, done = _changed(document, chance)
        told.append(done)
    return json.dumps(document, indent=1).encode(), "; ".join(told)


def mutated_toml(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """TOML text, likewise."""
    if chance.random() < 0.35:
        return damaged_text(content, chance)
    document, told = tomllib.loads(content.decode()), []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        document, done = _changed(document, chance)
        told.append(done)
    if not isinstance(document, dict):
        document = {"x": document}
    return "".join(f"{_key(k)} = {_toml(v)}\n" for k, v in document.items()).encode(
        errors="replace"
    ), "; ".join(told)


def _changed(document: Any, chance: Chance) -> tuple[Any, str]:
    """A document with one place changed, and what was done there."""
    places = list(_places(document, ()))
    document = copy.deepcopy(document)
    path = chance.choice(places)
    kind = chance.choice(["value", "value", "value", "drop", "new", "rename", "wrap", "deep", "near"])
    if not path:
        return chance.choice(ODD_VALUES), "another document"
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    old, last = parent[path[-1]], path[-1]
    if kind == "value":
        parent[last] = copy.deepcopy(chance.choice(ODD_VALUES))
    elif kind == "drop":
        del parent[last]
    elif kind == "new" and isinstance(parent, dict):
        parent[chance.choice(TEXTS)] = copy.deepcopy(chance.choice(ODD_VALUES))
    elif kind == "rename" and isinstance(parent, dict):
        parent[chance.choice([*TEXTS, str(last) + "s"])] = parent.pop(last)
    elif kind == "wrap":
        parent[last] = chance.choice([[old], {"a": old}, str(old)])
    elif kind == "deep":
        for _ in range(chance.choice([3, 40, 100])):
            old = [old]
        parent[last] = old
    else:
        parent[last] = _near(old, chance)
    return document, f"{'.'.join(map(str, path))[:60]}: {kind}"


def _near(value: Any, chance: Chance) -> Any:
    """A value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return chance.choice([value + 1, value - 1, -value, 2 * value, 0, chance.choice(INTEGERS)])
    if isinstance(value, float):
        return chance.choice([-value, value + 0.5, value * 1e300, 0.0, chance.choice(FLOATS)])
    if isinstance(value, str):
        return chance.choice(
            [value.upper(), value + "x", value[:-1], value[::-1], f" {value}", chance.choice(TEXTS)]
        )
    if isinstance(value, list):
        return chance.choice([value * 2, value[::-1], value[:1], value[1:]])
    return {} if isinstance(value, dict) else 0


def _places(value: Any, path: tuple[Any, ...]) -> Any:
    """The paths of every value in a document."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from _places(part, (*path, key))


def _key(key: str) -> str:
    return (
        json.dumps(key) if not key.replace("_", "a").replace("-", "a").isalnum() or not key.isascii() else key
    )


def _toml(value: Any) -> str:
    """A value as TOML; what TOML lacks is written as its JSON (which no reader of TOML takes)."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=chance_free(value))


def chance_free(value: Any) -> bool:
    """Whether a text is written in ASCII: surrogates have no UTF-8."""
    return isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value)


def damaged_text(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """Text with lines, words or bytes exchanged; other encodings; no end of brackets, keys and digits."""
    lines = content.split(b"\n")
    at = chance.randrange(len(lines))
    kind = chance.choice(
        ["bytes", "bytes", "bytes", "line", "twice", "cut", "word", "number", "encoding", "deep", "empty",
        "nul", "long", "keys"]
    )  # fmt: skip
    if kind == "bytes":
        return damaged_bytes(content, chance)
    if kind == "line":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
    elif kind == "cut":
        return content[: chance.randrange(len(content) + 1)], kind
    elif kind == "word":
        words = chance.choice(
            [b"null", b"true", b"nan", b"-inf", b"NaN", b"1e999", b"{", b"]", b'"', b"#", b"="]
        )
        lines[at] = lines[at].replace(lines[at][len(lines[at]) // 2 :], words)
    elif kind == "number":
        digits = b"9" * chance.choice([20, 400, 5000, 200_000])
        lines[at] = b"".join(digits if part.isdigit() else part for part in _split(lines[at]))
    elif kind == "encoding":
        text = content.decode("utf-8", "replace")
        return text.encode(chance.choice(["utf-16", "utf-8-sig", "utf-32", "latin-1"]), "replace"), kind
    elif kind == "deep":
        lines[at] += chance.choice([b"[", b'{"a":', b"a = ["]) * chance.choice([100, 3000, 50_000])
    elif kind == "empty":
        return chance.choice([b"", b"\n", b"\xff", b"{}", b"[]", b"null", b"0", b"\xef\xbb\xbf"]), kind
    elif kind == "nul":
        lines[at] += b"\0"
    elif kind == "keys":
        lines.append(b".".join([b"a"] * chance.choice([50, 1000, 20_000])) + b" = 1")
    else:
        lines[at] += b"x" * chance.choice([1000, 100_000])
    return b"\n".join(lines), f"{kind} at line {at}"


def _split(line: bytes) -> list[bytes]:
    """A line cut where digits begin and end."""
    parts: list[bytes] = []
    for char in (line[i : i + 1] for i in range(len(line))):
        if parts and parts[-1].isdigit() == char.isdigit():
            parts[-1] += char
        else:
            parts.append(char)
    return parts


def mutated_csv(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """A table with other cells, rows and columns, or with damage to its text."""
    if chance.random() < 0.4:
        return damaged_text(content, chance)
    rows = [line.split(b",") for line in content.split(b"\n")]
    at = chance.randrange(len(rows))
    column = chance.randrange(len(rows[at]))
    kind = chance.choice(["cell", "cell", "cell", "more", "fewer", "swap", "quote"])
    if kind == "cell":
        rows[at][column] = str(chance.choice(ODD_VALUES)).encode(errors="replace")
    elif kind == "more":
        rows[at].append(b"x")
    elif kind == "fewer":
        del rows[at][column]
    elif kind == "swap":
        rows[at] = rows[at][::-1]
    else:
        rows[at][column] = b'"' + rows[at][column]
    return b"\n".join(b",".join(row) for row in rows), f"{kind} at row {at}, column {column}"


# --- arrays ---


def odd_array(array: NDArray[Any], chance: Chance) -> NDArray[Any]:
    """An array of another type, shape or with other numbers; in place of a text another text, or none."""
    if array.dtype.kind in "US":
        return np.asarray(chance.choice([*TEXTS[:20], 3, 0.5, ["a", "b"]]))
    array = np.atleast_1d(array)
    with np.errstate(all="ignore"):
        kinds = [
            "<i8",
            "<f8",
            "<f2",
            ">f4",
            "?",
            "<c16",
            "<u8",
            "i1",
            ">i4",
            "<U5",
            "S3",
            "O",
            "<M8[s]",
            "<f4",
        ]
        what = chance.choice(["type", "type", "value", "value", "shape", "structured"])
        if what == "type":
            return array.astype(np.dtype(chance.choice(kinds)))
        if what == "value":
            values = np.asarray(array, dtype=chance.choice(["<f8", "<f4", "<i8", "O"])).copy()
            number = chance.choice(INTEGERS) if values.dtype.kind in "iO" else chance.choice(FLOATS)
            if values.size:
                values.flat[chance.randrange(values.size)] = number
            return values
        if what == "structured":
            return np.zeros(array.shape[:1], dtype=[("a", "<f4"), ("b", "<i8", (2,))])
        shapes = [
            array.ravel(),
            array[..., None],
            array[:0],
            array[None],
            array[..., :1],
            np.asarray(0),
            array.T,
        ]
        return chance.choice(shapes)


def mutated_npy(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """A .npy file of odd numbers, with a header that says something else, or damaged."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    kind = chance.choice(["array", "array", "header", "header", "bytes", "npz", "text"])
    if kind == "array":
        stream = io.BytesIO()
        odd = odd_array(array, chance)
        np.save(stream, odd, allow_pickle=True)
        return stream.getvalue(), f"{odd.dtype} {odd.shape}"
    if kind == "header":
        return _with_header(content[-array.nbytes :] if array.nbytes else b"", chance)
    if kind == "npz":
        stream = io.BytesIO()
        np.savez(stream, a=array)
        return stream.getvalue(), kind
    if kind == "text":
        return damaged_text(content, chance)
    return damaged_bytes(content, chance)


def _with_header(data: bytes, chance: Chance) -> tuple[bytes, str]:
    """Numbers behind a header that may not be theirs."""
    descriptor, shape = chance.choice(DESCRIPTORS), chance.choice(SHAPES)
    described = descriptor if descriptor.startswith("[") else repr(descriptor)
    order = chance.choice([True, False, 1, None])
    text = f"{{'descr': {described}, 'fortran_order': {order}, 'shape': {shape}}}"
    text = chance.choice(
        [text] * 6 + [text[:-3], "()", "{" * 90, "[" * 400, "9" * 5000, f"{text} #", "-" * 3000, "1+1"]
    )
    header = text.ljust(118).encode() + b"\n"
    version = chance.choice([b"\1\0"] * 6 + [b"\2\0", b"\3\0", b"\0\0", b"\x09\1"])
    wide = version in (b"\2\0", b"\3\0")
    length = chance.choice([len(header)] * 6 + [0, 5, len(header) + 9, 2**16 - 1])
    size = length.to_bytes(4 if wide else 2, "little")
    return npy.MAGIC_PREFIX + version + size + header + data, f"header {text[:70]}"


def mutated_npz(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """An archive with a member changed, renamed, missing, twice, or larger than it should be."""
    kind = chance.choice(
        ["member", "member", "member", "bytes", "bytes", "names", "sizes", "bomb", "twice", "odd"]
    )
    if kind == "bytes":
        return damaged_bytes(content, chance)
    if kind == "sizes":
        return _with_sizes(content, chance)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = chance.randrange(len(members))
    name, data = members[at]
    told = kind
    if kind == "member":
        data, told = mutated_npy(data, chance) if name.endswith(".npy") else damaged_bytes(data, chance)
        members[at] = name, data
    elif kind == "names":
        members[at] = (
            chance.choice([*TEXTS[:20], "../../x.npy", "/x.npy", "a\\b.npy", name + "x"]) or "x",
            data,
        )
    elif kind == "bomb":
        # One gigabyte and more of zeros, in a file of a few megabytes at most.
        return _bomb(members, at, chance.choice([1 << 30, 3 << 30])), kind
    elif kind == "twice":
        members.append((name, data[: len(data) // 2]))
    else:
        members = chance.choice(
            [[], members[:at], [(n.removesuffix(".npy"), d) for n, d in members], members * 2]
        )
    return _zipped(
        members, chance.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_BZIP2])
    ), told


def _zipped(members: list[tuple[str, bytes]], method: int) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # of members with the name of another
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "0")), data, method)
    return stream.getvalue()


_ZEROS = 1 << 24


def _bomb(members: list[tuple[str, bytes]], at: int, size: int) -> bytes:
    """An archive of which one member unpacks to ``size`` bytes of zeros, with a true header and checksum."""
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": (size,)}
    npy.write_array_header_1_0(header, shape)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(header.getvalue()) + packer.flush(zlib.Z_FULL_FLUSH)
    zeros = bytes(_ZEROS)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    packed = first + block * (size // _ZEROS) + packer.flush(zlib.Z_FINISH)
    check = zlib.crc32(header.getvalue())
    for _ in range(size // _ZEROS):
        check = zlib.crc32(zeros, check)
    whole = len(header.getvalue()) + size
    stored = [(name, zipfile.ZIP_DEFLATED, data) for name, data in members]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index, (name, method, data) in enumerate(stored):
            if index != at:
                archive.writestr(zipfile.ZipInfo(name), data, method)
                continue
            info = zipfile.ZipInfo(name)
            info.compress_type, info.CRC = zipfile.ZIP_DEFLATED, check
            info.compress_size, info.file_size, info.header_offset = len(packed), whole, stream.tell()
            stream.write(info.FileHeader() + packed)
            archive.filelist.append(info)
            archive.NameToInfo[name] = info
            archive.start_dir, archive._didModify = stream.tell(), True  # type: ignore[attr-defined]
    return stream.getvalue()


def _with_sizes(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """An archive whose directory or local headers lie about sizes, methods, flags or places."""
    data = bytearray(content)
    signature, places = chance.choice(
        [
            (b"PK\1\2", (8, 10, 16, 20, 24, 28, 42)),
            (b"PK\3\4", (6, 8, 14, 18, 22, 26)),
            (b"PK\5\6", (8, 10, 12, 16)),
        ]
    )
    found = [i for i in range(len(data) - 30) if data[i : i + 4] == signature]
    if not found:
        return damaged_bytes(content, chance)
    at = chance.choice(found) + chance.choice(places)
    data[at : at + 2] = chance.choice([0, 1, 8, 99, 0xFFFF, 0x7FFF]).to_bytes(2, "little")
    return bytes(data), f"zip field at {at}"


def mutated_idx(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """An IDX file with another header, cut short, or packed."""
    kind = chance.choice(["header", "header", "bytes", "cut", "long"])
    if kind == "header":
        data = bytearray(content)
        at = chance.randrange(min(16, len(data)))
        data[at] = chance.choice([0, 1, 8, 9, 13, 127, 255])
        return bytes(data), f"header byte {at}"
    if kind == "bytes":
        return damaged_bytes(content, chance)
    return (content[: chance.randrange(len(content))], kind) if kind == "cut" else (content + b"\0" * 9, kind)
