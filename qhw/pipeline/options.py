"""The options of a build: on the command line, in a TOML file, or from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhw.errors import InputError, closest
from qhw.outside import shown
from qhw.outside.text import read_toml
from qhw.pipeline.designs import Wanted
from qhw.pipeline.input_type import check_type
from qhw.preprocessing import preprocessing_of
from qhw.ptq.settings import QUANTISE, PtqSettings

if TYPE_CHECKING:
    from qhw.data import Reading
    from qhw.quant_config import QuantConfig


PTQ_OPTIONS = ("methods", "calibration", "samples")
"""Options of quantisation without training."""


@dataclass(frozen=True)
class BuildOptions:
    """Everything that a build depends on, beside the files it names.

    Args:
        model: a built-in model, a QONNX file, or ``file.py:function``.
        board: a board's name, or a TOML file.
        flow: the kind of project to generate, e.g. ``hls4ml``.
        data: a data set's name or path; None: the built-in model's own.
        task, metric, target, layout: what the data do not say themselves (:class:`qhw.data.Reading`).
        preprocess: what training did to samples before the network (:class:`qhw.Preprocess`), as a text; of
            several inputs by name (:func:`qhw.preprocessing.preprocessing_of`).
        state: a file with the network's trained weights (``torch.save(net.state_dict(), …)``).
        trained: the network comes with its weights: it is not trained anew in float.
        expect: the figure that the trained network, or the quantised model, had; None: unknown.
        weights, activations: formats, as text; None: what ``quant`` says, or 8 bits.
        quant: any setting of :class:`qhw.QuantConfig`, ``overrides`` by layer too.
        training: any setting of :class:`qhw.train.TrainConfig`, in place of the model's own recipe.
        out: the build folder; None: ``qhw-build/MODEL-BOARD-FLOW``.
        flow_options: the flow's own options, by name (hls4ml: ``io_type``).
        clock_mhz: None: the board's usual clock.
        fps: images per second that are enough: the smallest design; None: the fastest that fits.
        budget: share of each of the board's resources that may be used; None: the usual one.
        multipliers: integer products in LUTs, DSP slices, or as each product fits (``auto``).
        input: the integer type of the model's input, e.g. ``uint8``, where its file does not state it.
        float_epochs, quantised_epochs: None: as in ``training``, or else the model's own recipe.
        quantise: how the float network becomes a quantised one: by ``training``, or by ``ptq``, without it.
        methods, calibration, samples: of ``ptq`` (:class:`qhw.ptq.settings.PtqSettings`); None: as usual.
        seed: the random seed of weights and training.
        vectors: samples that go through the C-simulation; None: as many as take well under a minute.
        synth: run the vendor's synthesis too.
    """

    model: str = "digits-cnn"
    board: str = ""
    flow: str = "hls4ml"
    data: str | None = None
    task: str = ""
    metric: str = ""
    target: Sequence[str] = ()
    layout: str = ""
    preprocess: str | Mapping[str, Any] | None = None
    state: Path | None = None
    trained: bool = False
    expect: float | None = None
    weights: str | None = None
    activations: str | None = None
    quant: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    out: Path | None = None
    flow_options: Mapping[str, Any] = field(default_factory=dict)
    clock_mhz: float | None = None
    fps: float | None = None
    budget: float | None = None
    multipliers: str = "auto"
    input: str | None = None
    float_epochs: int | None = None
    quantised_epochs: int | None = None
    quantise: str = "training"
    methods: str | Sequence[str] | None = None
    calibration: str | None = None
    samples: int | None = None
    seed: int = 0
    vectors: int | None = None
    synth: bool = False

    def __post_init__(self) -> None:
        preprocessing_of(self.preprocess)
        if self.clock_mhz is not None and not 1 <= self.clock_mhz <= 2000:
            raise InputError(f"the clock is {self.clock_mhz} MHz", allowed="1 to 2000 MHz")
        for name in ("float_epochs", "quantised_epochs", "seed"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise InputError(f"{name} is {value}", allowed="integers from 0")
        if self.vectors is not None and self.vectors < 1:
            raise InputError(f"vectors is {self.vectors}", allowed="integers from 1")
        if self.input is not None:
            check_type(self.input)
        self._check_quantise()

    def _check_quantise(self) -> None:
        if self.quantise not in QUANTISE:
            raise InputError(f"quantise is {self.quantise!r}", allowed=", ".join(QUANTISE))
        self.ptq_settings()
        given, other = (
            (PTQ_OPTIONS, "ptq") if self.is_trained_quantised else (("quantised_epochs",), "training")
        )
        if idle := [name for name in given if getattr(self, name) is not None]:
            raise InputError(
                f"{', '.join(idle)} would change nothing where quantise is {self.quantise!r}",
                hint=f"leave them out, or give --quantise {other}",
            )

    @property
    def is_trained_quantised(self) -> bool:
        """Whether the network is trained with quantizers in place."""
        return self.quantise == "training"

    def ptq_settings(self) -> PtqSettings:
        """How the network is quantised without training; raises InputError for what is not known."""
        given = {name: getattr(self, name) for name in PTQ_OPTIONS if getattr(self, name) is not None}
        return PtqSettings(seed=self.seed, **given)

    @property
    def is_trained(self) -> bool:
        """Whether the network comes with trained weights."""
        return self.trained or self.state is not None

    @property
    def reading(self) -> Reading:
        """What the user says of the data; raises InputError for a layout that there is not."""
        from qhw.data import Reading

        return Reading(self.task, self.metric, tuple(self.target), self.layout)  # type: ignore[arg-type]

    @property
    def wanted(self) -> Wanted:
        """The design that was asked for; raises InputError for a rate, budget or choice out of range."""
        return Wanted(self.fps, self.budget, self.multipliers)

    def quant_config(self) -> QuantConfig:
        """The formats of every layer.

        Raises:
            InputError: a format or a setting is not understood.
        """
        from qhw.quant_config import QuantConfig

        given = {"weights": self.weights, "activations": self.activations}
        return QuantConfig.from_mapping(
            dict(self.quant) | {name: value for name, value in given.items() if value is not None}
        )

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values."""
        paths = {"out": self.out, "state": self.state}
        return asdict(self) | {name: None if path is None else str(path) for name, path in paths.items()}


def designed(design: str, given: Mapping[str, Any]) -> BuildOptions:
    """The options of a point of a front, with a few of the user's in their place.

    Args:
        design: ``FRONT.json#3``.
        given: options that are not None stand in place of the front's.

    Raises:
        InputError: there is no such point, or what is given would make another design of it.
    """
    from qhw.search.front import build_options

    said = {name: value for name, value in given.items() if value is not None}
    if fixed := sorted(set(said) - _BESIDE_DESIGN):
        raise InputError(
            f"--design {design} is a whole design: {', '.join(fixed)} cannot be given beside it",
            allowed=", ".join(sorted(_BESIDE_DESIGN)),
            hint="leave it out, or build the point's model file on its own",
        )
    return merge(None, build_options(design) | said)


_BESIDE_DESIGN = {"out", "vectors", "synth", "data", "task", "metric", "target", "layout"}
"""Options that leave a design as it is."""

_LARGEST_FILE = 1 << 18

_KINDS: dict[str, tuple[type, ...]] = {
    "clock_mhz": (int, float),
    "fps": (int, float),
    "budget": (int, float, str),
    "float_epochs": (int,),
    "quantised_epochs": (int,),
    "methods": (str, list),
    "samples": (int,),
    "seed": (int,),
    "vectors": (int,),
    "synth": (bool,),
    "target": (str, list),
    "preprocess": (str, dict),
    "trained": (bool,),
    "expect": (int, float, str),
    "layer": (str, list),
    "quant": (dict,),
    "training": (dict,),
}
"""The TOML types of the options that are not text."""


TRAINING_OPTIONS = ("device", "precision")
"""Settings of ``training`` that have an option of their own."""


def merge(config: Path | None, given: Mapping[str, Any]) -> BuildOptions:
    """The options of a TOML file, with those given on the command line (not None) in their place.

    ``format`` stands for ``weights`` and ``activations``, which win over it where both are given, be it in
    ``quant``; one that saves the multiplier (``khot<8,2>``) for ``weights`` and the ``scales`` of ``quant``.
    ``layer`` are overrides of ``quant``: ``PATTERN:FORMAT``, or ``PATTERN:SETTING=FORMAT``, one each;
    ``scaling`` is that of ``quant``, ``device`` and ``precision`` are those of ``training``.

    Raises:
        InputError: the file cannot be read, or an option in it is unknown or of the wrong type.
    """
    from qhw.flows.base import load_flow
    from qhw.quant_config import QuantConfig

    from_file = read_config(config) if config is not None else {}
    from_user = {name: value for name, value in given.items() if value is not None}
    layers = [*_texts(from_file.pop("layer", ())), *from_user.pop("layer", ())]
    scalings = [given.pop("scaling", None) for given in (from_user, from_file)]
    scaling = scalings[0] or scalings[1]
    merged = _split_format(from_file) | _split_format(from_user)
    where = {name: merged.pop(name) for name in TRAINING_OPTIONS if name in merged}
    if where:
        merged["training"] = merged.get("training", {}) | where
    merged["target"] = _texts(merged.get("target", ()))
    if scales := merged.pop("scales", None):
        merged["quant"] = {"scales": scales, **merged.get("quant", {})}
    if scaling:
        merged["quant"] = merged.get("quant", {}) | {"scaling": scaling}
    if layers:
        quant = merged.get("quant", {})
        QuantConfig.from_mapping(quant)  # refuses what could not be added to
        merged["quant"] = quant | {"overrides": _with_layers(quant.get("overrides", {}), layers)}
    for name in ("out", "state"):
        if isinstance(merged.get(name), str):
            merged[name] = Path(merged[name])
    for name in ("budget", "expect"):
        if isinstance(merged.get(name), str):
            merged[name] = share_of(merged[name], name)
    own = {name: merged.pop(name) for name in flow_option_names() if name in merged}
    options = replace(BuildOptions(), **merged, flow_options=own)
    load_flow(options.flow, **own)  # refuses what is none of its options
    return options


def _texts(given: str | Sequence[str]) -> tuple[str, ...]:
    """One text or several; raises InputError for anything else."""
    texts = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{list(texts)!r} are not all texts")
    return texts


def flow_option_names() -> list[str]:
    """The options that flows have of their own."""
    from qhw.flows.base import every_option

    return list(every_option())


def share_of(text: str, name: str = "budget") -> float:
    """``70%`` or ``0.7``; raises InputError for anything else."""
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise InputError(f"The {name} {text!r} is not a share", allowed="70% or 0.7") from None


def _with_layers(overrides: Mapping[str, Any], layers: Sequence[str]) -> dict[str, Any]:
    """Overrides by pattern, with those of the command line behind them: they win."""
    from qhw.quant_config import formats_named

    result = {pattern: dict(settings) for pattern, settings in overrides.items()}
    for text in layers:
        pattern, colon, given = text.partition(":")
        setting, equals, format = given.partition("=")
        if not (pattern and colon and given):
            raise InputError(
                f"--layer {text!r} is not a pattern with a format",
                allowed="PATTERN:FORMAT or PATTERN:SETTING=FORMAT, as in 'classify:weights=fixed<4>'",
            )
        settings = result.pop(pattern, {}) | ({setting: format} if equals else formats_named(given))
        result[pattern] = settings
    return result


def read_config(path: Path) -> dict[str, Any]:
    """The options in a TOML file, checked by name and type."""
    config = read_toml(path, "config file", _LARGEST_FILE)
    for name, value in config.items():
        check_option(path, name, value)
    return config


def check_option(path: Path, name: str, value: Any, also: Sequence[str] = ()) -> None:
    """Refuse an option of a file that there is not, or of the wrong type.

    Args:
        also: further names that the file may hold.
    """
    of_flows = flow_option_names()
    known = {option.name for option in fields(BuildOptions)} - {"flow_options"} | {
        "format",
        "scaling",
        "layer",
        *TRAINING_OPTIONS,
        *of_flows,
    }
    if name not in known:
        raise InputError(f"{path}: unknown option {shown(name)}", hint=closest(name, known.union(also)))
    if name not in of_flows:  # the flow checks its own
        _check_kind(path, name, value)


def _split_format(options: Mapping[str, Any]) -> dict[str, Any]:
    from qhw.quant_config import formats_named

    named = formats_named(options["format"]) if "format" in options else {}
    named = {name: text for name, text in named.items() if name not in options.get("quant", {})}
    return named | {name: value for name, value in options.items() if name != "format"}


def _check_kind(path: Path, name: str, value: Any) -> None:
    kinds = _KINDS.get(name, (str,))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        allowed = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{path}: {name} is {shown(value)}, of type {type(value).__name__}", allowed=allowed)
