"""The map of the maze: which cells are free, where each action leads, and what each cell looks like.

Dimensions: ``F`` free cells, ``S`` side of the array with its border wall (S = size + 2), ``A`` = 4 actions.

A *cell* is a number from 0 to F - 1: the free cells counted row by row. A *position* is a pair
(row, column) in the S x S array, border included.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnm_rl.sizes import check_fits

ACTIONS = ("up", "down", "left", "right")
MOVES = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
"""Row and column change of each action, shape ``[A, 2]``."""

BYTES_PER_CELL = 60
"""Of the tables, at least: three quarters of the cells are free and have a row in each."""


class MazeLayout(NamedTuple):
    """Everything about a maze that does not change: build it with :func:`maze_layout`."""

    walls: NDArray[np.bool_]
    """``[S, S]``: True where there is a wall."""
    positions: NDArray[np.intp]
    """``[F, 2]``: row and column of each free cell."""
    cell_at: NDArray[np.intp]
    """``[S, S]``: the free cell at a position, -1 for a wall."""
    centre: int
    """The cell in the middle of the maze, where every episode starts."""
    next_cell: NDArray[np.intp]
    """``[F, A]``: the cell that an action leads to; the same cell when a wall is in the way."""
    bumps: NDArray[np.bool_]
    """``[F, A]``: True where an action runs into a wall."""
    views: NDArray[np.bool_]
    """``[F, 9]``: the walls of the 3x3 neighbourhood, row by row."""

    @property
    def num_cells(self) -> int:
        """F."""
        return len(self.positions)


@lru_cache(maxsize=32)
def maze_layout(size: int) -> MazeLayout:
    """Build the tables of the maze with ``size`` x ``size`` interior cells (odd, at least 3).

    There is a pillar at every interior position whose row and column are both even, except in the middle:
    the centre is always free, also for sizes 3, 7, 11, ... where a pillar would stand on it.
    """
    side = size + 2
    check_fits(side**2 * BYTES_PER_CELL, f"a maze of size {size}")
    walls = np.zeros((side, side), dtype=bool)
    walls[[0, -1], :] = walls[:, [0, -1]] = True
    walls[2:-1:2, 2:-1:2] = True
    middle = side // 2
    walls[middle, middle] = False

    positions = np.argwhere(~walls)
    cell_at = np.full((side, side), -1)
    cell_at[tuple(positions.T)] = np.arange(len(positions))
    targets = cell_at[tuple((positions[:, None] + MOVES).transpose(2, 0, 1))]
    bumps = targets < 0
    stay = np.arange(len(positions))[:, None]
    views = np.lib.stride_tricks.sliding_window_view(walls, (3, 3)).reshape(size, size, 9)
    layout = MazeLayout(
        walls=walls,
        positions=positions,
        cell_at=cell_at,
        centre=int(cell_at[middle, middle]),
        next_cell=np.where(bumps, stay, targets),
        bumps=bumps,
        views=views[tuple((positions - 1).T)],
    )
    for table in layout:
        if isinstance(table, np.ndarray):
            table.flags.writeable = False  # the tables are shared by every maze of this size
    return layout


def symmetries(layout: MazeLayout) -> NDArray[np.intp]:
    """Where each cell goes under the eight rotations and reflections of the maze, shape ``[8, F]``."""
    squares = (layout.cell_at, layout.cell_at.T)
    turned = [np.rot90(square, quarter) for square in squares for quarter in range(4)]
    return np.array([square[tuple(layout.positions.T)] for square in turned])
