"""Lowers thousands of random QONNX files and compares what comes out, code by code.

Of each file (``tests/random_files.py``):

- the interpreter and the fast executor give the same codes;
- they are those of an evaluation that is worked out from the file alone (``tests/file_reference.py``);
- with ``--against``, an older checkout gives the same outputs, wherever it lowers the file.

A file that fails is reduced to few nodes, stored beside the results, and written out.

    python benchmarks/random_files.py --count 2000 --jobs 2 --against ../old --results /tmp/random --page
    python benchmarks/random_files.py --kind mixed --seed 1234

``--page`` writes ``benchmarks/results/random_files.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from file_reference import Meaning, Output, OutsideError, meaning
from random_files import KINDS, NEW_KINDS, File, random_file

SECONDS = 60
"""After which a file is given up."""

PAGE = Path(__file__).parent / "results" / "random_files.md"
MOST_REFUSALS = 30
"""Sorts of refusals that the page names."""

Record = dict[str, Any]


# --- one checkout: lower and run ---


def lowered(file: File, backend: str = "numpy") -> Record:
    """What this checkout makes of a file: outputs and operations, or how it was refused."""
    from qhw.errors import QhwError
    from qhw.graph.encode import encode_inputs
    from qhw.graph.lower import lower
    from qhw.sim.fast import FastExecutor

    try:
        from qhw.graph.interpreter import interpret
    except ModuleNotFoundError:  # an old checkout
        from qhw.sim.interpreter import interpret

    try:
        graph = lower(file.model)
    except QhwError as error:
        damaged = "damaged" in error.message or "is not as ONNX" in error.message
        return {"status": "damaged" if damaged else "refused", "message": error.message}
    except Exception:
        return {"status": "crash", "message": traceback.format_exc(limit=-3)}
    try:
        inputs = encode_inputs(graph, file.inputs)
        found, fast = interpret(graph, inputs), FastExecutor(graph, backend)(inputs)
    except Exception:
        return {"status": "crash", "message": traceback.format_exc(limit=-3)}
    apart = [name for name in graph.outputs if not np.array_equal(found[name], fast[name])]
    return {
        "status": "fast" if apart else "ok",
        "message": f"interpreter and fast executor differ in {apart}" if apart else "",
        "outputs": [_stored(graph, name, found[name]) for name in graph.outputs],
        "operations": dict(Counter(node.op for node in graph.nodes)),
        "thresholds": sum(
            graph.constants[node.inputs[1]].size for node in graph.nodes if node.op == "Threshold"
        ),
        "entries": sum(graph.constants[node.inputs[1]].size for node in graph.nodes if node.op == "Table"),
    }


def _stored(graph: Any, name: str, mantissas: NDArray[Any]) -> Record:
    """An output as JSON: mantissas at one exponent, scale and offset per channel."""
    rank = len(graph.tensors[name].shape)
    exponents = graph.tensors[name].exponent.broadcast(rank)
    finest = int(exponents.min())
    aligned = mantissas.astype(object) * np.left_shift(1, (exponents - finest).astype(object))
    scale = graph.output_scales.get(name)
    return {
        "mantissas": [int(m) for m in aligned.flat],
        "shape": list(mantissas.shape),
        "exponent": finest,
        "scale": None if scale is None else [float(v) for v in scale.scale],
        "offset": None if scale is None else [float(v) for v in scale.offset],
        "axis": 0 if scale is None else getattr(scale, "axis", 0),  # an old checkout knows channels only
    }


def output_of(stored: Record) -> Output:
    """An output from JSON."""
    mantissas = np.array(stored["mantissas"], dtype=object).reshape(stored["shape"])
    if stored["scale"] is None:
        return Output(mantissas, stored["exponent"])
    shape = [1] * max(mantissas.ndim - 1, 1)
    shape[stored.get("axis", 0)] = -1
    scale, offset = (np.array(stored[key]).reshape(shape) for key in ("scale", "offset"))
    return Output(mantissas, stored["exponent"], scale, offset)


def difference(left: Output, right: Output) -> str:
    """Where two outputs differ, in words; empty where they are the same numbers."""
    if left.mantissa.shape != right.mantissa.shape:
        return f"shapes {left.mantissa.shape} and {right.mantissa.shape}"
    if left.scale is None and right.scale is None:
        finest = min(left.exponent, right.exponent)
        a, b = (o.mantissa.astype(object) * (1 << (o.exponent - finest)) for o in (left, right))
    else:
        a, b = left.values, right.values
    wrong = np.argwhere(np.asarray(a != b))
    if not len(wrong):
        return ""
    where = tuple(int(i) for i in wrong[0])
    unit = "" if a.dtype != object else f" (·2^{finest})"
    return f"{len(wrong)} of {a.size} numbers, first at {where}: {a[where]} and {b[where]}{unit}"


def compared(record: Record, expected: Mapping[str, Output] | list[Output]) -> str:
    """The first output that differs from what is expected."""
    wanted = list(expected.values()) if isinstance(expected, Mapping) else expected
    for index, (stored, output) in enumerate(zip(record["outputs"], wanted, strict=True)):
        found = difference(output_of(stored), output)
        if found:
            return f"output {index}: {found}"
    return ""


# --- another checkout, in a process of its own ---


class Server:
    """Lowers files with the qhw of another checkout."""

    def __init__(self, checkout: Path):
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=checkout,
            text=True,
        )
        self.folder = tempfile.TemporaryDirectory()
        assert self.process.stdout is not None
        where = json.loads(self.process.stdout.readline())["qhw"]
        if not Path(where).is_relative_to(checkout.resolve()):
            raise SystemExit(f"{checkout} runs the qhw of {where}")

    def lowered(self, file: File) -> Record:
        """As the function of that name, over there."""
        path = Path(self.folder.name) / "file"
        save(file, path)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        answer: Record = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()


def serve() -> None:
    """Answer paths of files on stdin with records on stdout."""
    import qhw

    answers, sys.stdout = sys.stdout, io.StringIO()
    print(json.dumps({"qhw": str(Path(qhw.__file__).resolve())}), file=answers, flush=True)
    for line in sys.stdin:
        with given_up():
            record = lowered(load(Path(line.strip())))
        print(json.dumps(record if record else {"status": "slow", "message": ""}), file=answers, flush=True)


def save(file: File, path: Path) -> None:
    path.with_suffix(".onnx").write_bytes(file.model.SerializeToString())
    np.savez(path.with_suffix(".npz"), **file.inputs)


def load(path: Path) -> File:
    with np.load(path.with_suffix(".npz")) as arrays:
        inputs = {name: arrays[name] for name in arrays.files}
    return File(onnx.load(path.with_suffix(".onnx")), inputs)


class _SlowError(BaseException):
    """A file takes too long."""


@contextlib.contextmanager
def given_up(seconds: int = SECONDS) -> Iterator[None]:
    """Leave the block after some time."""

    def stop(*_: Any) -> None:
        raise _SlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    except _SlowError:
        pass
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --- one file ---


def checked(file: File, kind: str, old: Server | None, backend: str = "numpy") -> Record:
    """What a file gives here, by the contract, and in the older checkout.

    ``verdict`` is ``ok``, ``refused``, or a kind of failure: ``crash``, ``damaged`` (a valid file called
    damaged), ``fast``, ``contract``, ``old`` (other outputs than the older checkout's), ``changed`` (the
    same, where the contract is on this side), ``lost`` (the older checkout lowered it,
    and by the contract).
    """
    record = lowered(file, backend)
    before = old.lowered(file) if old is not None else None
    verdict, reason = record["status"], record["message"]
    record["contract"] = ""
    if verdict == "ok":
        record["contract"], found, means = by_contract(record, file, kind)
        if found:
            verdict, reason = "contract", found
        elif before is not None and before["status"] == "ok":
            found = compared(record, [output_of(stored) for stored in before["outputs"]])
            if found and means is None:
                verdict, reason = "old", found
            elif found and means is not None and not means.rounded:
                verdict, reason = "changed", found
            record["old_rounds"] = found
    elif before is not None and before["status"] == "ok":
        wrong = by_contract(before, file, kind)[1]
        record["before_wrong"] = wrong
        verdict = verdict if wrong and verdict == "refused" else "lost"
    record |= {"verdict": verdict, "reason": reason}
    record.pop("outputs", None)
    if before is not None:
        record["before"] = {k: v for k, v in before.items() if k != "outputs"}
    return record


def by_contract(record: Record, file: File, kind: str) -> tuple[str, str, Meaning | None]:
    """Which reading of the contract the outputs follow, how they differ if none, and the reading."""
    try:
        means = meaning(file.model, file.inputs)
        wanted = [means.outputs[value.name] for value in file.model.graph.output]
    except OutsideError as error:
        return f"outside: {error}", "", None
    found = compared(record, wanted)
    if not found:
        return "settled", "", means
    if means.rounded and not kind.endswith("power"):
        in_float32 = meaning(file.model, file.inputs, in_float32=True)
        if not compared(record, [in_float32.outputs[value.name] for value in file.model.graph.output]):
            return "float32", "", means
    return "", found, means


# --- from a failing file to a small one ---


def reduced(file: File, fails: Callable[[File], bool], attempts: int = 200) -> File:
    """A file of fewer nodes that still fails: one output, nodes bypassed or left out."""
    left = attempts

    def still(candidate: File | None) -> bool:
        nonlocal left
        if candidate is None or left <= 0:
            return False
        left -= 1
        with contextlib.suppress(Exception):
            return fails(candidate)
        return False

    for node in list(file.model.graph.node):
        candidate = _with_outputs(file, [node.output[0]])
        if still(candidate):
            assert candidate is not None
            file = candidate
            break
    changed = True
    while changed and left > 0:
        changed = False
        for node in reversed(list(file.model.graph.node)):
            for name in node.input:
                candidate = _bypassed(file, node.name, name)
                if still(candidate):
                    assert candidate is not None
                    file, changed = candidate, True
                    break
    return file


def _with_outputs(file: File, outputs: list[str]) -> File | None:
    """The part of a file that these outputs depend on."""
    model = ModelProto()
    model.CopyFrom(file.model)
    wanted, kept = set(outputs), []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    inputs = [value for value in model.graph.input if value.name in wanted]
    if not inputs or not kept:
        return None
    declared = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    constants = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    fields = {"node": kept[::-1], "input": inputs, "output": declared, "initializer": constants}
    for name, values in fields.items():
        values = list(values)
        model.graph.ClearField(name)
        getattr(model.graph, name).extend(values)
    return File(model, {value.name: file.inputs[value.name] for value in inputs})


def _bypassed(file: File, name: str, source: str) -> File | None:
    """The file without a node: what read it reads ``source``."""
    model = ModelProto()
    model.CopyFrom(file.model)
    node = next((n for n in model.graph.node if n.name == name), None)
    constants = {tensor.name for tensor in model.graph.initializer}
    outputs = [value.name for value in model.graph.output]
    if node is None or source in constants or not source:
        return None
    for other in model.graph.node:
        for index, read in enumerate(other.input):
            if read in node.output:
                other.input[index] = source
    outputs = [source if output in node.output else output for output in outputs]
    inputs = {value.name for value in model.graph.input}
    if any(output in inputs for output in outputs):
        return None
    return _with_outputs(File(model, file.inputs), outputs)


def written_out(model: ModelProto) -> str:
    """A model's nodes in words, constants with their numbers where they are few."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    lines = [f"opset {next(o.version for o in model.opset_import if not o.domain)}"]
    notes = {
        n.tensor_name: n.quant_parameter_tensor_names[0].value for n in model.graph.quantization_annotation
    }
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_param or d.dim_value for d in kind.shape.dim]
        lines.append(f"input {value.name} {shape} {notes.get(value.name, '')} type {kind.elem_type}")
    for node in model.graph.node:
        operands = [_operand(name, constants) for name in node.input]
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        options = {k: v.decode() if isinstance(v, bytes) else v for k, v in options.items()}
        more = "".join(f", {k}={v}" for k, v in options.items())
        lines.append(f"{', '.join(node.output)} = {node.op_type}({', '.join(operands)}{more})")
    lines.append(f"outputs {[value.name for value in model.graph.output]}")
    return "\n".join(lines)


def _operand(name: str, constants: Mapping[str, NDArray[Any]]) -> str:
    if name not in constants:
        return name
    value = constants[name]
    shown = np.array2string(value, separator=",", threshold=12, precision=9).replace("\n", "")
    return f"{shown}{list(value.shape) if value.size > 1 else ''}"


# --- many files ---

_OLD: Server | None = None


def _start(against: str | None) -> None:
    global _OLD
    _OLD = Server(Path(against)) if against else None


def _one(job: tuple[str, int, str, str | None]) -> Record:
    """One file, reduced and stored if it fails."""
    kind, seed, backend, folder = job
    started = time.perf_counter()
    record: Record = {"verdict": "slow", "reason": f"more than {SECONDS} s"}
    with given_up():
        try:
            file = random_file(seed, kind)
            record = checked(file, kind, _OLD, backend)
        except Exception:
            record = {"verdict": "instrument", "reason": traceback.format_exc(limit=-4)}
    record |= {"kind": kind, "seed": seed, "seconds": round(time.perf_counter() - started, 3)}
    if record["verdict"] in FAILURES and folder is not None:
        with given_up(3 * SECONDS):
            verdict, stem = record["verdict"], sample_of(record["reason"])
            small = reduced(file, lambda f: _fails_alike(f, kind, verdict, stem, backend))
            path = Path(folder) / f"{verdict}_{kind}_{seed}"
            save(small, path)
            again = checked(small, kind, _OLD, backend)
            text = f"{kind} {seed}: {verdict}\n{again['reason']}\n\n{written_out(small.model)}\n"
            path.with_suffix(".txt").write_text(text)
            record["reduced"] = str(path.with_suffix(".txt"))
    return record


def _fails_alike(file: File, kind: str, verdict: str, stem: str, backend: str) -> bool:
    found = checked(file, kind, _OLD, backend)
    same_words = verdict not in ("crash", "damaged", "lost") or sample_of(found["reason"]) == stem
    return found["verdict"] == verdict and same_words


FAILURES = ("crash", "damaged", "fast", "contract", "old", "changed", "lost")


def sample_of(message: str) -> str:
    """A message without names and numbers: what it has in common with others."""
    line = message.strip().splitlines()[-1] if message.startswith("Traceback") else message
    line = re.sub(r"'[^']*'", "'…'", line)
    return re.sub(r"-?\d[\d.e+-]*", "#", line)[:160]


def summary(records: list[Record]) -> Record:
    """Counts by kind, refusals by message, failures by seed, and what the older checkout made of it."""
    found: Record = {}
    for kind in (*KINDS, *NEW_KINDS):
        mine = [r for r in records if r["kind"] == kind]
        if not mine:
            continue
        lowered_files = [r for r in mine if r.get("status") == "ok"]
        found[kind] = {
            "files": len(mine),
            "verdicts": dict(Counter(r["verdict"] for r in mine).most_common()),
            "contract": dict(Counter(r["contract"].split(":")[0] for r in lowered_files).most_common()),
            "outside": _counts(r["contract"] for r in lowered_files if r["contract"].startswith("outside")),
            "refusals": _counts(r["reason"] for r in mine if r["verdict"] == "refused"),
            "failures": {
                verdict: [r["seed"] for r in mine if r["verdict"] == verdict][:20]
                for verdict in (*FAILURES, "slow", "instrument")
                if any(r["verdict"] == verdict for r in mine)
            },
            **(_before(mine) if any("before" in r for r in mine) else {}),
        }
    return found


def _counts(messages: Any) -> Record:
    return dict(Counter(sample_of(message) for message in messages).most_common(40))


def _before(records: list[Record]) -> Record:
    """The older checkout beside this one."""
    pairs = [(r["before"], r) for r in records if "before" in r]
    both = [(a, b) for a, b in pairs if a["status"] == "ok" and b.get("status") == "ok"]
    gained = [(a, b) for a, b in pairs if a["status"] != "ok" and b.get("status") == "ok"]
    refused = [(a, b) for a, b in pairs if a["status"] != "ok" and b.get("status") not in ("ok", None)]
    count = {"Requant": "Requant nodes", "Threshold": "Threshold nodes", "Table": "Table nodes"}
    table = {
        words: [sum(side["operations"].get(op, 0) for side in sides) for sides in zip(*both, strict=True)]
        for op, words in count.items()
    }
    for key, words in (("thresholds", "thresholds"), ("entries", "table entries")):
        table[words] = [sum(side[key] for side in sides) for sides in zip(*both, strict=True)]
    table["all nodes"] = [
        sum(sum(side["operations"].values()) for side in sides) for sides in zip(*both, strict=True)
    ]
    changed = [
        f"{sample_of(a['message'])}  →  {sample_of(b['message'])}"
        for a, b in refused
        if sample_of(a["message"]) != sample_of(b["message"])
    ]
    return {
        "lowered before": sum(a["status"] == "ok" for a, _ in pairs),
        "lowered now": sum(b.get("status") == "ok" for _, b in pairs),
        "refused now, wrong before": [r["seed"] for r in records if r.get("before_wrong")][:20],
        "both": len(both),
        "both, other codes where float32 rounds": sum(bool(b.get("old_rounds")) for _, b in both),
        "gained, by the former refusal": _counts(a["message"] for a, _ in gained),
        "refused otherwise": dict(Counter(changed).most_common(20)),
        "before and now, of files that both lower": table,
    }


def page(records: list[Record]) -> str:
    """The counts by kind, and the refusals by message, as Markdown."""
    kinds = [kind for kind in (*KINDS, *NEW_KINDS) if any(r["kind"] == kind for r in records)]
    rows = [_row(kind, [r for r in records if r["kind"] == kind]) for kind in kinds]
    rows.append(_row("all", records))
    refused = Counter(sample_of(r["reason"]) for r in records if r["verdict"] == "refused")
    shown = dict(refused.most_common(MOST_REFUSALS))
    failed = [r for r in records if r["verdict"] in (*FAILURES, "slow", "instrument")]
    titles = (
        "kind",
        "files",
        "lowered",
        "as worked out from the file",
        "not worked out",
        "differ",
        "refused",
        "lowered before",
        "before, and now refused",
        "thresholds before → now",
    )
    lines = [
        "# Random QONNX files",
        "",
        "Made from seeds by `tests/random_files.py`, each run on samples over its inputs' ranges. Of a file",
        "that lowers, the interpreter and the fast executor give the same codes: those that",
        "`tests/file_reference.py` works out from the file alone, where the contract says what it means.",
        "Any other counts as different. Before: an older checkout (`--against`), on the same files;",
        "thresholds are of files that both lower.",
        "",
        f"| {' | '.join(titles)} |",
        f"|---|{'---:|' * (len(titles) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        f"## The {len(shown)} most frequent refusals",
        "",
        "Names are left out as …, numbers as #. Files hold on purpose what is to be refused.",
        "",
        "| refusal | files |",
        "|---|---:|",
        *(f"| {text.replace('|', chr(92) + '|')} | {count} |" for text, count in shown.items()),
        f"| {len(refused) - len(shown)} others | {refused.total() - sum(shown.values())} |",
        "",
    ]
    if failed:
        lines += [
            "## To be looked at",
            "",
            "`changed`: the older checkout's codes contradict the contract; `slow`:",
        ]
        lines += [
            f"more than {SECONDS} s, which a busy machine may take.",
            "",
            "| kind | seed | what | reason |",
            "|---|---:|---|---|",
        ]
        lines += [
            f"| {r['kind']} | {r['seed']} | {r['verdict']} | {sample_of(r['reason'])} |" for r in failed
        ]
        lines.append("")
    return "\n".join(lines)


def _row(kind: str, records: list[Record]) -> list[str]:
    now = [r for r in records if r.get("status") == "ok"]
    before = [r for r in records if r.get("before", {}).get("status") == "ok"]
    both = [r for r in before if r.get("status") == "ok"]
    counts = (
        len(records),
        len(now),
        sum(not r["contract"].startswith("outside") for r in now if r["verdict"] != "contract"),
        sum(r["contract"].startswith("outside") for r in now),
        sum(r["verdict"] in ("contract", "fast", "crash", "damaged") for r in records),
        sum(r["verdict"] == "refused" for r in records),
        len(before),
        len(before) - len(both),
    )
    thresholds = (sum(r["before"]["thresholds"] for r in both), sum(r["thresholds"] for r in both))
    compared = f"{thresholds[0]:,} → {thresholds[1]:,}" if before else "-"
    return [kind, *(f"{count:,}" for count in counts), compared]


RECORDS = "records.jsonl"


def records_of(folder: Path) -> list[Record]:
    """The records that a run left in a folder."""
    log = folder / RECORDS
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--kind", action="append", choices=(*KINDS, *NEW_KINDS), help="may be given more than once"
    )
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=200, help="seeds of each kind")
    parser.add_argument("--seed", type=int, help="this one alone, in words")
    parser.add_argument("--file", type=Path, help="a stored file (of --results) instead, in words")
    parser.add_argument("--against", help="an older checkout")
    parser.add_argument(
        "--before", type=Path, help="a folder of records that hold what the older checkout made of the files"
    )
    parser.add_argument("--backend", default="numpy", choices=("numpy", "torch", "auto"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--results", type=Path, help="a folder: records, resumed; failing files")
    parser.add_argument("--page", action="store_true", help="write the counts as a page of the results")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.serve:
        serve()
        return
    kinds = options.kind or list(KINDS)
    if options.seed is not None or options.file is not None:
        alone(options, kinds[0])
        return
    known: list[Record] = []
    log = None
    if options.results is not None:
        options.results.mkdir(parents=True, exist_ok=True)
        log = options.results / RECORDS
        known = records_of(options.results)
    seeds = range(options.first, options.first + options.count)
    done = {(r["kind"], r["seed"]) for r in known}
    folder = None if options.results is None else str(options.results)
    jobs = [(k, s, options.backend, folder) for s in seeds for k in kinds if (k, s) not in done]
    records = [r for r in known if r["kind"] in kinds and r["seed"] in seeds]
    with ProcessPoolExecutor(options.jobs, initializer=_start, initargs=(options.against,)) as pool:
        for record in pool.map(_one, jobs, chunksize=8):
            records.append(record)
            if record["verdict"] in (*FAILURES, "instrument"):
                first = record["reason"].strip().splitlines()[-1][:150]
                print(f"{record['kind']} {record['seed']}: {record['verdict']}: {first}", file=sys.stderr)
            if log is not None:
                with log.open("a") as stream:
                    stream.write(json.dumps(record) + "\n")
    if options.before is not None:
        earlier = records_of(options.before)
        older = {(r["kind"], r["seed"]): {"before": r["before"]} for r in earlier if "before" in r}
        records = [older.get((r["kind"], r["seed"]), {}) | r for r in records]
    print(json.dumps(summary(records), indent=1, ensure_ascii=False))
    if options.page:
        PAGE.write_text(page(records), encoding="utf-8")
    if any(record["verdict"] in (*FAILURES, "instrument") for record in records):
        sys.exit(1)


def alone(options: argparse.Namespace, kind: str) -> None:
    """One file, its verdict and its nodes, reduced where it fails."""
    file = load(options.file) if options.file is not None else random_file(options.seed, kind)
    _start(options.against)
    record = checked(file, kind, _OLD, options.backend)
    print(written_out(file.model))
    print(json.dumps(record, indent=1, ensure_ascii=False))
    if record["verdict"] in FAILURES:
        verdict, stem = record["verdict"], sample_of(record["reason"])
        small = reduced(file, lambda f: _fails_alike(f, kind, verdict, stem, options.backend))
        print(f"\nreduced:\n{written_out(small.model)}")
        print(checked(small, kind, _OLD, options.backend)["reason"])


if __name__ == "__main__":
    main()
