"""Models as a user gives them: a built-in name, a QONNX file, ``file.py:function``, or a module."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qhw.errors import InputError, ToolMissingError, closest
from qhw.outside import sha256
from qhw.pipeline.user_file import UserFunction, user_function

if TYPE_CHECKING:
    from torch import nn

    from qhw.data import Dataset


LARGEST_MODEL = 1 << 30
"""Bytes of a file with a model at most."""


@dataclass(frozen=True)
class Source:
    """A model as it was given, before anything of it is loaded.

    Args:
        kind: where the model comes from.
        given: the model's name as the user wrote it.
        name: a short name, fit for a folder.
        digest: SHA-256 of what decides the model: the file; the weights and the structure of a module.
        path: the file of a ``qonnx`` or ``function`` source.
        function: the function of a ``function`` source.
        module: the module itself.
    """

    kind: Literal["builtin", "qonnx", "function", "module"]
    given: str
    name: str
    digest: str
    path: Path | None = None
    function: UserFunction | None = None
    module: Any = None

    @property
    def is_trained_here(self) -> bool:
        """Whether the build has to train it: not a QONNX file, nor a module that is quantised already."""
        return self.kind != "qonnx" and not (self.kind == "module" and is_quantised(self.module))


def find_source(given: Any) -> Source:
    """Tell what kind of model was given.

    Raises:
        InputError: there is no such built-in model, file, or function.
    """
    if not isinstance(given, str | Path):
        return _module_source(given)
    text = str(given)
    if (function := user_function(text, "model")) is not None:
        return _function_source(function)
    if text.endswith((".onnx", ".qonnx")) or _is_there(text):
        return _file_source(text)
    return _builtin_source(text)


def load_module(source: Source, data: Dataset | None, seed: int) -> nn.Module:
    """The plain (or already quantised) module of a source that is not a QONNX file.

    Raises:
        ToolMissingError: torch is not installed.
        InputError: the user's function fails, or does not return a module.
    """
    require_training()
    import torch

    if source.kind == "module":
        module: nn.Module = source.module
        return module
    if source.kind == "builtin":
        from qhw.models import build_model

        assert data is not None
        return build_model(source.name, data, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _call(source)


def require_training() -> None:
    """Refuse, with what to install, where torch or Brevitas is missing.

    Raises:
        ToolMissingError: one of them cannot be imported.
    """
    try:
        import brevitas  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ToolMissingError(
            f"Training and exporting a module needs torch and brevitas, but {error.name} is not installed",
            hint="pip install 'qhw[train]', or give a QONNX file",
        ) from None


def is_quantised(module: Any) -> bool:
    """Whether a module holds quantisers already (Brevitas's or qhw's own)."""
    return any(
        type(part).__module__.startswith(("brevitas.", "qhw.quantizers.")) for part in module.modules()
    )


def _builtin_source(name: str) -> Source:
    from qhw.models import model_names

    if name not in model_names():
        raise InputError(
            f"Unknown model {name!r}",
            allowed=f"{', '.join(model_names())}, a QONNX file, or file.py:function",
            hint=closest(name, model_names()),
        )
    return Source("builtin", name, name, hashlib.sha256(name.encode()).hexdigest())


def _file_source(text: str) -> Source:
    path = Path(text)
    if not path.exists():
        raise InputError(f"The model file {text} does not exist", hint="check the path")
    return Source("qonnx", text, slug(path.stem), sha256(path, "model file", LARGEST_MODEL), path)


def _is_there(text: str) -> bool:
    """Whether a text is the path of something that is no folder."""
    return os.path.lexists(text) and not os.path.isdir(text)


def _function_source(function: UserFunction) -> Source:
    name = slug(f"{function.path.stem}-{function.name}")
    return Source("function", function.given, name, function.digest, function.path, function)


def _module_source(module: Any) -> Source:
    require_training()
    from torch import nn

    if not isinstance(module, nn.Module):
        raise InputError(
            f"The model is of type {type(module).__name__}",
            allowed="a built-in model's name, a path, or a torch.nn.Module",
        )
    from qhw.checkpoints import weights_hash

    name = type(module).__name__
    # A converted model is an fx.GraphModule: its code says what repr leaves out (the forward pass).
    structure = f"{module}\0{getattr(module, 'code', '')}\0{weights_hash(module)}"
    return Source("module", name, slug(name), hashlib.sha256(structure.encode()).hexdigest(), module=module)


def _call(source: Source) -> nn.Module:
    """Run the user's own file and call the function in it."""
    from torch import nn

    assert source.function is not None
    module = source.function.call()
    if not isinstance(module, nn.Module):
        raise InputError(
            f"{source.given} returned a {type(module).__name__}", allowed="a torch.nn.Module (or a subclass)"
        )
    return module


def slug(text: str) -> str:
    """A text as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") or "model"
