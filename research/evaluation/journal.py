"""Results as lines of JSON that outlive a kill: nothing that was finished is lost or done twice."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class Journal:
    """A file of JSON lines, each named by its "key"; the first line holds the settings that it was made with.

    A last line that a kill cut off is dropped. `rows` holds the others by key, those of this run included.

    Raises:
      ValueError: other settings than the file's (says which), a line that is no JSON, or one key twice.
    """

    def __init__(self, path: str | Path, settings: Mapping[str, Any]):
        self.path = Path(path)
        self.settings = json.loads(json.dumps(dict(settings)))
        lines = self._whole_lines()
        self.rows: dict[str, Row] = {}
        if lines:
            self._check(self._read(lines[0], 1))
        for number, line in enumerate(lines[1:], 2):
            self._keep(self._read(line, number))
        if not lines:
            self._write([{"settings": self.settings}])

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends rows and hands them to the system before it returns."""
        ready = [json.loads(json.dumps(dict(row))) for row in rows]
        for row in ready:
            self._keep(row)
        self._write(ready)

    def _whole_lines(self) -> list[str]:
        """The lines of the file; one without its end is cut off, from the file too."""
        if not self.path.is_file():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return []
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            with self.path.open("r+b") as file:
                file.truncate(whole)
        return data[:whole].decode("utf-8").split("\n")[:-1]

    def _read(self, line: str, number: int) -> Row:
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self.path}:{number}: not JSON ({error.msg}); remove the line or the file") from None
        if not isinstance(row, dict) or ("settings" if number == 1 else "key") not in row:
            raise ValueError(f"{self.path}:{number}: expected settings in line 1, then rows with a key; got {line:.60}")
        return row

    def _check(self, first: Row) -> None:
        theirs = first["settings"]
        names = sorted({*theirs, *self.settings})
        given = [(name, theirs.get(name), self.settings.get(name)) for name in names]
        other = [f"{name}={a!r} (now {b!r})" for name, a, b in given if a != b]
        if other:
            raise ValueError(
                f"{self.path} was made with {', '.join(other)}: choose another folder, or move this file away"
            )

    def _keep(self, row: Row) -> None:
        if row["key"] in self.rows:
            raise ValueError(f"{self.path} would hold {row['key']!r} twice")
        self.rows[row["key"]] = row

    def _write(self, rows: Iterable[Mapping[str, Any]]) -> None:
        # A kill cuts at most the last line, and the next start drops what has no end.
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
