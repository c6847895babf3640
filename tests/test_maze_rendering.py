"""Pictures and texts of the maze."""

from __future__ import annotations

from typing import cast

import gymnasium
import numpy as np
import pytest

import mnm_rl  # noqa: F401 - registers the environments
from mnm_rl.envs import MazeEnv, MazeRules, MazeVecEnv, MazeVectorEnv, render_frame
from mnm_rl.envs.rendering import render_text

GREEN, YELLOW, GREY, BLACK = (0, 255, 0), (255, 255, 0), (100, 100, 100), (0, 0, 0)
LAYOUT = MazeRules().layout


def cell(row: int, column: int) -> int:
    return int(LAYOUT.cell_at[row, column])


def centre_of(picture: np.ndarray, row: int, column: int, tile: int = 32) -> tuple[int, ...]:
    return tuple(picture[row * tile + tile // 2, column * tile + tile // 2].tolist())


def lighter(color: tuple[int, ...]) -> tuple[int, ...]:
    """MiniGrid's highlight: 30% white."""
    return tuple(int(value + 0.3 * (255 - value)) for value in color)


def test_colours_and_view():
    picture = render_frame(LAYOUT, cell(3, 3), cell(7, 8))
    assert picture.shape == (11 * 32, 11 * 32, 3)
    assert picture.dtype == np.uint8
    assert centre_of(picture, 7, 8) == YELLOW
    assert centre_of(picture, 3, 3) == lighter(GREEN)
    assert centre_of(picture, 0, 5) == GREY
    assert centre_of(picture, 6, 6) == GREY
    assert centre_of(picture, 9, 9) == BLACK
    for row in range(1, 10):
        for column in range(1, 10):
            seen = abs(row - 3) <= 1 and abs(column - 3) <= 1
            if (row, column) not in {(3, 3), (7, 8)}:
                color = GREY if LAYOUT.walls[row, column] else BLACK
                assert centre_of(picture, row, column) == (lighter(color) if seen else color)


def test_agent_on_the_goal_shows_both():
    picture = render_frame(LAYOUT, cell(1, 1), cell(1, 1))
    assert centre_of(picture, 1, 1) == lighter(GREEN)
    assert tuple(picture[32 + 3, 32 + 3].tolist()) == lighter(YELLOW)
    assert tuple(render_frame(LAYOUT, cell(1, 1), cell(5, 5))[32 + 3, 32 + 3].tolist()) == lighter(BLACK)


def test_a_path_is_drawn_over_the_cells_it_crosses_and_nowhere_else():
    plain = render_frame(LAYOUT, cell(5, 7), cell(1, 1), tile_size=40)
    path = [cell(5, column) for column in (5, 6, 7)]
    drawn = render_frame(LAYOUT, cell(5, 7), cell(1, 1), path=path, tile_size=40)
    changed = (plain != drawn).any(axis=-1).reshape(11, 40, 11, 40).any(axis=(1, 3))
    assert {tuple(place) for place in np.argwhere(changed).tolist()} == {(5, 5), (5, 6), (5, 7)}


def test_a_path_ends_in_the_goal_and_jumps_without_a_line():
    path = [cell(5, 5), cell(9, 9), cell(9, 8)]  # from (5, 5) onto the goal at (4, 5), then put on (9, 9)
    plain = render_frame(LAYOUT, cell(9, 8), cell(4, 5))
    drawn = render_frame(LAYOUT, cell(9, 8), cell(4, 5), path=path)
    changed = (plain != drawn).any(axis=-1).reshape(11, 32, 11, 32).any(axis=(1, 3))
    places = {tuple(place) for place in np.argwhere(changed).tolist()}
    assert {(5, 5), (4, 5), (9, 9), (9, 8)} <= places
    assert (7, 7) not in places


def test_text():
    text = render_text(LAYOUT, cell(5, 5), cell(9, 9))
    rows = text.splitlines()
    assert rows[0] == rows[10] == "#" * 11
    assert rows[5] == "#....A....#"
    assert rows[9] == "#........G#"
    assert rows[8] == "#.#.#.#.#.#"
    assert "@" in render_text(LAYOUT, 0, 0)


def test_render_modes():
    env = gymnasium.make("MNMMaze-5x5", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    assert frame.shape == (7 * 32, 7 * 32, 3)
    env = gymnasium.make("MNMMaze-5x5", render_mode="ansi")
    env.reset(seed=0)
    text = env.render()
    assert isinstance(text, str)
    assert text.count("\n") == 7
    assert MazeEnv().render() is None


def test_batches_render_each_maze():
    batch = gymnasium.make_vec("MNMMaze-5x5", num_envs=3, render_mode="rgb_array")
    batch.reset(seed=0)
    frames = cast(tuple[np.ndarray, ...], batch.render())
    assert [frame.shape for frame in frames] == [(7 * 32, 7 * 32, 3)] * 3
    texts = MazeVectorEnv(2, render_mode="ansi")
    texts.reset(seed=0)
    drawn = texts.render()
    assert drawn is not None
    assert all("A" in text or "@" in text for text in drawn)
    tiled = MazeVecEnv(4, size=5, render_mode="rgb_array")
    tiled.reset()
    assert tiled.render().shape == (2 * 7 * 32, 2 * 7 * 32, 3)
    assert len(tiled.env_method("render", indices=[0, 1])) == 2


def test_window(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame = pytest.importorskip("pygame")
    env = MazeEnv(render_mode="human", size=5)
    env.metadata = {**env.metadata, "render_fps": 1000}
    env.reset(seed=0)
    env.step(0)
    assert pygame.display.get_surface().get_size() == (7 * 32, 7 * 32)
    env.close()
    assert pygame.display.get_surface() is None
    env.close()
