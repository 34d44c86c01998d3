"""What was measured: one JSON file, written after each figure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results.json"


class Store:
    """Records by kind and key; a run that was stopped goes on behind the last one."""

    def __init__(self, path: Path = RESULTS) -> None:
        self.path = path
        self.records = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    def has(self, kind: str, key: str) -> bool:
        """Whether there is a record."""
        return key in self.records.get(kind, {})

    def get(self, kind: str, key: str) -> Any:
        """A record; None where there is none."""
        return self.records.get(kind, {}).get(key)

    def put(self, kind: str, key: str, record: Any) -> None:
        """Keep a record; the file is whole at any moment, and keeps what others have written meanwhile."""
        self.records = self._read()
        self.records.setdefault(kind, {})[key] = record
        kinds = (
            f"{json.dumps(name)}: {{\n"
            + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(of.items()))
            + "\n}"
            for name, of in sorted(self.records.items())
        )
        beside = self.path.with_name(f"{self.path.name}.part-{os.getpid()}")
        beside.write_text("{\n" + ",\n".join(kinds) + "\n}\n")
        beside.replace(self.path)
