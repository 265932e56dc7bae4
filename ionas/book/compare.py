"""The paper's figures beside those of published runs, each with a verdict by one stated rule.

Numbers are compared only where the search space is the paper's own, NAS-Bench-101.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ionas.book import execute
from ionas.book.facts import differences, images_title
from ionas.book.folders import RunFolder
from ionas.book.parameters import FIRST, STAGES, resolve
from ionas.book.publish import Publication
from ionas.paper import ITEMS, TOGETHER, paper_claims, paper_values, where
from ionas.plots import MODEL_LABELS
from ionas.tasks import prediction
from ionas.tasks import reinforce as search

NASBENCH101_CELLS = 423_624
REPRODUCED, SAME_ORDER, NOT_REPRODUCED, NOT_RUN = VERDICTS = (
    "reproduced",
    "same order, other size",
    "not reproduced",
    "not run",
)
CLAIMS = "Figure 5"
ON_ORDER = ("Table 4", "Table 6", "Table 7", "Figure 5")  # these rest on the order of vertices
RESTS_ON = {  # the notebooks whose data and settings decide an item
    "Table 2": FIRST,
    "Table 4": (*FIRST, "embedding_training"),
    "Table 5": (*FIRST, "embedding_training"),
    "Table 6": (*FIRST, "embedding_training", "performance_prediction"),
    "Table 7": (*FIRST, "embedding_training", "performance_prediction"),
    "Figure 5": (*FIRST, "embedding_training", "reinforce"),
    "Figure 6": ("search_space", "reinforce"),
}
METRICS = {  # of notebook 05 -> the columns of the paper's Table 4
    "validity_whole": "validity",
    "uniqueness_whole": "uniqueness",
    "operation_accuracy": "operation accuracy",
    "adjacency_accuracy": "adjacency accuracy",
}
LABELS = {**MODEL_LABELS, TOGETHER: "IO model and arch2vec"}
LABELS_TEXT = (
    "The layer that `flatten` is learns from labels alone, `mean` belongs to the autoencoder, "
    "which learns from all cells. So where `flatten` does worse here than in the paper, the number "
    "of labels is the first suspect. Pearson's r at 10,000 cells, most labels first; intervals as "
    "above."
)
FAILED_TEXT = (
    "Only cells above the accuracy threshold are scored, but the samples hold cells below it, too: "
    "those whose training failed. How many a small sample holds is luck. Pearson's r of the first "
    "training; of random cells the mean, lowest and highest of several draws, else the mean over "
    "regressor seeds, the same ones in all columns."
)
OVERLAP = 1e-9  # intervals that touch in a rounded number overlap


def verdicts(values: pd.DataFrame) -> list[str]:
    """Judge values that the paper sets beside one another: one column of one of its tables.

    - **not run**: there is no value here.
    - **reproduced**: the two 95 % intervals overlap. A value without an interval is a point; one
      that the paper prints without an interval reaches half a unit of its last digit to both sides.
    - **same order, other size**: they do not overlap, but the value stands here on the same side of
      each value of the column from which the paper tells it apart, that is, whose interval does not
      overlap with its own in the paper; and there is such a value.
    - **not reproduced**: all else, and values that are not defined here.

    Parameters
    ----------
    values
        `value`, `low`, `high` of the paper; `here`, `here_low`, `here_high` of a run, NaN where
        unknown; `ran`, whether the run has the value.
    """
    point = {end: values[end].fillna(values["here"]) for end in ("here_low", "here_high")}
    rows = list(values.assign(**point).itertuples())
    words = []
    for row in rows:
        others = [o for o in rows if o.ran and _apart(row.low, row.high, o.low, o.high)]
        kept = [np.sign(row.value - o.value) == np.sign(row.here - o.here) for o in others]
        if not row.ran:
            words.append(NOT_RUN)
        elif np.isnan(row.here):
            words.append(NOT_REPRODUCED)
        elif not _apart(row.low, row.high, row.here_low, row.here_high):
            words.append(REPRODUCED)
        else:
            words.append(SAME_ORDER if kept and all(kept) else NOT_REPRODUCED)
    return words


def judged_values(run: RunFolder | None) -> pd.DataFrame:
    """Every printed value of the paper beside that of a run, with `difference` and `verdict`.

    Columns as in `ionas.paper.paper_values`, and as `verdicts` takes them.
    """
    keys = ["item", "column", "row"]
    here = run_values(run) if run else pd.DataFrame(columns=[*keys, "here"])
    here = here.reindex(columns=[*keys, "here", "here_low", "here_high"])
    values = paper_values().merge(here, "left", keys, indicator="ran")
    values["ran"] = values["ran"] == "both"
    values["difference"] = values["here"].astype(float) - values["value"]
    groups = values.groupby(["item", "column"], sort=False)
    found = [pd.Series(verdicts(group), group.index) for _, group in groups]
    return values.assign(verdict=pd.concat(found))


def judged_claims(run: RunFolder | None) -> pd.DataFrame:
    """What the paper says of Figure 5, with the test regrets of a run and a verdict.

    Two searches are the same if the 95 % intervals of their regret at the end overlap, and one is
    worse if its interval lies above the other's. A claim is reproduced if it holds in more than
    half of the trainings.

    Returns
    -------
    DataFrame
        `embedding`, `against`, `claim`; `here` and `there`, (mean, low, high) of both, or of
        several trainings the mean, least and largest mean; `holds`, in how many of `trainings`;
        `verdict`.
    """
    claims = paper_claims()
    finals = _final_regrets(run, claims.attrs["budget"]) if run else []
    if not finals:
        return claims.assign(here=None, there=None, holds=0, trainings=0, verdict=NOT_RUN)
    rows = []
    for claim in claims.itertuples():
        test = {"same": search.alike, "worse": search.above}[claim.claim]
        holds = sum(bool(test(final, [claim.embedding], claim.against)) for final in finals)
        regrets = [_over_trainings(finals, name) for name in (claim.embedding, claim.against)]
        rows.append((*regrets, holds, REPRODUCED if 2 * holds > len(finals) else NOT_REPRODUCED))
    here, there, held, verdict = zip(*rows, strict=True)
    return claims.assign(here=here, there=there, holds=held, trainings=len(finals), verdict=verdict)


def _final_regrets(run: RunFolder, budget: float) -> list[pd.DataFrame]:
    """Final regrets of each training, as `search.final_regret` has them.

    The end is that of the run's budget; if the paper's comes first, that, of one training alone,
    of which the curves are kept.
    """
    path, every = _curves(run), _artifact(run, "reinforce", "regrets.parquet")
    if path is None:
        return []
    curves = pd.read_parquet(path)
    curves = curves[~curves["shifted"]]
    within = curves["time"] <= budget * (1 + OVERLAP)
    if every is None or not within.all():
        return [search.final_regret(curves[within])]
    regrets = pd.read_parquet(every)
    return [
        rows.set_index("embedding")[["mean", "low", "high"]]
        for _, rows in regrets.groupby("training")
    ]


def _over_trainings(finals: Sequence[pd.DataFrame], name: str) -> tuple[float, float, float]:
    if len(finals) == 1:
        mean, low, high = finals[0].loc[name]
        return mean, low, high
    means = [final.loc[name, "mean"] for final in finals]
    return float(np.mean(means)), min(means), max(means)


def run_values(run: RunFolder) -> pd.DataFrame:
    """What a run has for the items of the paper: `item`, `column`, `row`, `here` and its interval.

    Intervals are those over trainings where there are several, else those over regressor seeds.
    """
    rows: list[pd.DataFrame] = []

    def add(item: str, table: pd.DataFrame, **columns: Any) -> None:
        names = {"mean": "here", "low": "here_low", "high": "here_high"}
        rows.append(table.rename(columns=names).assign(item=item, **columns))

    if sets := _artifact(run, "io_dataset", "sets.parquet"):
        sizes = pd.read_parquet(sets)
        add("Table 2", sizes.assign(row=sizes["set"], here=sizes["size"]), column="size")
    if metrics := _artifact(run, "embedding_training", "metrics.parquet"):
        table = pd.read_parquet(metrics)
        table = table[table["metric"].isin(METRICS)].replace({"metric": METRICS})
        add("Table 4", table.rename(columns={"model": "row", "metric": "column"}))
        add("Table 4", _seconds(metrics.parent / "timings"), column="seconds")
    if tests := _artifact(run, "embedding_training", "tests.parquet"):
        table = pd.read_parquet(tests).rename(columns={"set": "row"})
        add("Table 5", table, column="mean")
        add("Table 5", table[["row"]].assign(here=table["baseline"]), column="baseline")
    if summary := _artifact(run, "performance_prediction", "summary.parquet"):
        table = pd.read_parquet(summary).query("regressor == 'random_forest'")
        table = prediction.judged(table.drop(columns="regressor")).rename(
            columns={"embedding": "row"}
        )
        table["column"] = table["size"].astype(str)
        for item, metric in (("Table 6", "pearson"), ("Table 7", "rmse")):
            add(item, table[table["metric"] == metric])
    if _curves(run):
        budget = (run.manifest("reinforce") or {})["parameters"]["budget"]
        share = _glued(run.stage("reinforce") / "executed.ipynb").get("shift_share")
        if budget and share is not None:
            row = {"row": "training of the labeled networks", "here": share * budget}
            add("Figure 6", pd.DataFrame([row]), column="shift")
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["item"])


def reasons(publication: Publication, item: str) -> str:
    """Where the data that decide an item differ from the paper's, and whose settings do."""
    run, table, stages = publication.run, publication.record["table"], RESTS_ON[item]
    manifests = {stage: manifest for stage in stages if (manifest := run.manifest(stage))}
    parts = []
    images = (
        images_title(manifests["pretraining"]["parameters"]) if "pretraining" in manifests else ""
    )
    if images not in ("", "CIFAR-10"):
        parts.append(f"the images are {images}")
    if item in ON_ORDER and not table.get("published_order"):
        parts.append(
            "vertices stand in another order than in the published file, on which validity and "
            "flatten depend"
        )
    if "reinforce" in stages and table["searchable"] < table["cells"]:
        parts.append(
            f"{table['searchable']:,} of the {table['cells']:,} cells have the validation accuracy "
            "and training time that a search needs"
        )
    if item == "Table 4" and "embedding_training" in manifests:
        manifest = manifests["embedding_training"]
        parts.append(f"times are of {manifest['machine']}, device {manifest['device']}")
    changes = differences(run, "paper")
    if numbers := [STAGES[stage].number for stage in stages if changes[stage]]:
        parts.append(f"settings of notebooks {', '.join(numbers)} are others, see above")
    return "; ".join(parts)


def settings(publication: Publication) -> str:
    """Settings of a publication that are not the paper's, as a Markdown list by notebook."""
    return "\n".join(
        f"- {STAGES[stage].stem}: "
        + ", ".join(f"`{name}` {_plain(a)} (paper {_plain(b)})" for name, (a, b) in changes.items())
        for stage, changes in differences(publication.run, "paper").items()
        if changes
    )


def beside_the_paper(publications: Sequence[Publication]) -> str:
    """Every item of the paper beside every published run, as Markdown."""
    same = [p for p in publications if p.record["table"].get("cells") == NASBENCH101_CELLS]
    others = [p for p in publications if p not in same]
    columns: list[tuple[str, Publication | None]] = [(title(p), p) for p in same]
    text = []
    if not columns:
        text.append("No run on NAS-Bench-101 has been published yet: every verdict is *not run*.")
        columns = [("Here", None)]
    for publication in others:
        table = publication.record["table"]
        text.append(
            f"The published run {title(publication)} has another search space, {table['name']} "
            f"with {table['cells']:,} cells: none of its numbers is compared."
        )
    values = {name: judged_values(p.run if p else None) for name, p in columns}
    claims = {name: judged_claims(p.run if p else None) for name, p in columns}
    items = sorted([*ITEMS, CLAIMS], key=lambda item: (item[0] == "F", item))
    counts = [
        [f"[{item}](#{item.lower().replace(' ', '-')})"]
        + [_counted(_verdicts_of(item, values[name], claims[name])) for name, _ in columns]
        for item in items
    ]
    text.append(_table(["", *(name for name, _ in columns)], counts))
    text += [
        f"{publication.name} is partial, without {', '.join(publication.missing)}."
        for publication in same
        if publication.missing
    ]
    for publication in same:
        if found := settings(publication):
            text.append(
                f"Settings of {title(publication)} that are not the paper's (a number of networks "
                f"or images of 0 is all of them):\n\n{found}"
            )
    if same:
        judged = [(publication, values[title(publication)]) for publication in same]
        text.append(f"### Labels\n\n{LABELS_TEXT}\n\n{labels_beside_flatten(judged)}")
    for publication in same:
        if found := failed_cells(publication.run):
            text.append(f"### Failed cells in {title(publication)}\n\n{FAILED_TEXT}\n\n{found}")
    for item in items:
        text.append(f"### {item}\n\nIn the paper: {where(item)}.")
        for name, source in columns:
            ran = _verdicts_of(item, values[name], claims[name]).ne(NOT_RUN).any()
            if len(columns) > 1:
                text.append(f"**{name}**" if ran else f"**{name}**: {NOT_RUN}.")
                if not ran:
                    continue
            rows = (
                _claim_rows(claims[name])
                if item == CLAIMS
                else _value_rows(values[name].query("item == @item"))
            )
            text.append(_table(["", "Paper", name, "Difference", "Verdict"], rows))
            if source and ran and (why := reasons(source, item)):
                text.append(f"Differs from the paper: {why}.")
    return "\n\n".join(text)


def labels_beside_flatten(runs: Sequence[tuple[Publication, pd.DataFrame]]) -> str:
    """Pearson's r of both embeddings of both models beside the number of labels they had.

    `runs` has publications with their `judged_values`; the paper's own row comes from those, too.
    """
    labels = resolve("paper")["search_space"].model_dump()["labeled_train"]
    rows: list[tuple[int, int, str, pd.DataFrame]] = []
    for publication, values in runs:
        found = values.query("item == 'Table 6' and column == '10000'").set_index("row")
        if not rows:
            rows.append((labels, labels, "the paper", found[["value", "low", "high"]]))
        manifests = [publication.run.manifest(stage) for stage in ("search_space", "pretraining")]
        if not found["ran"].any() or not all(manifests):
            continue
        space, networks = (manifest["parameters"] for manifest in manifests if manifest)
        labeled = space["labeled_train"]
        here = found[["here", "here_low", "here_high"]]
        rows.append((labeled, networks.get("train_networks") or labeled, publication.name, here))
    lines = [
        [name, f"{trained:,}", *_scores(found, "io"), f"{labeled:,}", *_scores(found, "accuracy")]
        for labeled, trained, name, found in sorted(rows, key=lambda row: (-row[0], -row[1]))
    ]
    head = ["", "Networks of the IO model", "flatten", "mean", "Labels of the Accuracy model"]
    return _table([*head, "flatten", "mean"], lines)


def failed_cells(run: RunFolder) -> str:
    """Pearson's r with and without failed cells in the sample, by embedding; empty if unknown."""
    path = _artifact(run, "performance_prediction", "samples.parquet")
    if not path:
        return ""
    samples = pd.read_parquet(path)
    smallest, largest = samples["size"].min(), samples["size"].max()
    keys = ["embedding", "sample", "size"]
    values = samples.groupby(keys)["pearson"].agg(["mean", "min", "max"])
    failed = samples[samples["size"] == smallest].groupby("sample")["failed"].agg(["min", "max"])
    lines = []
    for name in (name for name in LABELS if name in set(samples["embedding"])):
        drawn = values.loc[name, "random", smallest]
        spread = f"{drawn['mean']:.3f}, {drawn['min']:.3f} to {drawn['max']:.3f}"
        means = [
            f"{values.loc[(name, sample, size), 'mean']:.3f}"
            for size in (smallest, largest)
            for sample in ("paper", "passed")
        ]
        lines.append([LABELS[name], means[0], spread, *means[1:]])
    head = [
        f"{smallest:,} cells, {failed.loc['paper', 'max']} of them failed",
        f"{smallest:,} random cells, {' to '.join(map(str, failed.loc['random']))} failed",
        f"{smallest:,} cells without the failed ones",
        f"{largest:,} cells",
        f"{largest:,} cells without the failed ones",
    ]
    return _table(["", *head], lines)


def _scores(found: pd.DataFrame, model: str) -> list[str]:
    values = found.loc[[f"{model}_flatten", f"{model}_mean"]].astype(float).to_numpy()
    return [
        NOT_RUN if np.isnan(mean) else _number(mean, 3, (high - low) / 2)
        for mean, low, high in values
    ]


def title(publication: Publication) -> str:
    """Name of a publication, and whether it is partial."""
    return publication.name + " (partial)" * bool(publication.missing)


def _apart(low: float, high: float, other_low: float, other_high: float) -> bool:
    return low > other_high + OVERLAP or other_low > high + OVERLAP


def _artifact(run: RunFolder, stage: str, file: str) -> Path | None:
    path = run.stage(stage) / file
    return path if run.manifest(stage) and path.is_file() else None


def _curves(run: RunFolder) -> Path | None:
    """Curves of searches that paid in time, as the paper's did."""
    parameters = (run.manifest("reinforce") or {}).get("parameters", {})
    in_time = parameters.get("cost", "time") == "time"
    return _artifact(run, "reinforce", "curves.parquet") if in_time else None


def _seconds(folder: Path) -> pd.DataFrame:
    """Mean time of a training by row of Table 4, of the trainings whose times are there."""
    times: dict[str, list[float]] = {}
    for path in sorted(folder.glob("*.json")):
        spent = sum(json.loads(path.read_text("utf-8"))["seconds"])
        times.setdefault(path.stem.rpartition("_seed")[0], []).append(spent)
    mean = {model: float(np.mean(values)) for model, values in times.items()}
    rows = {"accuracy": mean.get("accuracy")}
    if {"io", "arch2vec"} <= set(mean):
        rows[TOGETHER] = mean["io"] + mean["arch2vec"]
    return pd.DataFrame([{"row": row, "here": value} for row, value in rows.items() if value])


def _glued(path: Path) -> dict[str, float]:
    """Numbers that an executed notebook glued, by name."""
    found = {}
    for cell in execute.read(path).cells:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            text = output.get("data", {}).get("application/papermill.record/text/plain", "")
            if name and isinstance(text, str) and text.replace("nan", "0")[:1].isdigit():
                found[name] = float(text)
    return found


def _verdicts_of(item: str, values: pd.DataFrame, claims: pd.DataFrame) -> pd.Series:
    return claims["verdict"] if item == CLAIMS else values.loc[values["item"] == item, "verdict"]


def _counted(found: Iterable[str]) -> str:
    words = list(found)
    return ", ".join(f"{words.count(word)} {word}" for word in VERDICTS if word in words)


def _value_rows(values: pd.DataFrame) -> list[list[str]]:
    """Cells of the table of one item."""
    return [
        [
            _label(row.row, row.column),
            _number(row.value, row.digits, row.half),
            _number(row.here, row.digits, (row.here_high - row.here_low) / 2) if row.ran else "",
            _number(row.difference, row.digits, sign="+") if row.ran else "",
            row.verdict,
        ]
        for row in values.itertuples()
    ]


def _claim_rows(claims: pd.DataFrame) -> list[list[str]]:
    rows = []
    for row in claims.itertuples():
        shown = ["", ""]
        if row.here:
            regrets = [
                f"{mean:.4f} [{low:.4f}, {high:.4f}]" for mean, low, high in (row.here, row.there)
            ]
            shown = [" against ".join(regrets), f"{row.here[0] - row.there[0]:+.4f}"]
        pair = f"{LABELS[row.embedding]} against {LABELS[row.against]}"
        holds = f" (holds in {row.holds} of {row.trainings})" if row.trainings > 1 else ""
        rows.append([pair, row.claim, *shown, f"{row.verdict}{holds}"])
    return rows


def _label(row: str, column: str) -> str:
    column = f"{int(column):,} cells" if column.isdigit() else column
    return f"{LABELS.get(row, row)}: {column}"


def _number(value: float, digits: int, half: float = np.nan, sign: str = "") -> str:
    """A value with its half-width, to the digits that the paper prints."""
    if np.isnan(value):
        return "not defined"
    digits = max(int(digits), 0)
    margin = f" ± {half:,.{digits}f}" if half > 0 else ""
    return f"{value:{sign},.{digits}f}{margin}"


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
