"""Pictures of a memory: similarity maps with the words at their axes (Figure 5), and the forgetting curve.

Dimensions: ``T`` time, ``R`` rows and ``C`` columns of a map (steps of an episode), ``N`` delays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from mnm_rl.analysis.episodes import Episode
from mnm_rl.analysis.forgetting import Forgetting
from mnm_rl.analysis.labels import sentence_starts
from mnm_rl.analysis.similarity import Heads, similarities
from mnm_rl.analysis.trace import Trace

CELL = 0.17
"""Width and height of a map's cell, in inches, as are the other sizes."""
LETTER = 0.065
"""Width of a letter of an axis label."""
STRIP, GAP, COLOUR_BAR, CAPTION = 0.5, 0.16, 0.12, 0.3
"""Width of a strip of bars, space between axes, width of a colour bar, height of a map's title."""
LEFT, MAP, PICTURE = 0.6, 4.2, 7.5
"""Least widths of the left margin, of a map and of a picture, for what is written there."""
FONT = 8
SMALLEST_LIMIT = 1e-3
"""Of a map's colours, so that a map of nothing can be drawn."""
RATE_COLOUR = "0.45"
LAYER_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")


@dataclass(frozen=True)
class Map:
    """What a map compares: vectors of a trace at its rows with vectors at its columns."""

    name: str
    rows: str
    columns: str
    title: str


READ_WRITTEN = Map(
    "read-written", "read_values", "write_values", "values read (rows) against values written (columns)"
)
WRITTEN_WRITTEN = Map(
    "written-written",
    "write_values",
    "write_values",
    "values written (rows) against values written earlier (columns)",
)
KEY_KEY = Map("key-key", "write_keys", "write_keys", "write keys (rows) against earlier write keys (columns)")
MAPS = (READ_WRITTEN, WRITTEN_WRITTEN, KEY_KEY)


@dataclass(frozen=True)
class Panel:
    """A map to be drawn.

    Attributes:
        values: cosine similarities ``[R, C]``; not a number where there is nothing to compare.
        title: what stands above it.
        limit: the cosine that gets the strongest colour.
    """

    values: np.ndarray
    title: str
    limit: float


def draw_question(trace: Trace, episode: Episode, heads: Heads, story_words: int, title: str) -> Figure:
    """Figure 5a: what the values read at the question's words have of the values written in the story.

    Args:
        trace: of the episode, ``B`` = 1.
        episode: its words.
        heads: all heads in one map, or a map for each.
        story_words: the most words of the story that are shown, counted from its end.
        title: of the picture.
    """
    columns = _last_sentences(episode, story_words)
    rows = range(episode.question, len(episode.words))
    return _draw(trace, episode, rows, columns, _panels(trace, READ_WRITTEN, rows, columns, heads), title)


def draw_story_end(
    trace: Trace,
    episode: Episode,
    maps: Sequence[Map],
    heads: Heads,
    story_words: int,
    end_words: int,
    title: str,
) -> Figure:
    """Figure 5b: the story's last words against the story so far.

    Args:
        trace: of the episode, ``B`` = 1.
        episode: its words.
        maps: what to compare, from :data:`MAPS`.
        heads: all heads in one map, or a map for each.
        story_words: the most words of the story that are shown, counted from its end.
        end_words: the most words that count as the story's end.
        title: of the picture.
    """
    columns, rows = _last_sentences(episode, story_words), _last_sentences(episode, end_words)
    panels = [panel for kind in maps for panel in _panels(trace, kind, rows, columns, heads)]
    return _draw(trace, episode, rows, columns, panels, title)


def draw_forgetting(delays: Sequence[int], forgetting: Forgetting, title: str) -> Figure:
    """The forgetting curve: error and cosine of what is recalled against the delay in steps."""
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    labels = ("relative squared error of recall", "cosine of recalled and written value")
    marks = ((1, "recalling zeros"), (0, "nothing in common"))
    for axes, numbers, label, (height, mark) in zip(
        figure.subplots(1, 2), forgetting, labels, marks, strict=True
    ):
        axes.plot(range(len(delays)), numbers.tolist(), "o-", color="tab:blue", linewidth=1.6, markersize=4)
        axes.axhline(height, color="0.55", linewidth=1, linestyle="--")
        axes.annotate(mark, (0.99, height), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        axes.set_xticks(range(len(delays)), [str(delay) for delay in delays])
        axes.set(xlabel="steps since the write", ylabel=label)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[1].set_ylim(top=1.02)
    figure.suptitle(title, fontsize=FONT + 2)
    return figure


def _last_sentences(episode: Episode, most: int) -> range:
    """The story's last steps: whole sentences if any fit, at most ``most`` steps."""
    first = max(0, episode.question - most)
    fitting = [start for start in sentence_starts(episode.story_words) if start >= first]
    return range(fitting[0] if fitting else first, episode.question)


def _panels(trace: Trace, kind: Map, rows: range, columns: range, heads: Heads) -> list[Panel]:
    """The map of one comparison: one panel, or one for each head."""
    values = similarities(trace[kind.rows][list(rows)], trace[kind.columns][list(columns)], heads)
    maps = values.numpy().reshape(-1, len(rows), len(columns))
    row_steps, column_steps = np.array(rows)[:, None], np.array(columns)[None]
    # A step reads after its own write, but only earlier writes are news to compare a write with.
    compared = column_steps <= row_steps if kind is READ_WRITTEN else column_steps < row_steps
    names = [f", head {number}" for number in range(1, len(maps) + 1)] if heads == "separately" else [""]
    maps = np.where(compared & np.isfinite(maps), maps, np.nan)
    limit = float(np.nanmax(np.abs(maps), initial=SMALLEST_LIMIT))
    return [Panel(one, kind.title + name, limit) for one, name in zip(maps, names, strict=True)]


class _Sheet:
    """A figure whose axes are placed in inches, from the upper left corner."""

    def __init__(self, width: float, height: float, title: str):
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        self.figure.text(0.1 / width, 1 - 0.22 / height, title, fontsize=FONT + 2, va="center")

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        box = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(box)


def _draw(
    trace: Trace, episode: Episode, rows: range, columns: range, panels: list[Panel], title: str
) -> Figure:
    """Maps one under the other; bars of rate and write size above the first, and at the right of each."""
    row_words, column_words = ([episode.words[step] for step in steps] for steps in (rows, columns))
    bars = [name for name in ("write_sizes", "rates") if name in trace]
    left = max(LEFT, 0.25 + LETTER * max(map(len, row_words)))
    map_width, map_height = max(MAP, CELL * len(columns)), CELL * len(rows)
    strips = len(bars) * (STRIP + GAP)
    step = CAPTION + map_height + 0.25 + LETTER * max(map(len, column_words))
    right = left + map_width + GAP
    sheet = _Sheet(max(right + strips + 0.9, PICTURE), 0.5 + strips + step * len(panels), title)
    for number, name in enumerate(bars):
        strip = sheet.axes(left, 0.5 + number * (STRIP + GAP), map_width, STRIP)
        _draw_bars(strip, trace[name][list(columns), 0].numpy(), name, vertical=True)
        if name == "write_sizes" and len(strip.containers) > 1:
            strip.legend(bbox_to_anchor=(1, 1.2), loc="upper left", frameon=False, fontsize=FONT - 1)
    for number, panel in enumerate(panels):
        top = 0.5 + strips + number * step + CAPTION
        axes = sheet.axes(left, top, map_width, map_height)
        image = _draw_map(axes, panel, row_words, column_words)
        for place, name in enumerate(reversed(bars)):
            strip = sheet.axes(right + place * (STRIP + GAP), top, STRIP, map_height)
            _draw_bars(strip, trace[name][list(rows), 0].numpy(), name, vertical=False)
        colour_bar = sheet.axes(right + strips, top, COLOUR_BAR, min(max(map_height, 0.8), 2.5))
        sheet.figure.colorbar(image, colour_bar).ax.tick_params(labelsize=FONT - 1)
        colour_bar.set_title("cosine", fontsize=FONT - 1, loc="left")
    return sheet.figure


def _draw_map(axes: Axes, panel: Panel, rows: Sequence[str], columns: Sequence[str]) -> AxesImage:
    axes.set_facecolor("0.9")
    image = axes.imshow(panel.values, "RdBu_r", norm=CenteredNorm(0, panel.limit), aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=FONT)
    axes.set_yticks(range(len(rows)), rows, fontsize=FONT)
    axes.tick_params(length=0)
    for start in sentence_starts(tuple(columns))[1:]:
        axes.axvline(start - 0.5, color="0.3", linewidth=0.6)
    for start in sentence_starts(tuple(rows))[1:]:
        axes.axhline(start - 0.5, color="0.3", linewidth=0.6)
    axes.set_title(panel.title, fontsize=FONT + 1, loc="left", pad=4)
    return image


def _draw_bars(axes: Axes, values: np.ndarray, name: str, vertical: bool) -> None:
    """A bar for each step; ``values`` are ``[steps, L]``: sizes are stacked, rates are averaged."""
    values = np.where(np.isfinite(values), values, 0)
    places = np.arange(len(values))
    if name == "rates":
        layers, colours, label, most = values.mean(1)[:, None], (RATE_COLOUR,), "rate", 1.0
    else:
        layers, colours, label, most = values, LAYER_COLOURS, "write size", None
    base = np.zeros(len(values))
    draw = axes.bar if vertical else axes.barh
    for number, sizes in enumerate(layers.T):
        draw(places, sizes, 0.7, base, color=colours[number % len(colours)], label=f"layer {number + 1}")
        base += sizes
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=FONT - 2, length=2, pad=1)
    if vertical:
        axes.set(xlim=(-0.5, len(values) - 0.5), ylim=(0, most), xticks=[])
        axes.set_ylabel(label, fontsize=FONT - 1)
    else:
        axes.set(ylim=(len(values) - 0.5, -0.5), xlim=(0, most), yticks=[])
        axes.set_xticks([0, 1] if most == 1 else [0, int(base.max()) or round(float(base.max()), 1)])
        axes.set_title(label, fontsize=FONT - 1)
