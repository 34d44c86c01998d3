"""Functions in a user's own Python file, ``file.py:function``: the file is the user's code, and is run."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qhw.errors import InputError, QhwError, closest
from qhw.pipeline.stages import file_digest


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

    @property
    def digest(self) -> str:
        """SHA-256 of the name and the file."""
        return hashlib.sha256(f"{self.name}\0{file_digest(self.path)}".encode()).hexdigest()

    def load(self) -> Callable[..., Any]:
        """The function itself; the file is run.

        Raises:
            InputError: the file fails, or has no such function.
        """
        spec = importlib.util.spec_from_file_location(f"qhw_user_{self.digest[:16]}", self.path)
        assert spec is not None
        assert spec.loader is not None
        file = importlib.util.module_from_spec(spec)
        with self._telling():
            spec.loader.exec_module(file)
        function: Callable[..., Any] | None = getattr(file, self.name, None)
        if not callable(function):
            own = [
                name
                for name, value in vars(file).items()
                if callable(value) and getattr(value, "__module__", "") == file.__name__
            ]
            raise InputError(
                f"{self.path} has no function {self.name!r}", hint=closest(self.name, own) if own else None
            )
        return function

    def call(self, *arguments: Any) -> Any:
        """What the function returns.

        Raises:
            InputError: the file or the function fails.
        """
        function = self.load()
        with self._telling():
            return function(*arguments)

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
        InputError: the file does not exist, or no function is named.
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
    return UserFunction(text, Path(path), function, role)
