"""build.json: what was built, from what, with what, how accurate, how verified, at what cost.

``build.schema.json``, beside this file, documents every key.
"""

from __future__ import annotations

import json
import platform
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from qhw.doctor import package_version, program_version
from qhw.errors import InputError
from qhw.outside import shown
from qhw.outside.schema import check
from qhw.outside.text import read_json
from qhw.pipeline.stages import json_digest, write_atomically

SCHEMA_VERSION = 3
FILE_NAME = "build.json"
_AGAIN = "run the same qhw build again: it writes the file again"

_LARGEST_FILE = 1 << 26

Manifest = dict[str, Any]
"""The JSON document, as ``build.schema.json`` says."""


@cache
def schema() -> dict[str, Any]:
    """The JSON Schema of build.json."""
    text = (files("qhw.pipeline") / "build.schema.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def validate(manifest: Manifest) -> None:
    """Check a manifest against the schema.

    Raises:
        InputError: names the first key that is wrong.
    """
    check(manifest, schema(), FILE_NAME, hint=_AGAIN)


def write(manifest: Manifest, folder: Path) -> Path:
    """Validate a manifest and write it into a build folder, all or nothing, with a digest of itself."""
    validate(manifest)
    signed = manifest | {"digest": json_digest(manifest)}
    write_atomically(folder / FILE_NAME, json.dumps(signed, indent=2) + "\n")
    return folder / FILE_NAME


def read(folder: Path) -> Manifest:
    """The manifest of a build folder.

    Raises:
        InputError: there is none, it is not a manifest of this version, or not as it was written.
    """
    path = folder / FILE_NAME
    if not path.exists():
        raise InputError(f"{folder} has no {FILE_NAME}", hint="give a folder that qhw build has written")
    manifest: Manifest = read_json(path, "manifest", _LARGEST_FILE)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise InputError(
            f"{path} was written by another version of qhw: its schema_version is {shown(version)}",
            allowed=str(SCHEMA_VERSION),
            hint=_AGAIN,
        )
    digest = manifest.pop("digest", None)
    if digest is not None and digest != json_digest(manifest):
        raise InputError(f"{path} was changed since it was written: it does not have its digest", hint=_AGAIN)
    validate(manifest)
    return manifest


def tool_versions() -> dict[str, str]:
    """Versions of everything that can have a say in a build and is installed."""
    packages = ("qhw", "numpy", "onnx", "onnxruntime", "qonnx", "torch", "brevitas", "hls4ml", "finn-plus")
    found = {name: package_version(name) for name in packages} | {
        "python": platform.python_version(),
        "g++": program_version("g++", "-dumpfullversion"),
    }
    return {"qhw": "unknown"} | {name: version for name, version in found.items() if version}
