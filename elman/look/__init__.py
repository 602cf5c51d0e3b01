"""Pictures of what a network learned: functions that make matplotlib figures, and one page that holds them all.

    from elman import look
    from elman.begin import looked_at

    page = look.show(*looked_at("runs/text"))     # in a notebook the page itself; page.html, page.figures["gates"]
    look.graph.unfolded(elman.cell.LSTM(8, 16))   # a figure

Every figure on a page has a function of its own, in the module that names it, which takes what a task's `views` give.
They need the extra "plot". Figures are made without pyplot: in a notebook, say %matplotlib inline once to see them.
"""

from elman.look import graph
from elman.look.page import Page
from elman.look.show import show, write_figures

__all__ = ["Page", "graph", "show", "write_figures"]
