"""A page of the documentation with parts that commands write."""

from __future__ import annotations

from pathlib import Path


def check_page(path: Path, part: str) -> None:
    """Raise a :class:`ValueError` unless the page has the marks between which a part goes."""
    _cut(path, part)


def write_part(path: Path, part: str, text: str) -> None:
    """Put the text between the marks of a part, in place of what is there."""
    before, after = _cut(path, part)
    path.write_text(f"{before}\n{text}\n{after}")


def _cut(path: Path, part: str) -> tuple[str, str]:
    """The page up to the first mark and from the second on, with the marks."""
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    text = path.read_text() if path.is_file() else ""
    before, found, rest = text.partition(begin)
    _, found_too, after = rest.partition(end)
    if not found or not found_too:
        raise ValueError(f"{path} has no marks {begin} and {end} between which the text could go.")
    return before + begin, end + after
