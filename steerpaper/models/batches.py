"""Rows of unequal lengths, computed batch by batch: those of like length together, fewer at once where memory runs
out."""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from tqdm import tqdm

from steerpaper.arguments import integer

T = TypeVar("T")
# Rows per pass that are left after memory ran out, by kind of work: what failed once in a process is not tried again.
_ROWS_LEFT: dict[str, int] = {}


def in_batches(
    lengths: Sequence[int], batch_size: int, what: str, compute: Callable[[list[int]], T], done: int = 0, *,
    show: bool = True,
) -> Iterator[tuple[list[int], T]]:
    """`compute(batch)` for batches of rows of like length, the shortest first.

    A batch for which an accelerator runs out of memory is taken again at half the size, and so is all that follows
    of this kind of work: `batch_size` is the most that is tried. So `compute` must leave nothing behind when it fails.
    Results do not depend on the batches beyond rounding; in bfloat16 rounding alone may change a greedy token.

    Args:
        lengths: of every row.
        batch_size: rows per batch at most.
        what: the kind of work, on the progress bar and in messages.
        compute: takes the indices of a batch's rows.
        done: the first rows, by length, that are not needed any more.
        show: whether more than one batch gets a progress bar.

    Yields:
        The indices of a batch's rows, and what was computed for them.

    Raises:
        ValueError: a batch size below 1.
        torch.OutOfMemoryError: a single row does not fit either.
    """
    batch_size = integer("batch_size", batch_size, 1)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    bar = None
    if show and len(order) - done > batch_size:  # no `disable=`: passed at all, it overrides TQDM_DISABLE
        bar = tqdm(desc=what, total=len(order), initial=done, unit="row", leave=False)
    try:
        while done < len(order):
            batch = order[done:done + min(batch_size, _ROWS_LEFT.get(what, batch_size))]
            results = _attempt(compute, batch, what, max(lengths[i] for i in batch))
            if not results:
                _ROWS_LEFT[what] = len(batch) // 2
                continue
            done += len(batch)
            if bar is not None:
                bar.update(len(batch))
            yield batch, results.pop()  # not kept here: two batches never live at once
    finally:
        if bar is not None:
            bar.close()


def _attempt(compute: Callable[[list[int]], T], batch: list[int], what: str, longest: int) -> list[T]:
    """What was computed, alone in a list; an empty one if there was not enough memory for several rows."""
    try:
        return [compute(batch)]
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise torch.OutOfMemoryError(
                f"out of memory while computing {what!r} for a single row of {longest} tokens. Lower max_new_tokens "
                "(or shorten the prompts), load the model with dtype='bfloat16', take a smaller one, or free the "
                f"memory that other processes hold. A lower batch_size does not help: {error}") from error
    # Only now, with the error gone, does nothing refer to the failed pass.
    gc.collect()
    torch.cuda.empty_cache()
    warnings.warn(f"out of memory with {len(batch)} rows ({what}): going on with {len(batch) // 2}", stacklevel=4)
    return []
