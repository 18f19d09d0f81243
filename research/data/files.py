"""Documents and examples from a user's files: text, source code, JSON Lines, JSON lists."""

import json
from collections.abc import Iterator
from pathlib import Path

TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py", ".html", ".tex", ".csv", ".log")


def read_jsonl(path: str | Path) -> Iterator[dict]:
    """Objects of a JSON Lines file, one by one.

    Raises ValueError naming file and line for a line that is not a JSON object, and for a file without any.
    """
    path = Path(path)
    count = 0
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                line = raw.decode("utf-8")
                if not line.strip():
                    continue
                value = json.loads(line)
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(value, dict):
                raise ValueError(f"{path}, line {number}: expected an object, got {type(value).__name__}")
            count += 1
            yield value
    if count == 0:
        raise ValueError(f"{path} is empty: expected one JSON object per line")


def read_examples(path: str | Path) -> Iterator[dict]:
    """Examples of a `.jsonl` file or a `.json` list of objects."""
    path = Path(path)
    if path.suffix != ".json":
        yield from read_jsonl(path)
        return
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(values, list) or not values or not all(isinstance(v, dict) for v in values):
        raise ValueError(f"{path}: expected a list of objects that is not empty")
    yield from values


def read_text(path: str | Path) -> str:
    """A text file; raises ValueError if it is empty or not UTF-8, naming the place."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: byte {error.start} ({error.reason})") from None
    if not text.strip():
        raise ValueError(f"{path} is empty")
    return text


def find_files(paths: list[str | Path]) -> list[Path]:
    """Files named, and text files below folders named, sorted; raises for a path that does not exist or holds none."""
    found: set[Path] = set()
    for path in map(Path, paths):
        if path.is_file():
            found.add(path)
        elif path.is_dir():
            suffixes = (*TEXT_SUFFIXES, ".jsonl", ".json")
            inside = {p for p in path.rglob("*") if p.is_file() and p.suffix in suffixes}
            if not inside:
                raise ValueError(f"{path} holds no file with a known ending {suffixes}")
            found |= inside
        else:
            raise FileNotFoundError(f"no file or folder {path}")
    return sorted(found)


def documents(path: str | Path, column: str = "text") -> Iterator[str]:
    """Documents of one file: a text file is one; a JSON(L) file has one per object, in `column`."""
    path = Path(path)
    if path.suffix not in (".jsonl", ".json"):
        yield read_text(path)
        return
    for number, example in enumerate(read_examples(path), start=1):
        if not isinstance(example.get(column), str):
            raise ValueError(f"{path}, object {number}: no text column {column!r}; it has {sorted(example)}")
        yield example[column]
