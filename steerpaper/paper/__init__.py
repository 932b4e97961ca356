"""The paper's tables and claims, and what was measured beside what it reports; `page` is a command by itself."""

from steerpaper.paper.arithmetic import paper_arithmetic
from steerpaper.paper.beside import reported_numbers, verdict_counts
from steerpaper.paper.claims import VERDICTS, our_table
from steerpaper.paper.scorecard import scorecard

__all__ = ["VERDICTS", "our_table", "paper_arithmetic", "reported_numbers", "scorecard", "verdict_counts"]
