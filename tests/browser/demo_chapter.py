"""A small chapter with every kind of control, so that the site's machinery is tested whatever the chapters hold."""

from __future__ import annotations

import nbformat

SETUP = """\
import matplotlib.pyplot as plt
import numpy as np

from perturb_tutorial.widgets import explorer


def draw(power, color="tab:blue"):
    fig, ax = plt.subplots(figsize=(4, 2))
    ax.plot(np.linspace(0, 1, 20) ** power, color=color)
    return fig"""

SLIDER = """\
frames = {power: draw(power) for power in (0.5, 1, 2, 3)}
explorer(frames, label="power λ₁", alt=lambda p: f"The curve x to the {p}",
         play=True, live=draw)"""

PAIR = """\
colors = ("tab:blue", "tab:orange")
frames = {(p, c): draw(p, c) for p in (1, 2) for c in colors}
explorer(frames, label=("power", "color"), control=("dropdown", "buttons"),
         alt="A curve", live=draw)"""

FIGURE = """\
draw(2)
plt.show()"""

PROSE = r"""# Demo: controls

*Every kind of control, a figure and a formula.*

## A formula

The norm $\lVert 1 - m \rVert_1$ and, from {cite}`fong2017`, {numref}`fig-demo`:

$$ \lambda_1 \sum_u \boldsymbol{m}(u) $$ (eq-demo)

| parameter | value |
|---|---|
| $\lambda_1$ | 1e-4 |

:::{exercise}
:label: ex-demo
A short one. **Expected** 2.
:::

:::{solution} ex-demo
:class: dropdown
1 + 1.
:::
"""


def demo_chapter() -> nbformat.NotebookNode:
    """The chapter, not yet executed."""
    v4 = nbformat.v4
    figure = v4.new_code_cell(FIGURE)
    figure.metadata["tags"] = ["hide-input"]
    figure.metadata["mystnb"] = {
        "image": {"alt": "A parabola that rises from 0 to 1."},
        "figure": {"caption": r"A parabola, $\lambda_1$ in its caption.", "name": "fig-demo"},
    }
    cells = [v4.new_markdown_cell(PROSE), v4.new_code_cell(SETUP), figure]
    return v4.new_notebook(cells=[*cells, v4.new_code_cell(SLIDER), v4.new_code_cell(PAIR)])
