"""The pages that answer: the first page, the comparison of all findings, the opening of README.md.

All of it comes from the findings that the notebooks stated and from results of the runs; nothing is
judged here. A sentence is chosen by a finding's verdict, so it comes out right whatever that is.
"""

import re
from base64 import b64decode
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import pandas as pd
from scipy.stats import t

from ionas.book.about import CIFAR10_JPEG, images_title
from ionas.book.chapter import BookRun, fenced, inline, verdict
from ionas.book.configure import STAGES
from ionas.book.findings import Finding, findings_of, literal
from ionas.book.folders import RunFolder, project_root, read_json, write_text
from ionas.book.provenance import artifact_hash, json_hash
from ionas.paper import CELLS
from ionas.parts import write_whole
from ionas.tasks.intervals import LEVEL

STATIC = "book/_static"
KEY = ("07_performance_prediction", "figure-7")  # the cell whose chart is the key figure
README = re.compile(r"<!-- answer of .*?<!-- end of answer -->", re.DOTALL)
TRAININGS = "Trainings of the embeddings"

UNSEEN = ("05_embedding_training", "blind-said")
PREDICTS = ("07_performance_prediction", "io-passes")
LABELS = ("07_performance_prediction", "by-model")
SEARCHES = ("06_reinforce", "as-well")
PLAIN = ("07_performance_prediction", "plain")
STRUCTURE = ("08_predictors", "structure")
FAILED = ("08_predictors", "failed")
GUIDED = ("09_search_methods", "model-free")
OUTPUTS = ("10_label_value", "dose-none")
BEYOND = (STRUCTURE, FAILED, GUIDED, OUTPUTS)  # beyond the paper's questions
SENTENCES: dict[tuple[str, str], tuple[str, str]] = {  # cell -> words if it holds, if it does not
    PREDICTS: (
        "accuracy is predicted better from the IO model's embedding (flatten) than from that of "
        "arch2vec (mean), which sees the graph alone",
        "accuracy is predicted no better from the IO model's embedding (flatten) than from that of "
        "arch2vec (mean), which sees the graph alone",
    ),
    UNSEEN: (
        "the embedding of a network that was never met helps to predict its outputs, beyond what "
        "the image tells",
        "the embedding of a network that was never met does not help to predict its outputs, "
        "beyond what the image tells",
    ),
    LABELS: (
        "embeddings that learned from accuracies predict better than those that learned from "
        "outputs",
        "embeddings that learned from accuracies predict no better than those that learned from "
        "outputs",
    ),
    SEARCHES: (
        "a search does as well with the IO model and the Accuracy model (mean) as with the "
        "original arch2vec",
        "a search does better or worse with the IO model or the Accuracy model (mean) than with "
        "the original arch2vec",
    ),
    PLAIN: (
        "the plain encoding of a cell, with nothing learned, predicts better than every embedding",
        "at least one embedding predicts about as well as the plain encoding of a cell, with "
        "nothing learned, or better",
    ),
    STRUCTURE: (
        "a forest ranks cells better by features of their structure than by the plain encoding",
        "a forest ranks cells no better by features of their structure than by the plain encoding",
    ),
    FAILED: (
        "dropping the failed cells of a sample predicts the accuracies of all others better",
        "dropping the failed cells of a sample does not predict the accuracies of others better",
    ),
    GUIDED: (
        "search guided by a predictor ends with better cells than regularised evolution and local "
        "search",
        "search guided by a predictor ends with no better cells than regularised evolution or "
        "local search",
    ),
    OUTPUTS: (
        "an embedding that learns from outputs of networks, even of untrained ones, predicts "
        "better than one without any labels",
        "an embedding that learns from outputs of networks predicts no better than one without "
        "any labels",
    ),
}
IN_ANSWER = (UNSEEN, PREDICTS, PLAIN)
HEADS: dict[frozenset[bool | None], str] = {
    frozenset([True]): "Yes, for predicting accuracy.",
    frozenset([False]): "No, not for predicting accuracy.",
    frozenset([None]): "No clear gain shows.",
    frozenset([True, None]): "Perhaps, for predicting accuracy.",
    frozenset([False, None]): "No clear gain shows.",
    frozenset(): "Not known yet: no run shown here has reached the prediction of accuracy.",
}
DEPENDS = "It depends."  # yes in one run and no in another

Stated = Mapping[tuple[str, str], Mapping[str, Finding]]  # cell -> run -> what it states there


def pages(runs: Sequence[BookRun]) -> tuple[dict[str, str], dict[str, bytes]]:
    """What the pages take from the runs: texts by the name that they have in braces, and files.

    The texts are `answer`, `key_figure`, `top_findings`, `beyond_findings`, `limits`,
    `comparison`, all MyST; files are by their path from the root of the book.
    """
    from ionas.plots import compared_values

    stated, labels = findings(runs), [run.label for run in runs]
    texts = {
        "answer": answer(stated, labels),
        "key_figure": "",
        "top_findings": top_findings([c for c in SENTENCES if c not in BEYOND], stated, labels),
        "beyond_findings": top_findings(BEYOND, stated, labels),
        "limits": limits(runs),
        "comparison": table(stated, labels),
    }
    files = {}
    if found := key_figure(runs):
        files[f"{STATIC}/answer.png"], alt, caption = found
        texts["key_figure"] = _figure("answer", alt, caption)
    if len(values := compared(stated)):
        chart = compared_values(values)
        files[f"{STATIC}/comparison.png"] = chart.png()
        files["downloads/data/comparison.csv"] = chart.data.to_csv(index=False).encode()
        caption = (
            "Values without a unit: the paper's, and each run's mean over trainings with its 95% "
            "interval. Intervals that reach beyond the axes are cut. "
            "{download}`Data of this chart (CSV) <../downloads/data/comparison.csv>`"
        )
        texts["comparison"] += f"\n\n{_figure('comparison', chart.alt, caption)}"
    return texts, files


def findings(runs: Sequence[BookRun]) -> Stated:
    """Findings of all runs: by cell in the order of the notebooks, then by run."""
    stated: dict[tuple[str, str], dict[str, Finding]] = {}
    for stem in (stage.stem for stage in STAGES.values()):
        for run in runs:
            if stem in run.notebooks:
                for found in findings_of(run.notebooks[stem], stem):
                    stated.setdefault((stem, found.name), {})[run.label] = found
    return stated


def sentence(
    cell: tuple[str, str], stated: Stated, labels: Sequence[str], numbered: bool = True
) -> str:
    """One sentence on a finding, with its numbers; runs that agree are told together.

    Empty if no run has it.
    """
    found = stated.get(cell, {})
    yes, no = SENTENCES[cell]
    words = {True: yes, False: no, None: f"it is undecided whether {yes}"}
    clauses = []
    for shows in dict.fromkeys(finding.shows for finding in found.values()):
        agreeing = {label: f for label, f in found.items() if f.shows is shows}
        where = f"on {_listed(map(inline, agreeing))}, " if len(labels) > 1 else ""
        own = {label: f.numbers[1] for label, f in agreeing.items() if f.numbers[1] and numbered}
        several = len(agreeing) > 1
        numbers = "; ".join(f"{inline(at)}: {n}" if several else n for at, n in own.items())
        clauses.append(where + words[shows] + (f" ({numbers})" if numbers else ""))
        later = {True: "this holds", False: "this does not hold", None: "this is undecided"}
        words = later if shows is not False else {True: yes, None: later[None]}
    text = "; ".join(clauses)
    return text[:1].upper() + text[1:] + "." * bool(text)


def answer(stated: Stated, labels: Sequence[str]) -> str:
    """The answer in about 60 words for one run."""
    verdicts = frozenset(found.shows for found in stated.get(PREDICTS, {}).values())
    having = [run for run in labels if any(run in stated.get(cell, {}) for cell in IN_ANSWER)]
    told = [sentence(cell, stated, having, cell == PREDICTS) for cell in IN_ANSWER]
    if having and (without := [label for label in labels if label not in having]):
        here, elsewhere = (_listed(map(inline, names)) for names in (having, without))
        told.append(f"This is from {here}, and not known yet on {elsewhere}.")
    return " ".join([f"**{HEADS.get(verdicts, DEPENDS)}**", *filter(None, told)])


def top_findings(cells: Iterable[tuple[str, str]], stated: Stated, labels: Sequence[str]) -> str:
    """Findings as a list, each a sentence with its number and a link to its evidence."""
    items = []
    for number, cell in enumerate(cells, 1):
        if cell in stated:
            first = next(iter(stated[cell].values()))
            text = f"{sentence(cell, stated, labels)} [{first.heading}]({first.link})"
        else:
            text = f"Not known yet: {{doc}}`../notebooks/{cell[0]}` has not been run."
        items.append(f"{number}. {text}")
    return "\n".join(items)


def table(stated: Stated, labels: Sequence[str]) -> str:
    """All findings as one Markdown table: claim, the paper, each run."""
    lines = [_row(["Claim", "Paper", *map(literal, labels)]), "|" + "---|" * (2 + len(labels))]
    for found in stated.values():
        first = next(iter(found.values()))
        paper = ["does not ask"] if first.own else ["yes", first.numbers[0]]
        cells = [": ".join(filter(None, paper))]
        for label in labels:
            own = found.get(label)
            said = [verdict(own.shows), own.numbers[1]] if own else ["not run yet"]
            cells.append(": ".join(filter(None, said)))
        lines.append(_row([f"[{first.paper.rstrip('.')}]({first.link})", *cells]))
    return fenced("{div} ionas-came-out", "\n".join(lines))


def compared(stated: Stated) -> pd.DataFrame:
    """All values that findings compare, a row for each value of each run that has it."""
    rows = [
        {**value, "run": label}
        for found in stated.values()
        for label, finding in found.items()
        for value in finding.compared
        if value["mean"] is not None
    ]
    frame = pd.DataFrame(rows, columns=["scale", "name", "run", "paper", "mean", "low", "high"])
    return frame.astype(dict.fromkeys(["paper", "mean", "low", "high"], float))


def key_figure(runs: Sequence[BookRun]) -> tuple[bytes, str, str] | None:
    """PNG, alternative text and caption of the key figure, of the first run that has it."""
    for run in runs:
        cells = run.notebooks[KEY[0]]["cells"] if KEY[0] in run.notebooks else []
        for output in (o for c in cells if c.get("id") == KEY[1] for o in c.get("outputs", [])):
            if "image/png" in output.get("data", {}):
                setting = read_json(run.folder.stage("performance_prediction") / "setting.json")
                whole = (setting or {}).get("cells") == CELLS
                text = (
                    f"{literal(run.label)}: how well accuracy is predicted from each embedding, by "
                    "the number of cells learned from. Further right is better; each mark is one "
                    "training, the dashed line is the plain encoding of the cell"
                    f"{', a hollow diamond the paper' * whole}."
                )
                if without := [inline(before.label) for before in runs[: runs.index(run)]]:
                    text += f" It is not known yet on {_listed(without)}."
                picture = output["metadata"].get("image/png", {})
                return b64decode(output["data"]["image/png"]), picture.get("alt", ""), text
    return None


def limits(runs: Sequence[BookRun]) -> str:
    """What the runs rest on as a Markdown table, and what follows from it."""
    facts = {run.label: _facts(run.folder) for run in runs}
    lines = [_row(["", *map(literal, facts)]), "|" + "---|" * (1 + len(facts))]
    for name in dict.fromkeys(name for found in facts.values() for name in found):
        lines.append(_row([name, *(found.get(name, "not run yet") for found in facts.values())]))
    return "\n".join([*lines, "", " ".join(_cautions(facts.values()))])


def _facts(run: RunFolder) -> dict[str, str]:
    found, done = {}, {stage: m["parameters"] for stage in STAGES if (m := run.manifest(stage))}
    if "pretraining" in done:
        beside = pd.read_parquet(run.stage("pretraining") / "beside_table.parquet")
        parts = beside["labeled"].value_counts()
        rho = beside["here"].corr(beside["table"], "spearman")
        labeled = f"{parts.get('train', 0)} to learn from, {parts.get('validation', 0)} to check"
        found["Trained networks"] = labeled
        mean = f"{beside['here'].mean():.0%} on average"
        found["Their test accuracy"] = f"{mean}; Spearman's ρ with the table's {rho:.2f}"
        found["Images"] = literal(images_title(done["pretraining"]))
    if "embedding_training" in done:
        found[TRAININGS] = str(len(done["embedding_training"]["seeds"]))
    settings = (read_json(run.stage(at) / "setting.json") for at in ("reinforce", "search_methods"))
    if setting := next(filter(None, settings), None):
        reach = f"{setting['searchable']:,} of {setting['cells']:,}"
        found["Cells that a search can reach"] = reach
    return found


def _cautions(facts: Collection[Mapping[str, str]]) -> Iterable[str]:
    """Sentences that bound what runs of these facts can say."""
    for count in sorted({int(found[TRAININGS]) for found in facts if TRAININGS in found}):
        errors = t.ppf((1 + LEVEL) / 2, count - 1) if count > 1 else None
        yield (
            f"With {count} trainings a 95% interval reaches {errors:.1f} standard errors to each "
            "side of the mean: small differences stay undecided."
            if errors
            else "One training has no interval: differences stay undecided."
        )
    if any(found.get("Images") == CIFAR10_JPEG for found in facts):
        yield "CIFAR-10 was read from JPEG, unlike the paper's, which costs accuracy."
    yield (
        "Losses and regrets have the units of a run's own networks and cells: only ratios of them "
        "stand beside the paper's."
    )


def write_readme(runs: Sequence[BookRun]) -> Path:
    """Renew the opening of README.md and its picture; a ValueError if it has no place for them."""
    path, picture = project_root() / "README.md", f"{STATIC}/answer.png"
    text = path.read_text("utf-8")
    if not README.search(text):
        raise ValueError(f"{path} has no part from '<!-- answer of' to '<!-- end of answer -->'")
    texts, files = pages(runs)
    lines = [f"<!-- answer of {', '.join(source(run.folder) for run in runs)} -->"]
    lines += [texts["answer"]]
    if found := key_figure(runs):
        write_whole(project_root() / picture, files[picture])
        lines += [f'<img src="{picture}" width="560" alt="{escape(found[1])}">', found[2]]
    write_text(path, README.sub(lambda _: "\n\n".join([*lines, "<!-- end of answer -->"]), text))
    return path


def source(run: RunFolder) -> str:
    """Name of a run with a hash of its results, so that an outdated answer is noticed."""
    results = [m["outputs"] for stage in STAGES if (m := run.manifest(stage))]
    return f"{run.name} {json_hash([artifact_hash(found) for found in results])[:12]}"


def _figure(name: str, alt: str, caption: str) -> str:
    return fenced(f"{{figure}} _static/{name}.png", caption, alt=alt, width="560px")


def _listed(names: Iterable[str]) -> str:
    return " and ".join(names)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
