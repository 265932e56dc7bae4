"""Confidence intervals, and the rules by which a claim holds or not.

Trainings are few, so intervals over them are by Student's t, and embeddings are compared by their
differences within one training: whatever makes a training good or bad for all of them cancels. Runs
of a search are many, so intervals over them are by bootstrap. All intervals are of 95 %.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

LEVEL = 0.95
CLAIMS = ("greater", "less", "same")
WORDS = {True: "yes", False: "no", None: "undecided"}
FEW = 4  # parts of a finding that are told one by one

Part = tuple[str, str, str, Iterable[float]]  # finding, part, claim, a difference per training


def over_seeds(table: pd.DataFrame, by: list[str], value: str = "value") -> pd.DataFrame:
    """Mean over seeds with its interval by Student's t, in groups.

    The half-width is 12.7 standard errors for two seeds, 4.30 for three, 1.96 for many. Returns the
    columns `by`, and `mean`, `std`, `seeds` (the number of values that are not NaN), `low`, `high`;
    with one seed `std`, `low` and `high` are NaN.
    """
    from scipy.stats import t

    groups = table.groupby(by, sort=False, dropna=False)[value]
    result = groups.agg(mean="mean", std="std", seeds="count").reset_index()
    factor = t.ppf((1 + LEVEL) / 2, (result["seeds"] - 1).clip(lower=1))
    half = factor * result["std"] / np.sqrt(result["seeds"].clip(lower=1))
    return result.assign(low=result["mean"] - half, high=result["mean"] + half)


def paired_differences(
    values: pd.DataFrame, reference: str, pair: list[str], value: str = "value"
) -> pd.DataFrame:
    """Values of each embedding minus those of the reference in rows that agree in columns `pair`.

    An embedding without a training seed (NA), such as the plain encoding of a cell, is compared
    with every training. Returns `embedding`, the columns `pair`, and `value`, the difference, where
    both have a value.
    """
    base = values.loc[values["embedding"] == reference, [*pair, value]]
    tables = []
    for name, rows in values.groupby("embedding", sort=False):
        if name == reference:
            continue
        on = [key for key in pair if rows[key].notna().all() and base[key].notna().all()]
        how: Literal["inner", "cross"] = "inner" if on else "cross"
        both = rows[["embedding", *pair, value]].merge(base, how, on or None, suffixes=("", "_of"))
        for key in set(pair) - set(on):
            both[key] = both[key].fillna(both[f"{key}_of"])
        tables.append(both.assign(value=both[value] - both[f"{value}_of"]))
    found = pd.concat(tables)[["embedding", *pair, "value"]]
    return found.dropna(subset="value").reset_index(drop=True)


def bootstrap(
    runs: Sequence[np.ndarray], seed: int = 0, draws: int = 1000
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over trainings and runs with its interval by bootstrap.

    Takes (R, T) values of the R runs of each training at T times. Trainings are drawn with
    replacement, and runs within each drawn training. Returns mean, low and high, (T,) each; the
    interval is NaN where there is only one value.
    """
    mean = np.mean([values.mean(0) for values in runs], axis=0)
    if sum(map(len, runs)) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(runs), np.full(len(runs), 1 / len(runs)), draws)  # (draws, S)
    means = np.zeros((draws, len(mean)))
    for times, values in zip(drawn.T, runs, strict=True):
        count = len(values)  # of the runs, which are drawn again for each draw of their training
        weights = rng.multinomial(times * count, np.full(count, 1 / count))  # (draws, R)
        means += weights @ values / (count * len(runs))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return mean, low, high


def holds(claim: str, low: float, high: float, margin: float) -> bool | None:
    """Whether a claim on a difference holds, given its interval; None if that is undecided.

    `greater` holds if the interval lies above 0, and does not if it lies below `margin`, the
    smallest difference that matters. `less` is the same with signs reversed. `same` holds if the
    interval lies within -`margin` to `margin`, and does not if it lies outside. Ends that are NaN
    leave every claim undecided.
    """
    if claim not in CLAIMS:
        raise ValueError(f"claim is {claim!r}; choose one of {', '.join(CLAIMS)}")
    if claim == "less":
        low, high = -high, -low
    if np.isnan(low) or np.isnan(high):
        return None
    if claim == "same":
        if -margin <= low and high <= margin:
            return True
        return False if low > margin or high < -margin else None
    if low > 0:
        return True
    return False if high < margin else None


def all_hold(parts: Iterable[bool | None]) -> bool | None:
    """Whether all parts of a claim hold: False if one does not, else None if one is undecided."""
    found = set(parts) or {None}
    return next(word for word in (False, None, True) if word in found)


def judge(parts: Iterable[Part], margin: float) -> pd.DataFrame:
    """Say whether claims hold, given differences within each training.

    A part is the name of its finding, its own name, a claim, and its differences, one per training;
    without any the claim is undecided. Returns a row per part: `finding`, `part`, `claim`, the
    other columns of `over_seeds`, and `holds`.
    """
    rows = [(*names, value) for *names, values in parts for value in (list(values) or [np.nan])]
    keys = ["finding", "part", "claim"]
    found = over_seeds(pd.DataFrame(rows, columns=[*keys, "value"]), keys)
    ends = zip(found["claim"], found["low"], found["high"], strict=True)
    words = [holds(claim, low, high, margin) for claim, low, high in ends]
    return found.assign(holds=pd.Series(words, dtype=object))


def told(
    judged: pd.DataFrame, finding: str, labels: Mapping[str, str], digits: int = 3
) -> tuple[bool | None, str]:
    """Whether a finding of `judge` holds in all its parts, and its numbers in words.

    `labels` are the names of embeddings that replace those in braces in the names of parts. Of
    more than FEW parts, those with the same verdict are told together.
    """
    rows = judged[judged["finding"] == finding]
    texts = []
    if len(rows) > FEW:
        verdicts = rows["holds"].map(WORDS)
        for (claim, word), alike in rows.groupby(["claim", verdicts], sort=False):
            ends = dict.fromkeys(f"{x:+.{digits}f}" for x in alike["mean"].agg(["min", "max"]))
            text = f"{claim}: {word} in {len(alike)} of {len(rows)}, {' to '.join(ends)}"
            names = "; ".join(part.format_map(labels) for part in alike["part"])
            texts.append(f"{text} ({names})" if len(alike) < len(rows) / 2 else text)
        return all_hold(rows["holds"]), "; ".join(texts) + "."
    for row in rows.itertuples():
        text = f"{row.part.format_map(labels)} {row.mean:+.{digits}f}"
        if np.isfinite(row.low):
            text += f" ({row.low:+.{digits}f} to {row.high:+.{digits}f})"
        texts.append(f"{text}, {row.claim}: {WORDS[row.holds]}")
    return all_hold(rows["holds"]), "; ".join(texts) + "."
