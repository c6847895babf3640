"""Pictures and texts of the maze, drawn with MiniGrid's grid and objects.

Dimensions: ``S`` side of the array with its border wall.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # MiniGrid imports pygame, which greets on stdout

from minigrid.core.constants import COLOR_TO_IDX, COLORS, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.world_object import Goal, Wall, WorldObj
from minigrid.utils.rendering import fill_coords, point_in_circle, point_in_rect

from mnm_rl.envs.layout import MazeLayout

AGENT_COLOR = "green"
GOAL_COLOR = "yellow"
PATH_START = np.array([70, 130, 255])
PATH_END = np.array([255, 90, 160])
_ANTIALIASING = 4
_LANES = 0.1 * np.array([(0, 0), (-2, -2), (2, 2), (-1, -1), (1, 1), (-3, -3), (3, 3)])


class Agent(WorldObj):
    """A green disc: this agent has no direction, unlike MiniGrid's own."""

    def __init__(self, on_goal: bool) -> None:
        super().__init__("agent", AGENT_COLOR)
        self.on_goal = on_goal

    def encode(self) -> tuple[int, int, int]:
        """The numbers that MiniGrid caches the drawn tile under."""
        return OBJECT_TO_IDX[self.type], COLOR_TO_IDX[self.color], int(self.on_goal)

    def render(self, r: NDArray[np.uint8]) -> None:
        """Draw the agent, and the goal under it."""
        if self.on_goal:
            fill_coords(r, point_in_rect(0, 1, 0, 1), COLORS[GOAL_COLOR])
        fill_coords(r, point_in_circle(0.5, 0.5, 0.36), (0, 0, 0))
        fill_coords(r, point_in_circle(0.5, 0.5, 0.32), COLORS[AGENT_COLOR])


def render_frame(
    layout: MazeLayout,
    agent_cell: int,
    goal_cell: int,
    path: Sequence[int] | None = None,
    tile_size: int = 32,
) -> NDArray[np.uint8]:
    """Draw the maze: walls grey, goal yellow, agent green, the cells it sees lighter.

    Args:
        layout: the map.
        agent_cell: where the agent is.
        goal_cell: where the goal is.
        path: the cells the agent was in at the start and after each step, if its path is to be drawn. A step
            between cells that are not neighbours is a relocation: there the line ends in the goal, and a new
            one begins with a ring. The first is blue, the last is pink.
        tile_size: width of a cell in pixels.

    Returns:
        the picture, uint8, shape ``[S * tile_size, S * tile_size, 3]``.
    """
    side = len(layout.walls)
    grid = Grid(side, side)
    for row, column in np.argwhere(layout.walls).tolist():
        grid.set(column, row, Wall())
    goal_row, goal_column = layout.positions[goal_cell].tolist()
    grid.set(goal_column, goal_row, Goal(GOAL_COLOR))
    row, column = layout.positions[agent_cell].tolist()
    grid.set(column, row, Agent(on_goal=agent_cell == goal_cell))
    seen = np.zeros((side, side), dtype=bool)
    seen[column - 1 : column + 2, row - 1 : row + 2] = True
    picture = grid.render(tile_size, agent_pos=(column, row), highlight_mask=seen)
    return picture if path is None else _with_path(picture, layout, path, goal_cell, tile_size)


def render_text(layout: MazeLayout, agent_cell: int, goal_cell: int) -> str:
    """Write the maze as text: ``#`` wall, ``.`` free, ``G`` goal, ``A`` agent, ``@`` agent on the goal."""
    symbols = np.where(layout.walls, "#", ".")
    symbols[tuple(layout.positions[goal_cell])] = "G"
    symbols[tuple(layout.positions[agent_cell])] = "@" if agent_cell == goal_cell else "A"
    return "\n".join("".join(row) for row in symbols) + "\n"


def _with_path(
    picture: NDArray[np.uint8], layout: MazeLayout, path: Sequence[int], goal_cell: int, tile_size: int
) -> NDArray[np.uint8]:
    """Draw a path over a picture: a ring where a stretch begins, a dot where it reaches the goal."""
    scale = tile_size * _ANTIALIASING
    overlay = Image.new("RGBA", (picture.shape[1] * _ANTIALIASING, picture.shape[0] * _ANTIALIASING))
    pen = ImageDraw.Draw(overlay)
    width = max(1, round(0.07 * scale))
    stretches = _stretches(layout, path, goal_cell)
    for number, cells in enumerate(stretches):
        color = _path_color(number / max(len(stretches) - 1, 1))
        # Each stretch keeps a lane of its own, so that those that share a corridor stay apart.
        lane = _LANES[number % len(_LANES)]
        points = ((layout.positions[cells][:, ::-1] + 0.5 + lane) * scale).tolist()
        pen.line([tuple(point) for point in points], fill=color, width=width, joint="curve")
        _disc(pen, points[0], 1.6 * width, color)
        _disc(pen, points[0], 0.8 * width, (0, 0, 0))
        if cells[-1] == goal_cell:
            _disc(pen, points[-1], 1.2 * width, color)
    small = overlay.resize((picture.shape[1], picture.shape[0]), Image.Resampling.LANCZOS)
    return np.asarray(Image.alpha_composite(Image.fromarray(picture).convert("RGBA"), small).convert("RGB"))


def _stretches(layout: MazeLayout, path: Sequence[int], goal_cell: int) -> list[list[int]]:
    """Cut a path where the agent was relocated, and let each piece end on the goal that caused it."""
    pieces = [[int(path[0])]]
    for cell in path[1:]:
        neighbours = layout.next_cell[pieces[-1][-1]]
        if cell in neighbours:
            pieces[-1].append(int(cell))
        else:
            if goal_cell in neighbours:
                pieces[-1].append(int(goal_cell))
            pieces.append([int(cell)])
    return pieces


def _path_color(fraction: float) -> tuple[int, ...]:
    return tuple(np.rint(PATH_START + fraction * (PATH_END - PATH_START)).astype(int).tolist())


def _disc(pen: ImageDraw.ImageDraw, centre: Sequence[float], radius: float, color: tuple[int, ...]) -> None:
    x, y = centre
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color)


class Window:
    """A window on the screen, by pygame, for ``render_mode="human"``."""

    def __init__(self, fps: int) -> None:
        import pygame

        self._pygame = pygame
        self._fps = fps
        self._clock = pygame.time.Clock()
        self._surface: pygame.Surface | None = None

    def show(self, picture: NDArray[np.uint8]) -> None:
        """Show a picture, uint8 ``[height, width, 3]``, at most ``fps`` of them a second."""
        pygame = self._pygame
        if self._surface is None:
            pygame.display.init()
            self._surface = pygame.display.set_mode((picture.shape[1], picture.shape[0]))
            pygame.display.set_caption("MNMMaze")
        self._surface.blit(pygame.surfarray.make_surface(picture.swapaxes(0, 1)), (0, 0))
        pygame.event.pump()
        pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        """Close the window."""
        if self._surface is not None:
            self._pygame.display.quit()
            self._surface = None
