"""A chapter that has every part of the template, small enough to read, for tests of the book's tools."""

from __future__ import annotations

import nbformat
from nbformat import NotebookNode

OPENING = """# A small chapter

*It shows what every chapter has.*

**You will learn** what the parts are.

**Builds on** nothing.

**Time** 1 min to read, 1 min to run (quick run: 1 s).

## First

Prose.

**Remember**: a section ends with its idea.

## Second

```{exercise-start}
:label: ex-sum
```

Add 1 and 1. **Expected** 2.

```{hint}
:class: dropdown
Use `+`.
```

```{exercise-end}
```
"""

SOLUTION_START = """```{solution-start} ex-sum
:class: dropdown
```"""

SOLUTION_END = """```{solution-end}
```"""

CLOSING = """**Remember**: an exercise comes before the last sentence of its section.

## The paper and here

| quantity | paper | here | label |
|---|---|---|---|
| sum | 2 | 2 | reproduced |

## Summary

Parts are parts.

## Next

Nothing.
"""

FIGURE = """\
import matplotlib.pyplot as plt

fig, ax = plt.subplots(figsize=(3, 2))
ax.plot([0, 1], [0, 1])
plt.show()"""

WIDGET = """\
import ipywidgets

slider = ipywidgets.IntSlider(value=1, max=3, description="step")
frames = ipywidgets.Stack([ipywidgets.HTML(str(i)) for i in range(4)])
ipywidgets.jslink((slider, "value"), (frames, "selected_index"))
ipywidgets.VBox([slider, frames])"""

DESCRIBED = {
    "image": {"alt": "A straight line from the lower left to the upper right."},
    "figure": {"caption": "The identity.", "name": "fig-identity"},
}


def chapter() -> NotebookNode:
    """The chapter, not yet executed: 4 code cells, the last one a solution."""
    v4 = nbformat.v4
    figure = v4.new_code_cell(FIGURE, metadata={"mystnb": DESCRIBED})
    solution = {"tags": ["solution"]}
    return v4.new_notebook(
        cells=[
            v4.new_markdown_cell(OPENING),
            v4.new_code_cell('print("first")\nprint("second")'),
            figure,
            v4.new_code_cell(WIDGET),
            v4.new_markdown_cell(SOLUTION_START, metadata=solution),
            v4.new_code_cell("1 + 1", metadata=solution),
            v4.new_markdown_cell(SOLUTION_END, metadata=solution),
            v4.new_markdown_cell(CLOSING),
        ]
    )
