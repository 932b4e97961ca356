"""The paper's tables and claims, and what was measured beside what it reports; `page` is a command by itself."""

from steerpaper.paper.arithmetic import paper_arithmetic
from steerpaper.paper.beside import reported_numbers
from steerpaper.paper.claims import VERDICTS
from steerpaper.paper.second import SECOND, beside_each_other, cases_of, told_beside
from steerpaper.paper.tables import average_drop, paper_graph, paper_text, reported, sparsity_kept
from steerpaper.paper.verdicts import recorded_verdicts, scorecard

__all__ = [
    "SECOND", "VERDICTS", "average_drop", "beside_each_other", "cases_of", "paper_arithmetic", "paper_graph",
    "paper_text", "recorded_verdicts", "reported", "reported_numbers", "scorecard", "sparsity_kept", "told_beside",
]
