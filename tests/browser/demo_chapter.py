"""A small chapter with every kind of control, to test the site's machinery whatever the chapters hold."""

from __future__ import annotations

import nbformat

SETUP = """\
import matplotlib.pyplot as plt
import numpy as np

from perturb_tutorial.study.widgets import explorer


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
draw(2).set_size_inches(12, 3)
plt.show()"""

FRAME = """\
import pandas as pd

columns = {f"a wide column {i}": [1, 2] for i in range(9)}
pd.DataFrame(columns)"""

PROSE = r"""# Demo: controls

*Every kind of control, a figure and a formula.*

## A formula

The norm $\lVert 1 - m \rVert_1$ and, from {cite}`fong2017`, {numref}`fig-demo`:

$$ \lambda_1 \sum_u \boldsymbol{m}(u) $$ (eq-demo)

Too wide for a phone, each in its own way:

$$ \lambda_1 \lVert 1 - m \rVert_1 + \lambda_2 \sum_u \lVert \nabla m(u) \rVert_2^\beta
   + \mathbb{E}_\tau f_c(\Phi(x_0(\cdot - \tau); m)) + \lambda_3 \sum_{u \in \Lambda} (m(u) - m_0(u))^2 $$

| quantity | the paper | here | measured on | label | command |
|---|---|---|---|---|---|
| $\lambda_1$ | 0.0001 (default) | 0.0001 | everything | reproduced | `perturb-tutorial explain` |

`a_very_long_name_in_code.that_does_not_break(anywhere_at_all_in_this_line)`

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
    return v4.new_notebook(cells=[*cells, *map(v4.new_code_cell, (FRAME, SLIDER, PAIR))])
