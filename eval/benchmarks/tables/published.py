"""What the literature reports on ReMASC (EER, %): context beside a table, never the comparison.

By table, row and column as `catalogue` names them. "mean" is over the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eval.benchmarks.tables.cells import Cell

MEAN = "mean"
Figures = dict[tuple[str, str], float]


def _rows(columns: tuple[str, ...], rows: dict[str, tuple[float, ...]]) -> Figures:
    """The figures of rows whose values stand in the order of the columns (as many as a row has)."""
    return {
        (row, column): value
        for row, values in rows.items()
        for column, value in zip(columns, values, strict=False)
    }


_ARRAYS = ("D1", "D2", "D3", "D4")
_ENVIRONMENTS = ("outdoor", "indoor-1", "indoor-2", "vehicle")
_COUNTS = tuple(str(count) for count in range(1, 8))

# arXiv 2003.08225, Tables II to IV: first second, core -> eval
TABLE2 = _rows(
    _ARRAYS,
    {
        "nn-single": (16.6, 23.7, 23.7, 27.5),
        "nn-dummy": (16.0, 23.2, 24.5, 25.2),
        "nn-multichannel": (14.9, 15.4, 16.5, 19.8),
    },
)
TABLE3 = _rows(
    _COUNTS,
    {
        "D1, 1-2": (16.6, 14.9),
        "D2, 1-4-2-3": (23.7, 22.9, 18.0, 15.4),
        "D2, 1-2-3-4": (23.7, 19.5, 16.7, 15.4),
        "D3, 1-4-2-5-3-6": (23.7, 19.1, 17.6, 17.0, 17.1, 16.5),
        "D4, 1-4-2-5-3-6-7": (27.5, 21.5, 20.6, 21.3, 20.7, 19.9, 19.8),
    },
)
TABLE4: Figures = {
    (f"P = {filters}", "mean"): value
    for filters, value in zip((4, 8, 16, 32, 64, 128), (22.6, 19.7, 18.1, 17.8, 16.7, 17.3), strict=True)
}
# arXiv 1904.03365, Table 3 (CQCC-GMM); arXiv 2502.13473, its authors' raw results (M-ALRAD, D2 at 16 kHz)
ENVIRONMENTS = _rows(
    _ENVIRONMENTS,
    {
        "cqcc-gmm, trained there": (13.5, 17.4, 21.3, 22.1),
        "cqcc-gmm, trained on the others": (19.9, 39.9, 34.6, 48.9),
        "malrad, trained there": (23.3, 0.7, 10.2, 16.4),
        "malrad, trained on all": (28.8, 3.0, 5.8, 16.1),
    },
) | {("malrad, trained on another", "mean"): 35.9}
# arXiv 2602.16399 gives about 13.9 for acoustic maps without saying it by array
PEERS = TABLE2 | {("acoustic-maps", "mean"): 13.9}

# A mean that was published without its columns is the mean over these
OVER = {"table4": _ARRAYS, "environments": _ENVIRONMENTS, "peers": _ARRAYS}


def beside(
    table: str, told: Figures, cells: Iterable[Cell], columns: Sequence[str]
) -> dict[tuple[str, str, str], float]:
    """(section, row, column) -> what was published of it. Nothing stands beside what holds a condition out, nothing
    of M-ALRAD beside another array than its D2, and no mean beside one over other columns."""
    whole = set(OVER.get(table, ())) == set(columns)
    rows = dict.fromkeys(
        (cell.section, cell.row)
        for cell in cells
        if not cell.test.without and (cell.training.system != "malrad" or cell.test.array == "D2")
    )
    return {
        (section, row, column): value
        for section, row in rows
        for (of, column), value in told.items()
        if of == row and (whole or column != MEAN)
    }


SOURCES = {
    "table2": "arXiv 2003.08225, Table II",
    "table3": "arXiv 2003.08225, Table III",
    "table4": "arXiv 2003.08225, Table IV (mean of the four devices)",
    "environments": "arXiv 1904.03365, Table 3 (CQCC-GMM, its array not told; trained on another corpus 47.1, "
    "44.5, 49.0, 39.6); arXiv 2502.13473 (M-ALRAD, D2 at 16 kHz, five seeds)",
    "peers": "arXiv 2003.08225, Table II (NN-*), and arXiv 2602.16399 (acoustic maps, about)",
}
