"""Draw one step of MNM, after Figure 1 of Munkhdalai et al. 2019, into docs/images/step.svg.

python docs/draw_step.py
"""

from pathlib import Path

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

OUT = Path(__file__).parent / "images" / "step.svg"
INK, WRITE, READ = "#222222", "#1a7f37", "#0b5cad"
Point = tuple[float, float]


def box(axes: Axes, corner: Point, size: Point, text: str, fill: str) -> None:
    """A rounded box with a text in its middle."""
    shape = FancyBboxPatch(corner, *size, "round,pad=0,rounding_size=0.12", facecolor=fill, edgecolor=INK)
    axes.add_patch(shape)
    axes.text(corner[0] + size[0] / 2, corner[1] + size[1] / 2, text, ha="center", va="center", color=INK)


def arrow(axes: Axes, points: list[Point], text: str = "", at: Point = (0, 0), colour: str = INK) -> None:
    """An arrow along a line of points, and its text."""
    axes.plot(*zip(*points[:-1], strict=True), color=colour, linewidth=1.6, solid_capstyle="butt")
    style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", points[-1], points[-2], arrowprops=style)
    axes.text(*at, text, ha="center", va="center", color=colour, fontsize=12)


def main() -> None:
    """Draw and save."""
    matplotlib.use("Agg")
    matplotlib.rcParams.update({"svg.hashsalt": "step", "mathtext.fontset": "cm", "font.size": 11})
    figure, axes = pyplot.subplots(figsize=(9.8, 3.7))
    axes.set(xlim=(0, 12.5), ylim=(0, 4.7))
    axes.axis("off")
    box(axes, (1.2, 1.5), (1.7, 1.5), "controller\n(LSTM)", "#eef1f5")
    box(axes, (4.0, 1.2), (1.8, 2.1), "interaction\nvectors\n(Eq. 1)", "#eef1f5")
    box(
        axes,
        (7.8, 1.2),
        (2.3, 2.1),
        "memory $f_{\\phi}$,\na small network:\nits weights $\\phi$\nare the content",
        "#fdf3dc",
    )
    box(axes, (11.1, 1.75), (1.2, 1.0), "$y_t$\n(linear)", "#eef1f5")
    arrow(axes, [(0.2, 2.5), (1.2, 2.5)], "$x_t$", (0.6, 2.75))
    arrow(axes, [(2.9, 2.25), (4.0, 2.25)], "$h_t$", (3.45, 2.5))
    arrow(axes, [(5.8, 2.9), (7.8, 2.9)], "$k^w_t,\\ v^w_t,\\ \\beta_t$", (6.8, 3.15), WRITE)
    axes.text(
        6.8, 2.6, "1. write, $\\phi_{t-1}\\to\\phi_t$", ha="center", va="center", color=WRITE, fontsize=9.2
    )
    arrow(axes, [(5.8, 1.7), (7.8, 1.7)], "$k^r_t$", (6.8, 1.95), READ)
    axes.text(6.8, 1.4, "2. read, $f_{\\phi_t}(k^r_t)$", ha="center", va="center", color=READ, fontsize=9.2)
    arrow(axes, [(10.1, 2.25), (11.1, 2.25)], "$v^r_t$", (10.6, 2.5), READ)
    arrow(axes, [(2.05, 3.0), (2.05, 4.0), (11.7, 4.0), (11.7, 2.75)], "$h_t$", (6.8, 4.22))
    back = [(10.6, 2.25), (10.6, 0.5), (0.75, 0.5), (0.75, 1.9), (1.2, 1.9)]
    arrow(axes, back, "$v^r_t$, an input of the controller at the next step", (5.4, 0.24), READ)
    figure.savefig(OUT, bbox_inches="tight", facecolor="white", metadata={"Date": None})
    pyplot.close(figure)
    print(OUT)


if __name__ == "__main__":
    main()
