"""Files that cost more than they look like, for tests of what reads files from outside."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

PART = 1 << 24


def npy_header(descr: str, shape: str) -> bytes:
    """The beginning of a .npy file; ``descr`` and ``shape`` as the header's text has them."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def write_bomb(path: Path, name: str, descr: str, size: int) -> None:
    """An .npz file of one array, ``size`` zero bytes (a multiple of 16 MiB) behind its header."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = npy_header(descr, f"({size // 8},)")
    stream = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    part = packer.compress(bytes(PART)) + packer.flush(zlib.Z_FULL_FLUSH)
    stream += part * (size // PART) + packer.flush()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{name}.npy", stream)
    data = bytearray(file.getvalue())
    central = data.rindex(b"PK\x01\x02")
    for method, unpacked in ((8, 22), (central + 10, central + 24)):
        data[method : method + 2] = struct.pack("<H", zipfile.ZIP_DEFLATED)
        data[unpacked : unpacked + 4] = struct.pack("<I", len(head) + size)
    path.write_bytes(data)
