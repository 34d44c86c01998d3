"""A metric of the user's own, ``file.py:function``: how it is called, recorded with a build, found again.

A build folder names the file and its digest, and holds none of its code. The file is run again only where
this user's own seal vouches for that record, and the file still has the digest.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhw.errors import InputError
from qhw.pipeline.stages import read_record
from qhw.pipeline.user_file import UserFunction

if TYPE_CHECKING:
    from qhw.tasks import Metric

logger = logging.getLogger(__name__)

_FLAGS = {"higher_is_better": True, "is_share": False}
"""What the function may say of itself, as its attributes, and what holds where it does not."""


def own_metric(function: UserFunction) -> Metric:
    """A metric of the user's: ``function(outputs, targets)``, NumPy arrays (N, ...), returns one number.

    More is better, unless the function has the attribute ``higher_is_better = False`` (torchmetrics' name
    for it); ``is_share = True`` has it written in percent.

    Raises:
        InputError: the file fails, has no such function, or an attribute is neither true nor false.
    """
    from qhw.tasks import Metric

    call = function.load()
    flags = {name: getattr(call, name, default) for name, default in _FLAGS.items()}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InputError(f"{function.given}.{name} is {value!r}", allowed="True or False")

    def score(outputs: Any, targets: Any) -> float:
        figure = call(outputs, targets)
        try:
            return float(figure)
        except (TypeError, ValueError):
            raise InputError(
                f"The metric {function.given} returned a {type(figure).__name__}", allowed="one number"
            ) from None

    return Metric(function.name, score, **flags)


def record_of(function: UserFunction | None) -> dict[str, str] | None:
    """What a build keeps of the user's metric: where it lies, its name and its digest."""
    if function is None:
        return None
    return {"file": str(function.path.resolve()), "function": function.name, "sha256": function.digest}


def recorded_metric(folder: Path, name: str) -> Metric | None:
    """The metric ``name`` that a build was judged by; None, with a warning, where its code may not be run.

    Args:
        folder: the build folder.

    Raises:
        InputError: the user's file fails.
    """
    record = read_record(folder, "vectors")
    stored = None if record is None else record.facts.get("own_metric")
    if record is None:
        why = f"{folder} was not built here by you, and no code is run because of it"
    elif stored is None:
        why = "it was given in Python"
    else:
        function = UserFunction(
            f"{stored['file']}:{name}", Path(stored["file"]), stored["function"], "metric"
        )
        try:
            is_unchanged = function.digest == stored["sha256"]
        except InputError as error:
            why = error.message
        else:
            if is_unchanged:
                return own_metric(function)
            why = f"{function.path} has changed since the build"
    logger.warning("The metric %r is left out: %s\nTo do: name it with --metric file.py:function", name, why)
    return None
