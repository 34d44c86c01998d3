"""``qhw ptq``: a trained network becomes a QONNX file without training, and no board is needed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError
from qhw.pipeline.build_stages import check_expected, network_of, recipe_of, telling
from qhw.pipeline.data_choice import choose_data
from qhw.pipeline.options import BuildOptions
from qhw.pipeline.source import Source, find_source, is_quantised, require_training
from qhw.report.tables import Shown, Table

if TYPE_CHECKING:
    from torch import nn

    from qhw.data import Dataset
    from qhw.ptq.run import PtqResult
    from qhw.ptq.run import Shape as Like

NO_DATA = "none"
"""In place of a data set: samples are made from the network's batch norms."""

Tell = Callable[[float | None, str], None]


@dataclass(frozen=True, repr=False)
class QuantisedFile(Shown):
    """The QONNX file of a network that was quantised without training, and its figures."""

    path: Path
    result: PtqResult

    def to_json(self) -> dict[str, Any]:
        """Figures as JSON values, and the file."""
        return {"file": str(self.path), **self.result.to_json()}

    def tables(self) -> list[Table]:
        """The figures, and a row per layer."""
        return self.result.tables()


def quantise_file(
    options: BuildOptions, out: Path, *, shape: tuple[int, ...] | None = None, tell: Tell | None = None
) -> QuantisedFile:
    """Train a network in float unless it is trained, quantise it without training, and write its QONNX file.

    Args:
        options: those of a build; ``quantise`` is ``ptq``. ``data`` may be ``none``.
        out: the file; one that is there is replaced when the new one is whole.
        shape: of one sample, for a network of the user's own without data.
        tell: receives the progress, as (share of the phase or None, what is being done).

    Raises:
        InputError, UnsupportedError, ToolMissingError: something given cannot be used.
    """
    from qhw.export import export_qonnx
    from qhw.ptq.run import one_input, quantise
    from qhw.train import as_inputs

    require_training()
    tell = tell or (lambda fraction, text: None)
    options.quant_config()
    source = find_source(options.model)
    if source.kind == "qonnx":
        raise InputError(
            f"{source.given} is an ONNX file, whose numbers have their formats",
            allowed="a built-in model, or file.py:function",
            hint="give the network that it was made from, with --state",
        )
    if not out.parent.is_dir():
        raise InputError(f"The folder {out.parent} does not exist", hint="name another file with --out")
    data, like = _data_of(source, options, shape)
    samples = one_input(data) if like is None else _noise(like)
    module = network_of(source, options, samples, data)
    if is_quantised(module):
        raise InputError(f"{source.given} is quantised already", hint="give the plain model")
    model = _trained(source, options, module, None if like else data, samples, tell)
    given: Dataset | Like = data if like is None else like
    result = quantise(model, given, options.quant_config(), options.ptq_settings(), tell=tell)
    tell(None, f"writing {out.name}")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        beside = Path(folder) / "model.onnx"
        export_qonnx(result.model, beside, as_inputs(samples[:1]))
        os.replace(beside, out)
    return QuantisedFile(out, result)


def shape_of(text: str) -> tuple[int, ...]:
    """``1,28,28``; raises InputError for anything else."""
    try:
        shape = tuple(int(size) for size in text.split(","))
    except ValueError:
        shape = ()
    if not shape or any(size < 1 for size in shape):
        raise InputError(f"The shape {text!r} is none", allowed="positive sizes with commas, as in 1,28,28")
    return shape


def _data_of(source: Source, options: BuildOptions, shape: tuple[int, ...] | None) -> tuple[Any, Like | None]:
    """The data set (of a built-in network its own, for its shape), and what samples are like without any."""
    from qhw.models import model_entry
    from qhw.ptq.run import Shape as Like

    usual = model_entry(source.name).dataset if source.kind == "builtin" else None
    if options.data != NO_DATA:
        if shape is not None:
            raise InputError("A shape would change nothing: the data have theirs", hint="leave --shape out")
        given = options.data or usual
        if given is None:
            raise InputError(
                f"The model {source.given} has no data to calibrate with",
                hint="name a data set with --data, or --data none and --shape",
            )
        return choose_data(given, options.reading).dataset, None
    if not options.is_trained:
        raise InputError(
            f"The model {source.given} is to be quantised without data, and is not trained",
            hint="give its weights: --state weights.pt, or --trained",
        )
    if options.expect is not None:
        raise InputError("Without data no accuracy can be checked", hint="leave --expect out")
    if usual is not None:
        data = choose_data(usual).dataset
        return data, Like(data.inputs("train")[0].shape[1:], data.has_pixels)
    if shape is None:
        raise InputError(
            f"Without data it is not known what the model {source.given} is given",
            hint="give the shape of one sample, as in --shape 1,28,28 (and --input uint8 for pixels)",
        )
    return None, Like(shape, options.input == "uint8")


def _noise(like: Like) -> NDArray[Any]:
    """Two samples of that shape, for finding the shapes behind them."""
    random = np.random.default_rng(0)
    if like.pixels:
        return random.integers(0, 256, (2, *like.shape), dtype=np.uint8)
    return random.standard_normal((2, *like.shape)).astype(np.float32)


def _trained(
    source: Source,
    options: BuildOptions,
    module: nn.Module,
    data: Dataset | None,
    samples: NDArray[Any],
    tell: Tell,
) -> nn.Module:
    """The network trained in float, as far as it is not."""
    from qhw.tracing import trainable
    from qhw.train import as_inputs, train_float

    if data is None:
        return trainable(module, as_inputs(samples[:2])).eval()
    check_expected(options, module, data)
    recipe = recipe_of(source, options)
    model, _ = train_float(module, data, recipe, options.quant_config(), progress=telling(tell))
    return model
