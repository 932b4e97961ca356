"""Tables in GitHub's markdown."""

import pandas as pd


def markdown_table(table: pd.DataFrame) -> str:
    """A table with its column names, one line per row; missing values are empty, bars within cells are escaped."""
    lines = [list(table.columns), ["---"] * table.shape[1], *table.fillna("").astype(str).to_numpy().tolist()]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
