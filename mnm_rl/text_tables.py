"""Tables as lines of text, for terminals and logs."""

from __future__ import annotations

from collections.abc import Iterable

Row = tuple[str, ...]


def format_table(rows: list[Row], notes: Iterable[str] = ()) -> str:
    """The rows as lines of text, the first column left-aligned, the others right-aligned; then the notes."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for name, *cells in rows:
        aligned = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned]))
    return "\n".join([*lines, *notes])
