"""The paper's tables and claims, and what was measured beside what it reports; `page` is a command by itself."""

from steerpaper.paper.arithmetic import paper_arithmetic
from steerpaper.paper.beside import reported_numbers, verdict_counts
from steerpaper.paper.claims import VERDICTS, our_table
from steerpaper.paper.scorecard import scorecard
from steerpaper.paper.tables import average_drop, paper_tables

__all__ = ["VERDICTS", "average_drop", "our_table", "paper_arithmetic", "paper_tables", "reported_numbers", "scorecard", "verdict_counts"]
