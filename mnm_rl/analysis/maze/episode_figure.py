"""An episode in the maze, and beside it what goes on inside the agent.

Dimensions: ``T`` time, ``A`` = 4 actions, ``L`` memory layers; pictures are uint8 ``[height, width, 3]``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.quiver import Quiver
from numpy.typing import NDArray

from mnm_rl.analysis.maze.episodes import MazeEpisodes
from mnm_rl.envs import render_frame
from mnm_rl.envs.layout import MOVES

WIDTH, HEIGHT, MAZE, MARGIN = 8.8, 4.3, 3.5, 0.1
"""Of the figure, of the maze in it and around the maze, in inches."""
TILE_SIZE = 24
"""Pixels per cell of the maze, before it is scaled to the figure."""
FONT = 8
FOUND_COLOUR, WALL_COLOUR = "goldenrod", "tab:red"
LAYER_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown")
DISC = 0.4
"""From the middle of the agent to where its arrows begin, in cells."""
CAPTION = (
    "yellow: the goal, drawn for us; the agent cannot see it\n"
    "green: the agent; it sees the lighter cells; blue: its path here\n"
    "white arrows: its next actions, longer if more probable"
)
VALUE = "value: the reward that the agent expects, discounted"
STRIPS = {
    "rates": r"write rate $\beta$",
    "write_sizes": "size of the step's write",
    "memory_distances": "distance of the memory from its initial weights",
}
"""Tensors of a trace that are drawn over time, and what stands above them."""


class EpisodeFigure:
    """The maze at one step, and strips over the whole episode with a cursor at that step.

    The strips are the value and, as far as the core has them, write rate, write sizes and distance of the
    memory from its initial weights.

    Args:
        episode: of a single maze.
        dpi: pixels per inch; the figure is 8.8 by 4.3 inches.
    """

    def __init__(self, episode: MazeEpisodes, dpi: float = 100):
        self.episode = episode
        self._canvas = FigureCanvasAgg(Figure(figsize=(WIDTH, HEIGHT), dpi=dpi))
        self._maze, self._title = self._add_maze()
        self._picture, self._arrows = self._add_agent()
        self._cursors = [axes.axvline(0, color="black", linewidth=1.2) for axes in self._add_strips()]
        self._moving: list[Any] = [self._picture, self._arrows, self._title, *self._cursors]
        for artist in self._moving:
            artist.set_animated(True)
        self._canvas.draw()
        self._still = self._canvas.copy_from_bbox(self._canvas.figure.bbox)

    def show(self, step: int) -> NDArray[np.uint8]:
        """The picture of a step, from 0 to T - 1."""
        episode = self.episode
        path = episode.cells[_stretch_start(episode, step) : step + 1, 0].tolist()
        frame = render_frame(episode.rules.layout, path[-1], int(episode.goals[0]), path, TILE_SIZE)
        self._picture.set_data(frame)
        self._point(path[-1], episode.probabilities[step, 0])
        reward = episode.rewards[:step].sum()
        self._title.set_text(f"step {step} of {len(episode.cells)}, reward so far {reward:.1f}")
        for cursor in self._cursors:
            cursor.set_xdata([step, step])
        # Only what moves is drawn again: an animation has hundreds of pictures.
        self._canvas.restore_region(self._still)
        for artist in self._moving:
            artist.axes.draw_artist(artist)
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()

    def _add_maze(self) -> tuple[Axes, Any]:
        box = (MARGIN / WIDTH, 1 - (MAZE + 0.25) / HEIGHT, MAZE / WIDTH, MAZE / HEIGHT)
        axes = self._canvas.figure.add_axes(box)
        axes.set_axis_off()
        self._canvas.figure.text(MARGIN / WIDTH, 0.04 / HEIGHT, CAPTION, fontsize=FONT, va="bottom")
        return axes, axes.set_title("", fontsize=FONT + 1, loc="left", pad=3)

    def _add_agent(self) -> tuple[AxesImage, Quiver]:
        side = len(self.episode.rules.layout.walls)
        picture = self._maze.imshow(
            np.zeros((1, 1, 3)), extent=(0, side, side, 0), interpolation="antialiased"
        )
        still = np.zeros(len(MOVES))
        arrows = self._maze.quiver(
            *(still, still, still, still),
            angles="xy",
            scale_units="xy",
            scale=1,
            width=0.013,
            headwidth=3,
            headlength=3,
            headaxislength=2.7,
            zorder=3,
        )
        return picture, arrows

    def _point(self, cell: int, probabilities: NDArray[np.float32]) -> None:
        """Let arrows ``[A]`` go out from the agent, as long as their actions are probable."""
        row, column = self.episode.rules.layout.positions[cell] + 0.5
        directions = MOVES[:, ::-1].astype(float)
        self._arrows.set_offsets(np.array([column, row]) + DISC * directions)
        self._arrows.set_UVC(*(directions * probabilities[:, None]).T)
        # An arrow that is too short to be seen would become a dot.
        self._arrows.set_facecolor([to_rgba("white", float(part > 0.05)) for part in probabilities])

    def _add_strips(self) -> list[Axes]:
        episode = self.episode
        names = [name for name in STRIPS if name in episode.trace]
        grid = self._canvas.figure.add_gridspec(
            len(names) + 1,
            left=(MARGIN + MAZE + 0.55) / WIDTH,
            right=1 - 0.15 / WIDTH,
            bottom=0.4 / HEIGHT,
            top=1 - 0.25 / HEIGHT,
            hspace=0.45,
        )
        strips = list(grid.subplots(sharex=True, squeeze=False)[:, 0])
        _draw_strip(strips[0], episode.values, VALUE)
        for axes, name in zip(strips[1:], names, strict=True):
            _draw_strip(axes, episode.trace[name][:, 0].numpy(), STRIPS[name])
        self._mark_rewards(strips)
        strips[-1].set_xlabel("step", fontsize=FONT, labelpad=1)
        strips[-1].set_xlim(0, len(episode.cells))
        return strips

    def _mark_rewards(self, strips: list[Axes]) -> None:
        episode = self.episode
        bumps = episode.rules.layout.bumps[episode.cells, episode.actions]
        for axes in strips:
            for step in np.flatnonzero(episode.found).tolist():
                axes.axvline(step, color=FOUND_COLOUR, linewidth=0.8, zorder=0)
        low, walls = strips[0].get_ylim()[0], np.flatnonzero(bumps)
        strips[0].plot(walls, np.full(len(walls), low), "|", color=WALL_COLOUR, markersize=6, clip_on=False)
        _label(strips[0], 0.91, "| goal", FOUND_COLOUR)
        _label(strips[0], 1, "| wall", WALL_COLOUR)


def _stretch_start(episode: MazeEpisodes, step: int) -> int:
    """The step after the last relocation before ``step``, or the first one."""
    earlier = np.flatnonzero(episode.found[:step])
    return int(earlier[-1]) + 1 if len(earlier) else 0


def _draw_strip(axes: Axes, lines: NDArray[np.float32], title: str) -> None:
    """Lines over time, ``[T, L]``; if there are several, it stands at the right which is which."""
    layers = lines.shape[1]
    colours = (
        [LAYER_COLOURS[layer % len(LAYER_COLOURS)] for layer in range(layers)] if layers > 1 else ["0.2"]
    )
    for layer, (line, colour) in enumerate(zip(lines.T, colours, strict=True)):
        axes.plot(line, color=colour, linewidth=1)
        if layers > 1:
            right = 1 - 0.05 * (layers - 1 - layer)
            _label(axes, right, f"layer {layer + 1}" if layer == 0 else str(layer + 1), colour)
    axes.set_title(title, fontsize=FONT, loc="left", pad=3)
    axes.tick_params(labelsize=FONT - 1, pad=2, length=2)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axes: Axes, right: float, text: str, colour: str) -> None:
    """A word above the axes that ends at ``right``, a fraction of their width."""
    axes.annotate(
        text,
        (right, 1),
        xytext=(0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=FONT,
        color=colour,
        ha="right",
    )
