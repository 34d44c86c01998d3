"""A whole search: train in float, choose points, export and price those that none beats, write the front.

====================  =======================================================================
train                 ``training/``: the float network; a part of the training split is held out
search                points are proposed, evaluated and kept in the store
front                 ``points/``: the models of the points that none beats, lowered and priced
====================  =======================================================================
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhw.boards import Board, load_board
from qhw.errors import CheckFailedError, InputError, ToolMissingError, UnsupportedError
from qhw.outside import sha256
from qhw.pipeline.build_stages import (
    check_expected,
    network_of,
    recipe_of,
    score,
    source_digest,
    telling,
)
from qhw.pipeline.data_choice import DataChoice
from qhw.pipeline.designs import Wanted, best_design
from qhw.pipeline.reporting import search_report
from qhw.pipeline.run import data_of
from qhw.pipeline.source import Source, find_source, is_quantised, require_training
from qhw.pipeline.stages import (
    Observer,
    Outcome,
    Stage,
    Workspace,
    check_ours,
    file_digest,
    json_digest,
    opened,
    run_stages,
    telling_full_disk,
)
from qhw.pipeline.state import LARGEST_STATE
from qhw.report.tables import size_text
from qhw.search import front as fronts
from qhw.search.evaluators import evaluator_class, make_evaluator
from qhw.search.evaluators.base import Evaluation, Evaluator, Held, interval
from qhw.search.evaluators.second_order import SecondOrder
from qhw.search.options import SearchOptions
from qhw.search.pareto import front as pareto_front
from qhw.search.pricing import OBJECTIVES, Pricer, pricer_for
from qhw.search.result import SearchResult, tried_of
from qhw.search.space import Point, Space
from qhw.search.strategies import Problem, Strategy, Trial, strategy_class

if TYPE_CHECKING:
    from torch import fx, nn

    from qhw.data import Dataset
    from qhw.flows.base import Flow
    from qhw.graph.ir import ExactGraph
    from qhw.search.network import Variants
    from qhw.search.store import Store
    from qhw.search.strategies.training import TrainingStrategy
    from qhw.tasks import Judge
    from qhw.train import TrainConfig

DEFAULT_FOLDER = Path("qhw-search")
STORE_FILE = "search.db"

HELD_SHARE = 0.2
"""The part of the training split that points are compared by, at most ``HELD_SAMPLES`` of it."""

HELD_SAMPLES = 2000

MOST_OUTPUTS = 256
"""Outputs of a network, up to which a second-order model is made: it takes a backward pass for each."""

TOLD = 20
"""How often a search tells its front at least."""

TRAINED = "trained"
"""The folder of the weights of points that were trained."""

Facts = dict[str, Any]

Watch = Callable[[Sequence[Trial]], None]

Chosen = tuple[Point, str | None]
"""A point of a front, and the file of its trained weights, if it has any."""


@dataclass(frozen=True)
class SearchPlan:
    """A search, with every name in its options looked up."""

    options: SearchOptions
    source: Source
    board: Board
    flow: Flow
    data: DataChoice
    folder: Path

    @property
    def store(self) -> str:
        """Where the record is."""
        return self.options.store or str(self.folder / STORE_FILE)


def search(
    options: SearchOptions,
    *,
    model: Any = None,
    data: Any = None,
    observer: Observer | None = None,
    watch: Watch | None = None,
) -> SearchResult:
    """Search the formats of a network, as :func:`qhw.search` describes.

    Args:
        model, data: objects in place of the options' names.
        observer: receives the progress.
        watch: called with all trials after each.

    Raises:
        InputError, UnsupportedError, ToolMissingError: something given cannot be used.
        CheckFailedError: no point keeps to the budget and the rate.
    """
    plan = make_plan(options, model, data)
    outcomes: list[Outcome] = []
    with telling_full_disk(plan.folder), opened(plan.folder):
        facts = run_stages(plan.folder, stages(plan, watch), outcomes, observer)
        seconds = next(outcome.seconds for outcome in outcomes if outcome.name == "search")
        document = _front(plan, facts, seconds)
        fronts.write(document, plan.folder)
        trials = trials_of(facts["search"])
        search_report(plan.folder, document, tried_of(document, trials), outcomes, observer)
    return SearchResult(plan.folder, document, tuple(trials))


def make_plan(options: SearchOptions, model: Any = None, data: Any = None) -> SearchPlan:
    """Look up everything that the options name, and refuse now what would fail later.

    Raises:
        InputError: a name is unknown, or a file missing.
        ToolMissingError: torch, Brevitas or Optuna is not installed.
        UnsupportedError: the flow cannot build for the board.
    """
    from qhw.flows.base import load_flow

    build = options.build
    source = find_source(build.model if model is None else model)
    if not source.is_trained_here:
        raise InputError(
            f"{source.given} is quantised already: there is no format left to choose",
            hint="give the float network: a built-in model, or file.py:function with --state",
        )
    if not build.board:
        raise InputError("No board is given", hint="name one with --board; 'qhw boards' lists them")
    board = load_board(build.board)
    if build.clock_mhz is not None:
        board = board.at_clock(build.clock_mhz)
    strategy_class(options.strategy)
    evaluator_class(options.evaluator)
    require_training()
    _require_search()
    options.check_methods()
    choice = data_of(source, build.data if data is None else data, build.reading)
    if choice is None:
        raise InputError(f"The model {source.given} has no data", hint="name a data set with --data")
    recipe_of(source, build)
    flow = load_flow(build.flow, **build.flow_options)
    flow.check_as_given()
    if flow.not_searched:
        raise InputError(flow.not_searched, hint="build a point of the front with that option")
    flow.check_board(board)
    options = replace(
        options,
        space=options.space.carried(flow.carries, flow.name),
        against=_objective(options.against, board),
    )
    folder = build.out or DEFAULT_FOLDER / f"{source.name}-{board.name}-{build.flow}"
    check_ours(folder)
    return SearchPlan(options, source, board, flow, choice, folder)


def _objective(against: str, board: Board) -> str:
    """What is minimised: as asked for, or what is usual for the kind of board."""
    known = OBJECTIVES[board.kind]
    if against and against not in known:
        raise InputError(
            f"--against {against!r} is nothing that designs for {board.name}, a {board.kind}, are priced by",
            allowed=", ".join(known),
        )
    return against or known[0]


def _require_search() -> None:
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ToolMissingError(
            f"A search needs {error.name}, which is not installed", hint="pip install 'qhw[search]'"
        ) from None


def stages(plan: SearchPlan, watch: Watch | None = None) -> list[Stage]:
    """The stages of a search, each with what it depends on."""
    options, build = plan.options, plan.options.build
    model = {"qhw": source_digest(), "model": plan.source.digest, "data": plan.data.identity}
    handed = {
        "state": None if build.state is None else sha256(build.state, "state", LARGEST_STATE),
        "trained": build.trained,
        "preprocess": repr(build.preprocess),
        "expect": build.expect,
        "seed": build.seed,
        "recipe": [build.float_epochs, dict(build.training)],
    }
    priced = {
        "board": [plan.board.name, plan.board.part, plan.board.clock_mhz, dict(plan.board.capacity)],
        "flow": [build.flow, plan.flow.chosen],
        "wanted": build.wanted.to_json(),
        "quant": repr(build.quant_config()),
    }
    chosen = {
        **options.identity(),
        "strategy": options.strategy,
        "evaluations": options.evaluations,
        "points": options.points,
    }
    prepare = Preparation(plan)
    return [
        Stage("train", partial(_train, plan), {**model, **handed}),
        Stage("search", partial(_search, prepare, watch), {**model, **priced, **chosen}, ("train",)),
        Stage("front", partial(_points, prepare), {**model, **priced, **chosen}, ("train", "search")),
    ]


# --- the float network ------------------------------------------------------------------------------


def split(data: Dataset) -> tuple[Dataset, Held]:
    """The data to train on, and the samples held out of it: every so many of a class, in stored order.

    Raises:
        UnsupportedError: the data have several inputs.
        InputError: there are too few samples.
    """
    from qhw.data.base import holdout

    inputs = data.inputs("train")
    if len(inputs) > 1:
        raise UnsupportedError(
            f"data set {data.name} has {len(inputs)} inputs",
            allowed="one, for a search",
            hint="build the network in formats of your own choice: qhw build --layer …",
        )
    samples = inputs[0]
    every = max(math.ceil(1 / HELD_SHARE), math.ceil(len(samples) / HELD_SAMPLES))
    labels = np.zeros(len(samples), dtype=np.int64)
    if data.train_y is not None and data.train_y.ndim == 1 and data.train_y.dtype.kind in "iu":
        labels = data.train_y.astype(np.int64)
    kept, held = holdout(labels, every)
    if not len(kept) or not len(held):
        raise InputError(f"data set {data.name} has {len(samples)} training samples", allowed="10 or more")
    targets = None if data.train_y is None else data.train_y[kept]
    judge = replace(data.judge, targets=data.train_targets[held])
    return replace(data, train_x=samples[kept], train_y=targets), Held(samples[held], judge)


def _network(plan: SearchPlan, part: Dataset) -> nn.Module:
    """The float network with the weights and the preprocessing that were handed over."""
    module = network_of(plan.source, plan.options.build, part.train_x, part)
    if is_quantised(module):  # a function's result: what kind of model it gives is not known without it
        raise InputError(
            f"{plan.source.given} is quantised already: there is no format left to choose",
            hint="give the float network",
        )
    return module


def _train(plan: SearchPlan, work: Workspace) -> Facts:
    import torch

    from qhw.train import predict, train_float

    build, data = plan.options.build, plan.data.dataset
    part, held = split(data)
    module = _network(plan, part)
    told = check_expected(build, module, part)
    recipe = recipe_of(plan.source, build)
    model, test = train_float(
        module, part, recipe, build.quant_config(), checkpoints=work.partial, progress=telling(work.progress)
    )
    (work.scratch / "training").mkdir()
    torch.save(model.state_dict(), work.scratch / "training" / "float.pt")
    on_held = held.judge.score(predict(model, held.samples))
    return {
        "test": test,
        "held_out": on_held,
        "samples": len(held.samples),
        "summary": f"float {data.figure.name} {data.figure.written(on_held)} on {len(held.samples)} samples "
        f"held out of the training split{told}",
    }


@dataclass(frozen=True)
class Prepared:
    """What points are made, judged and priced with."""

    variants: Variants
    held: Held
    training: tuple[Dataset, TrainConfig]
    evaluator: Evaluator
    graphs: Sequence[ExactGraph]

    @property
    def space(self) -> Space:
        """The formats."""
        return self.variants.space


class Preparation:
    """Makes :class:`Prepared` once, for whichever stage comes first."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan = plan
        self._made: Prepared | None = None

    def __call__(self, work: Workspace) -> Prepared:
        """The trained network in all formats of the space, and what judges it."""
        if self._made is None:
            self._made = _prepared(self.plan, work.build, work.progress)
        return self._made


def _prepared(plan: SearchPlan, folder: Path, tell: Callable[[float | None, str], None]) -> Prepared:
    import torch

    from qhw.export import to_onnx
    from qhw.graph.lower import lower
    from qhw.outside.weights import read_weights
    from qhw.search.network import CALIBRATION, Variants, sites_of
    from qhw.tracing import trainable
    from qhw.train import as_inputs, quant_of

    options = plan.options
    part, held = split(plan.data.dataset)
    samples = as_inputs(part.train_x[:CALIBRATION])[0]
    given = _network(plan, part)
    module = trainable(given, [samples[:2]]).eval()
    weights = folder / "training" / "float.pt"
    module.load_state_dict(read_weights(weights, "trained weights", LARGEST_STATE))
    base = quant_of(options.build.quant_config(), part, given)
    with torch.random.fork_rng(devices=[]):
        space = options.space.space(sites_of(module, base, samples[:2]), base)
        tell(None, f"{len(space.variables)} variables, {size_text(space.size)} points")
        variants = Variants(module, space, samples)
    graphs = [lower(to_onnx(variant)) for variant in variants.modules]
    training = (part, recipe_of(plan.source, options.build))
    evaluator = make_evaluator(options.evaluator, variants, held, training, options.quantised_by)
    return Prepared(variants, held, training, evaluator, graphs)


# --- the search -------------------------------------------------------------------------------------


def wanted_of(plan: SearchPlan, prepared: Prepared) -> tuple[Wanted, str]:
    """The requirements that every point is priced at, and where the rate is from.

    Circuits are compared at one rate, unless it is the rate itself that is minimised: without ``--fps`` that
    of the widest formats of the space that fit the board. A program is not folded to a rate.
    """
    wanted = plan.options.build.wanted
    if wanted.fps is not None:
        return wanted, "as asked for"
    if plan.options.against == "interval" or plan.board.kind == "microcontroller":
        return wanted, "none: the fastest that fits"
    order = sorted(
        range(len(prepared.graphs)), key=lambda k: -_bits(prepared.space, prepared.variants.points[k])
    )
    for variant in order:
        with contextlib.suppress(CheckFailedError):
            design = best_design(prepared.graphs[variant], plan.board, plan.flow, wanted)
            from qhw.cost import estimate

            fps = estimate(design).throughput_fps
            formats = prepared.space.formats(prepared.variants.points[variant])
            return replace(wanted, fps=fps), f"the fastest of {', '.join(dict.fromkeys(formats.values()))}"
    raise CheckFailedError(
        f"No point of the space fits {plan.board.name} at any rate",
        hint="allow fewer bits, a larger board, or a larger --budget",
    )


def _check_memory(plan: SearchPlan, prepared: Prepared) -> None:
    """Refuse a board whose memory is too small for every variant: prices are sums, which memory is not.

    Raises:
        CheckFailedError: the narrowest variant does not fit; by how much.
    """
    wanted = replace(plan.options.build.wanted, fps=None)
    refused: list[CheckFailedError] = []
    for variant in _narrowest_first(prepared):
        try:
            best_design(prepared.graphs[variant], plan.board, plan.flow, wanted)
        except CheckFailedError as error:
            refused.append(error)
        else:
            return
    raise refused[0]


def _narrowest_first(prepared: Prepared) -> list[int]:
    """The variants by the bits of their formats."""
    points = prepared.variants.points
    return sorted(range(len(prepared.graphs)), key=lambda k: _bits(prepared.space, points[k]))


def _bits(space: Space, point: Point) -> int:
    from qhw.formats import parse_format

    return sum(parse_format(text).width for text in space.formats(point).values())


def _search(prepare: Preparation, watch: Watch | None, work: Workspace) -> Facts:
    plan, prepared = prepare.plan, prepare(work)
    options = plan.options
    wanted, source = wanted_of(plan, prepared)
    pricer = _pricer(plan, prepared, wanted)
    _check_some_fit(plan, prepared.space, pricer)
    if plan.board.kind == "microcontroller":
        _check_memory(plan, prepared)
    from qhw.search.strategies.training import TrainingStrategy

    start = time.perf_counter()
    kind: Any = strategy_class(options.strategy)
    with contextlib.closing(_store(plan, prepared, wanted)) as store:
        if issubclass(kind, TrainingStrategy):
            found = _in_training(kind, plan, prepared, pricer, wanted, store, watch, work)
        else:
            found = _asked(kind, plan, prepared, pricer, store, watch, work)
    if not found.front:
        raise CheckFailedError(f"None of the {len(found.trials)} points that were evaluated fits", hint=_HINT)
    failed = sum(trial.failed for trial in found.trials)
    evaluations = len(found.trials) - failed
    return {
        "fps": wanted.fps,
        "fps_from": source,
        "space": prepared.space.to_mapping(),
        "size": float(prepared.space.size),
        "evaluations": evaluations,
        "failed": failed,
        "trials": [[list(t.point), t.cost, None if t.failed else t.quality, t.fits] for t in found.trials],
        "front": [[list(point), state] for point, state in found.front],
        "seconds": time.perf_counter() - start,
        "summary": f"{evaluations} of {size_text(prepared.space.size)} points, "
        f"{len(found.front)} on the front",
    }


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Args:
        trials: all points that were evaluated.
        front: those that fit and that none beats, with the file of their trained weights, if they have any.
    """

    trials: Sequence[Trial]
    front: Sequence[tuple[Point, str | None]]


def _store(plan: SearchPlan, prepared: Prepared, wanted: Wanted) -> Store:
    from qhw.search.store import Store

    identity = _identity(plan, prepared, wanted)
    return Store.open(plan.store, plan.options.name, identity, resume=plan.options.resume)


def _asked(
    kind: type[Strategy],
    plan: SearchPlan,
    prepared: Prepared,
    pricer: Pricer,
    store: Store,
    watch: Watch | None,
    work: Workspace,
) -> Found:
    """A strategy that proposes points: they are evaluated, and it is told."""
    from qhw.search.workers import Setup, pool

    options, variants = plan.options, prepared.variants
    strategy = kind(_problem(plan, prepared, pricer))
    done = [stored for stored in store.trials() if stored.state == "done"]
    strategy.tell(_trial(pricer, options.against, stored.point, stored.quality) for stored in done)
    setup = Setup(
        variants.model,
        prepared.space,
        variants.samples,
        prepared.held,
        options.evaluator,
        prepared.training,
        options.quantised_by,
    )
    numbers: dict[Point, int] = {}
    text = ""
    with pool(setup, options.workers, options.scheduler, prepared.evaluator) as workers:
        results = workers.results()
        while True:
            for point in strategy.ask(max(0, workers.size - len(numbers))):
                numbers[point] = store.begin(point)
                workers.submit(point)
            if not numbers:
                break
            point, result = next(results)
            quality = result.quality if isinstance(result, Evaluation) else math.nan
            trial = _trial(pricer, options.against, point, quality)
            if isinstance(result, Evaluation):
                store.finish(numbers.pop(point), trial.cost, trial.quality, asdict(result))
            else:
                store.fail(numbers.pop(point), str(result))
            strategy.tell([trial])
            count = len(strategy.known.trials)
            if count % max(1, options.evaluations // TOLD) == 0 or not text:
                text = _told(plan, strategy.known.front(), count)
            work.progress(min(1.0, count / options.evaluations), text)
            if watch is not None:
                watch(list(strategy.known.trials.values()))
    return Found(list(strategy.known.trials.values()), [(t.point, None) for t in strategy.known.front()])


def _in_training(
    kind: type[TrainingStrategy],
    plan: SearchPlan,
    prepared: Prepared,
    pricer: Pricer,
    wanted: Wanted,
    store: Store,
    watch: Watch | None,
    work: Workspace,
) -> Found:
    """A strategy that trains: its points come with their weights, which are kept."""
    import torch

    from qhw.search.strategies.training import TrainingProblem
    from qhw.search.strategies.training import front_of as trained_front

    data, config = prepared.training

    def price(points: Any) -> Any:
        costs = pricer.price(points)
        return costs.objective(plan.options.against), costs.fits

    def price_network(network: Any) -> tuple[float, bool]:
        from qhw.cost import estimate
        from qhw.export import to_onnx
        from qhw.graph.lower import lower

        try:
            design = best_design(lower(to_onnx(network)), plan.board, plan.flow, wanted)
        except CheckFailedError:
            return math.inf, False
        return float(estimate(design).figures[plan.options.against]), True

    problem = TrainingProblem(
        prepared.variants, price, data, prepared.held, config, work.partial, price_network
    )
    points = kind(problem).run(telling(work.progress))
    recorded = {stored.point for stored in store.trials() if stored.state == "done"}
    for trained in sorted(points, key=lambda one: -one.evaluation.quality):
        if trained.point not in recorded:  # the same formats with other weights: the record has the best
            recorded.add(trained.point)
            number = store.begin(trained.point)
            store.finish(number, trained.cost, trained.evaluation.quality, asdict(trained.evaluation))
    trials = [Trial(t.point, t.cost, t.evaluation.quality, t.fits) for t in points]
    if watch is not None:
        watch(trials)
    (work.scratch / TRAINED).mkdir()
    front = []
    for index, trained in enumerate(trained_front(points)):
        name = f"{TRAINED}/{index}.pt"
        torch.save(dict(trained.state), work.scratch / name)
        front.append((trained.point, name))
    return Found(trials, front)


_HINT = "allow fewer bits, a larger board or --budget, or a lower --fps"


def _told(plan: SearchPlan, best: Sequence[Trial], done: int) -> str:
    """The front in one line of progress."""
    data = plan.data.dataset
    if not best:
        return f"{done} points, none fits yet"
    sign = 1 if data.figure.higher_is_better else -1
    against = plan.options.against.upper()
    ends = [f"{data.figure.written(sign * t.quality)} at {t.cost:,.0f} {against}" for t in best]
    return f"{done} points; front of {len(best)}: {ends[0]} … {ends[-1]}"


def _pricer(plan: SearchPlan, prepared: Prepared, wanted: Wanted) -> Pricer:
    sources, counts = prepared.variants.sources(), prepared.space.counts.tolist()
    return pricer_for(prepared.graphs, sources, counts, plan.flow, plan.board, wanted)


def _problem(plan: SearchPlan, prepared: Prepared, pricer: Pricer) -> Problem:
    options = plan.options
    proxy = make_evaluator("output-error", prepared.variants, prepared.held)

    def price(points: Any) -> Any:
        costs = pricer.price(points)
        return costs.objective(options.against), costs.fits

    second_order = None
    if math.prod(plan.data.dataset.outputs) <= MOST_OUTPUTS:
        second_order = SecondOrder(prepared.variants, prepared.held).increase
    return Problem(
        prepared.space,
        price,
        lambda point: proxy.evaluate(point).quality,
        second_order,
        budget=options.evaluations,
        seed=options.build.seed,
    )


def _trial(pricer: Pricer, against: str, point: Point, quality: float) -> Trial:
    costs = pricer.settle(point)
    return Trial(point, float(costs.objective(against)[0]), quality, bool(costs.fits[0]))


def _evaluation(facts: Mapping[str, Any], quality: float) -> Evaluation:
    return Evaluation(quality, *(float(facts[name]) for name in ("figure", "low", "high", "seconds")))


def _identity(plan: SearchPlan, prepared: Prepared, wanted: Wanted) -> Facts:
    from qhw.checkpoints import weights_hash

    return {
        "space": prepared.space.to_mapping(),
        "weights": weights_hash(prepared.variants.model),
        "data": plan.data.identity,
        "board": plan.board.name,
        "flow": plan.options.build.flow,
        "wanted": wanted.to_json(),
        "against": plan.options.against,
        "evaluator": plan.options.evaluator,
        "methods": list(plan.options.quantised_by),
        "strategy": plan.options.strategy,
        "seed": plan.options.build.seed,
        "qhw": source_digest(),
    }


def _check_some_fit(plan: SearchPlan, space: Space, pricer: Pricer) -> None:
    """Refuse a budget or rate that no point meets, as far as some thousand points tell.

    Raises:
        CheckFailedError: names the nearest point and the resource that binds.
    """
    rng = np.random.default_rng(0)
    least = tuple(int(k) for k in _cheapest(space, pricer))
    points = list(dict.fromkeys([least, *space.uniform()[:256], *space.sample(rng, 256)]))
    costs = pricer.price(points)
    if costs.fits.any():
        return
    if not costs.reaches.any():
        raise CheckFailedError(
            f"No point of the space reaches {plan.options.build.fps:g} images/s on {plan.board.name}",
            hint=_HINT,
        )
    nearest = int(np.where(costs.reaches, costs.share, np.inf).argmin())
    shares = costs.usage[nearest] / np.maximum(costs.room, 1)
    binding = int(shares.argmax())
    name, limit = costs.resources[binding].upper(), costs.room[binding] * costs.budget
    raise CheckFailedError(
        f"No point of the space fits {plan.board.name}: the nearest one found needs "
        f"{costs.usage[nearest, binding]:,.0f} {name}, where {limit:,.0f} may be used "
        f"({costs.budget * 100:.3g} % of {costs.room[binding]:,.0f}); its formats are "
        + ", ".join(f"{key} {value}" for key, value in space.formats(points[nearest]).items()),
        hint=_HINT,
    )


def _cheapest(space: Space, pricer: Pricer) -> Point:
    """A point of little cost, variable by variable."""
    point = space.uniform()[0]
    for index, variable in enumerate(space.variables):
        tried = [(*point[:index], place, *point[index + 1 :]) for place in range(len(variable.options))]
        point = tried[int(np.argmin(pricer.price(tried).objective("share")))]
    return point


def trials_of(facts: Mapping[str, Any]) -> list[Trial]:
    """The points that were evaluated, by the facts of the stage ``search``."""
    return [
        Trial(tuple(point), cost, math.nan if quality is None else quality, fits)
        for point, cost, quality, fits in facts["trials"]
    ]


# --- the front --------------------------------------------------------------------------------------


def _points(prepare: Preparation, work: Workspace) -> Facts:
    """Export, lower and price the points of the front; what exact prices then say is beaten is left out."""
    plan, prepared = prepare.plan, prepare(work)
    found = work.facts["search"]
    wanted = replace(plan.options.build.wanted, fps=found["fps"])
    chosen = _spread([(tuple(point), state) for point, state in found["front"]], plan.options.points)
    rows = []
    for index, (point, state) in enumerate(chosen):
        work.progress(index / len(chosen), f"point {index + 1} of {len(chosen)}")
        network = _network_of_point(plan, prepared, point, None if state is None else work.build / state)
        with contextlib.suppress(CheckFailedError):  # by its exact price a point may not fit after all
            rows.append(_point(plan, prepared, wanted, point, network, work.scratch / fronts.POINTS))
    sign = 1 if plan.data.dataset.figure.higher_is_better else -1
    kept = [rows[i] for i in pareto_front([r["cost"] for r in rows], [sign * r["figure"] for r in rows])]
    if not kept:
        raise CheckFailedError("None of the points fits by its exact price", hint=_HINT)
    for row in rows:
        if row not in kept:
            (work.scratch / row["model"]).unlink()
    label = {row.pop("cost_model") for row in kept}.pop()  # of one flow and board, it is that of all
    return {"points": kept, "cost_model": label, "summary": f"{len(kept)} points, each one a model to build"}


def _network_of_point(
    plan: SearchPlan, prepared: Prepared, point: Point, state: Path | None
) -> fx.GraphModule:
    """The quantised network of a point, with its trained weights where there is a file of them."""
    from qhw.outside.weights import read_weights

    evaluator, methods = prepared.evaluator, plan.options.quantised_by
    if state is None and (evaluator.trains or evaluator.takes_methods):
        return evaluator.network(point)
    if state is None:
        return prepared.variants.quantised(point, methods)
    module = prepared.variants.module(point)
    module.load_state_dict(read_weights(state, "trained weights", LARGEST_STATE))
    return module.eval()


def _spread(points: Sequence[Chosen], most: int) -> list[Chosen]:
    """At most so many points of a front, both ends among them."""
    places = np.unique(np.linspace(0, len(points) - 1, min(most, len(points))).round().astype(int))
    return [points[place] for place in places]


def _point(
    plan: SearchPlan,
    prepared: Prepared,
    wanted: Wanted,
    point: Point,
    network: fx.GraphModule,
    folder: Path,
) -> Facts:
    from qhw.cost import estimate
    from qhw.export import export_qonnx
    from qhw.graph.lower import lower_model
    from qhw.graph.reading.load import load_qonnx
    from qhw.pipeline.input_type import annotated_copy
    from qhw.train import as_inputs

    data = plan.data.dataset
    formats = prepared.space.formats(point)
    folder.mkdir(exist_ok=True)
    beside = len(list(folder.iterdir()))  # the same formats may stand there with other weights
    file = folder / f"{plan.source.name}-{json_digest([formats, beside])[:8]}.onnx"
    export_qonnx(network, file, as_inputs(data.train_x[:1]))
    annotated_copy(file, file, plan.options.build.input, data)
    graph = lower_model(load_qonnx(file)).graph
    priced = estimate(best_design(graph, plan.board, plan.flow, wanted))
    on_held, on_test = (
        _exact_figure(graph, samples, judge)
        for samples, judge in ((prepared.held.samples, prepared.held.judge), (data.test_x, data.judge))
    )
    low, high = interval(on_held, len(prepared.held.samples)) if data.figure.is_share else (on_held, on_held)
    figures = priced.figures
    return {
        "formats": formats,
        "cost": figures[plan.options.against],
        "resources": priced.totals,
        "share": figures["share"],
        "binding": priced.binding.node,
        "interval": priced.initiation_interval,
        "latency_cycles": priced.latency_cycles,
        "throughput_fps": priced.throughput_fps,
        "energy_uj": priced.energy_uj if "energy" in figures else None,
        "memory_bits": priced.memory_bits,
        "folding": {name: fold.to_json() for name, fold in priced.folding.items()},
        "figure": on_held,
        "low": low,
        "high": high,
        "test": on_test,
        "uniform": point in prepared.space.uniform(),
        "model": f"{fronts.POINTS}/{file.name}",
        "sha256": file_digest(file),
        "cost_model": priced.label,
    }


def _exact_figure(graph: ExactGraph, samples: Any, judge: Judge) -> float:
    """The metric of the integers themselves."""
    from qhw.graph.encode import encode_inputs
    from qhw.sim.fast import FastExecutor

    return score(graph, FastExecutor(graph)(encode_inputs(graph, {graph.inputs[0]: samples})), judge)


def _front(plan: SearchPlan, facts: Mapping[str, Mapping[str, Any]], seconds: float) -> fronts.Front:
    from qhw.cost.calibration.model_file import worst_lut_error
    from qhw.doctor import package_version

    build, data, found = plan.options.build, plan.data.dataset, facts["search"]
    where = plan.folder / fronts.FILE_NAME
    points = [
        {"number": number, **point, "command": f"qhw build --design {where}#{number}"}
        for number, point in enumerate(facts["front"]["points"], 1)
    ]
    return {
        "schema_version": fronts.SCHEMA_VERSION,
        "qhw": package_version("qhw"),
        "model": plan.source.given,
        "model_digest": plan.source.digest,
        "board": plan.board.name,
        "part": plan.board.part,
        "flow": build.flow,
        "clock_mhz": plan.board.clock_mhz,
        "fps": found["fps"],
        "fps_from": found["fps_from"],
        "budget": build.wanted.share,
        "against": plan.options.against,
        "metric": {
            "name": data.figure.name,
            "higher_is_better": data.figure.higher_is_better,
            "is_share": data.figure.is_share,
        },
        "evaluator": plan.options.evaluator,
        "strategy": plan.options.strategy,
        "methods": ",".join(plan.options.quantised_by),
        "seed": build.seed,
        "space": found["space"],
        "space_size": found["size"],
        "evaluations": found["evaluations"],
        "failed": found["failed"],
        "seconds": round(seconds, 1),
        "held_out": {"samples": facts["train"]["samples"], "trained_on": build.is_trained},
        "float": {"held_out": facts["train"]["held_out"], "test": facts["train"]["test"]},
        "cost_model": facts["front"]["cost_model"],
        "lut_error": worst_lut_error(plan.board.family),
        "build": _shared_options(plan, found["fps"]),
        "points": points,
    }


def _shared_options(plan: SearchPlan, fps: float | None) -> Facts:
    """Options of ``qhw build`` that all points have."""
    build = plan.options.build
    return {
        "board": build.board,
        "flow": build.flow,
        "data": build.data or (plan.data.given if plan.source.kind == "builtin" else None),
        "task": build.task,
        "metric": build.metric,
        "target": list(build.target),
        "layout": build.layout,
        "clock_mhz": build.clock_mhz,
        "fps": fps,
        "budget": build.budget,
        "multipliers": build.multipliers,
        "flow_options": dict(build.flow_options),
    }
