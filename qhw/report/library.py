"""The plotting library of the pages: Vega-Lite, whose JavaScript vl-convert holds."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from functools import cache
from pathlib import Path

from qhw import vouched
from qhw.doctor import package_version
from qhw.errors import InputError, ToolMissingError
from qhw.native import cache_folder
from qhw.outside.text import read_text

_EXPORTED = "window.vegaEmbed = vegaEmbed;"
_LARGEST = 1 << 23
_PURPOSE = "plotting library"


@cache
def plotting_javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, which asks no server for anything.

    Putting it together takes vl-convert seconds, so it is kept in the user's cache, under a seal.

    Raises:
        ToolMissingError: vl-convert is not installed.
    """
    try:
        import vl_convert
    except ImportError:
        raise ToolMissingError(
            "Reports need vl-convert-python, which is not installed", hint="pip install vl-convert-python"
        ) from None
    made_from = f"{package_version('vl-convert-python')} {_EXPORTED}"
    try:
        place = cache_folder() / "plotting" / f"vega-{_digest(made_from)[:16]}.js"
    except ToolMissingError:  # a user without a home
        return vl_convert.javascript_bundle(_EXPORTED)
    return _kept(place) or _made(place, vl_convert.javascript_bundle(_EXPORTED))


def _kept(place: Path) -> str | None:
    """What an earlier run left in the cache, if the seal beside it vouches for it."""
    if not place.is_file():
        return None
    with contextlib.suppress(InputError):
        text = read_text(place, "plotting library", _LARGEST)
        seal = read_text(place.with_suffix(".seal"), "seal", 1 << 10)
        if vouched.vouches(seal, _PURPOSE, place.name, _digest(text)):
            return text
    return None


def _made(place: Path, text: str) -> str:
    """Keep a text in the cache, where that is possible."""
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        sealed = vouched.seal(_PURPOSE, place.name, _digest(text))
        for path, content in ((place, text), (place.with_suffix(".seal"), sealed)):
            beside = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            beside.write_text(content, encoding="utf-8")
            os.replace(beside, path)
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
