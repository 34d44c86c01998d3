"""Functions in a user's own Python file, ``file.py:function``: the file is the user's code, and is run."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from qhw.errors import InputError, QhwError, closest
from qhw.outside import read_bytes

LARGEST_SOURCE = 1 << 24
"""Bytes of a user's Python file at most."""


@dataclass(frozen=True)
class UserFunction:
    """A function in a file, not loaded yet.

    Args:
        given: as the user wrote it, ``file.py:function``.
        role: what it is for, in messages ("model", "data", "metric").
    """

    given: str
    path: Path
    name: str
    role: str

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the name and the file, as it is when this is asked first."""
        return self._digest_of(self._source())

    def check_mentioned(self) -> None:
        """Refuse a name that stands nowhere in the file, which is not run: a typo is told before all else."""
        text = self._source().decode(errors="replace")
        if re.search(rf"\b{self.name}\b", text) or "import *" in text:
            return
        own = re.findall(r"^(?:async def|def|class) (\w+)", text, re.MULTILINE)
        raise self._absent(own)

    def _absent(self, own: list[str]) -> InputError:
        hint = closest(self.name, own) if own else None
        return InputError(f"{self.path} has no function {self.name!r}", hint=hint)

    def load(self) -> Callable[..., Any]:
        """The function itself; the file is run. What the function raises becomes an InputError.

        Raises:
            InputError: the file fails, has no such function, or has another :attr:`digest` by now.
        """
        source = self._source()
        if self._digest_of(source) != self.digest:
            raise InputError(f"{self.path} was changed meanwhile", hint="run the same command again")
        file = ModuleType(f"qhw_user_{self.digest[:16]}")
        file.__file__ = str(self.path)
        # Dataclasses and pickle look a class's module up by its name.
        sys.modules[file.__name__] = file
        with self._telling():
            # The very bytes of the digest are run: importlib would take a cached file for one of the same
            # size and second.
            exec(compile(source, str(self.path), "exec"), vars(file))
        function: Callable[..., Any] | None = getattr(file, self.name, None)
        if not callable(function):
            own = [
                name
                for name, value in vars(file).items()
                if callable(value) and getattr(value, "__module__", "") == file.__name__
            ]
            raise self._absent(own)

        @functools.wraps(function)
        def telling(*arguments: Any) -> Any:
            with self._telling():
                return function(*arguments)

        return telling

    def call(self, *arguments: Any) -> Any:
        """What the function returns.

        Raises:
            InputError: the file or the function fails.
        """
        return self.load()(*arguments)

    def _source(self) -> bytes:
        return read_bytes(self.path, f"Python file of the {self.role}", LARGEST_SOURCE)

    def _digest_of(self, source: bytes) -> str:
        return hashlib.sha256(f"{self.name}\0{hashlib.sha256(source).hexdigest()}".encode()).hexdigest()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """The user's code, which finds the files beside it; whatever it raises becomes one message."""
        folder = str(self.path.resolve().parent)
        sys.path.insert(0, folder)
        try:
            yield
        except QhwError:
            raise
        except (Exception, SystemExit) as error:
            raise InputError(
                f"The {self.role} {self.given} raised {type(error).__name__}: {error}"
            ) from error
        finally:
            sys.path.remove(folder)


def user_function(text: str, role: str) -> UserFunction | None:
    """What ``file.py:function`` names; None for any other text.

    Raises:
        InputError: the file does not exist, no function is named, or one that the file does not even mention.
    """
    path, _, function = text.rpartition(":")
    if text.endswith(".py"):
        raise InputError(
            f"{text} is a Python file", hint=f"name the function that makes the {role}: {text}:NAME"
        )
    if not path.endswith(".py"):
        return None
    if not Path(path).is_file():
        raise InputError(f"The file {path} of the {role} {text} does not exist", hint="check the path")
    if not function.isidentifier():
        raise InputError(f"{function!r} in {text} is not the name of a function", allowed="file.py:function")
    found = UserFunction(text, Path(path), function, role)
    found.check_mentioned()
    return found
