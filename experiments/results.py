"""Write docs/results.md, every table of results, and the table in README.md, from figures/*.json and data/.

python -m experiments.results

Run it after anything that writes figures/, so that README, notebooks and tables agree.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from src.plots import label_of
from src.records import ROOT, read_json, write_atomically

FIGURES, DATA, PAGE = ROOT / "figures", ROOT / "data", ROOT / "docs" / "results.md"
INTRODUCTION = """# Results

`python -m experiments.results` writes this page; do not edit it by hand. *Width* is p95 − p5 of the cosines of all
pairs of sentences. *Topic order* is Spearman's correlation of cosine and grade over grades 0, 1, 2 (other sport, same
sport, same kind of event), *fact order* over grades 2, 3, 4 (same kind of event, one fact differs, same facts). *Same
kind of event above shared names* is the probability that such a pair has a higher cosine than a pair of two sports that
shares names. Brackets hold 95 % intervals from resampling events, and seeds where there are several."""
ORDERS = ("topic_order", "fact_order")
MEASURES = (
    "width", "width_within", *ORDERS, "order", "adversarial_topic_order", "adversarial_fact_order", "name_trap_auc",
    "recall_at_precision[0.9]", "recall_at_fpr[0.01]", "everyday_order",
)  # fmt: skip


README = ROOT / "README.md"
README_COLUMNS = {
    "width": "width", "within a sport": "width_within", "topic": "topic_order", "facts": "fact_order",
    "names resisted": "name_trap_auc", "found, P .9": "recall_at_precision[0.9]", "found, F .01": "recall_at_fpr[0.01]",
    "everyday": "everyday_order",
}  # fmt: skip
IN_README = (  # of the label curve: means of the draws; what it has is not taken from notebook 3, which has one seed
    ("topic and facts", 0), ("graded pairs", 30), ("graded pairs", 300),
    ("CosineSimilarityLoss", 300), ("CoSENTLoss", 300), ("proposed pairs", 300), ("random pairs", 300),
)  # fmt: skip


class Table(NamedTuple):
    heading: str
    explanation: str  # one sentence
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def number(value: float, sign: str = "") -> str:
    return f"{round(value, 2) + 0.0:{sign}.2f}"  # + 0.0: no minus before a zero


def estimate(values: Sequence[float], sign: str = "") -> str:
    """A value with its interval, where it has one."""
    value, low, high = values
    return number(value, sign) + ("" if pd.isna(low) else f" [{number(low, sign)}, {number(high, sign)}]")


def tuned(settings: dict, numbers: dict) -> list[Table]:
    rows = [[run, *(estimate(values[m]) if m in values else "" for m in MEASURES)] for run, values in numbers.items()]
    explanation = (
        f"{settings['model']}, test split, one seed, {settings['graded_train_pairs']} graded pairs: the base, what "
        "costs no training, SimCSE, what learns from the sentences, and what learns from graded pairs"
    )
    return [Table("What training buys", explanation, ["", *map(label_of, MEASURES)], rows)]


def frontier(settings: dict, numbers: dict) -> list[Table]:
    measures = ("width", *ORDERS)
    rows = [[name, *(estimate(values[m]) for m in measures)] for name, values in numbers["points"].items()]
    rows.append(["word overlap, best of three", "", *(number(numbers["word_overlap"][measure]) for measure in ORDERS)])
    explanation = (
        f"What costs no training on {settings['model']}, measured on the test split: rescaling, centring, all but the "
        "top directions, and spectral scaling, which multiplies each direction by its variance to the power p"
    )
    return [Table("Without training", explanation, ["", *map(label_of, measures)], rows)]


def labels(settings: dict, numbers: dict) -> list[Table]:
    """The means of the draws, by way and number of pairs."""
    ways, draws = next(iter(numbers.values())), settings["draws"]
    rows = [
        [way, int(count) or "", draws[way][count], *(number(values[way][count][0]) for values in numbers.values())]
        for way in ways
        for count in ways[way]
    ]
    explanation = (
        f"What graded pairs buy, by their number: {settings['model']}, test split, means of the draws of pairs. "
        "CoSENTLoss and CosineSimilarityLoss are sentence-transformers' training on the same pairs"
    )
    heading = f"By the number of graded pairs, {settings['model']}"
    return [Table(heading, explanation, ["", "pairs", "draws", *map(label_of, numbers)], rows)]


def human_grades(settings: dict, numbers: dict) -> list[Table]:
    """The means of the draws, by corpus, way and number of pairs."""
    measures = ("order", "recall_at_precision[0.9]", "recall_at_fpr[0.05]", "recall_at_fpr[0.01]", "width")
    rows = [
        [corpus, way, count, *(number(values[m][0]) for m in measures), estimate(values["order minus base"], "+")]
        for corpus, ways in numbers.items()
        for way, by_count in ways.items()
        for count, values in by_count.items()
    ]
    explanation = (
        f"Where people wrote the sentences and graded the pairs: {settings['model']}, held-out families of pairs; "
        "related: the top quarter of the scale. The last column is the gain in order over the base"
    )
    columns = ["", "", "pairs", *map(label_of, measures), "order − base"]
    return [Table("Human grades", explanation, columns, rows)]


def study(settings: dict, numbers: dict) -> list[Table]:
    """The means of the seeds."""
    runs, epochs = next(iter(numbers.values())), range(settings["epochs"] + 1)
    rows = []
    for run, epoch in product(runs, epochs):
        of_seeds = [[seed[epoch] for seed in of_runs[run]] for of_runs in numbers.values()]
        rows.append([run, epoch or "base", *(number(np.mean(values)) for values in of_seeds)])
    explanation = (
        f"SimCSE on {settings['train_sentences']:,} sentences: {settings['model']}, validation split, seeds: "
        f"{len(settings['seed'])}"
    )
    return [Table("Temperature and epochs", explanation, ["", "epoch", *map(label_of, numbers)], rows)]


def thresholds(settings: dict, numbers: dict) -> list[Table]:
    columns = ("threshold", "precision", "recall", "false positive rate")
    rows = [
        [model, wanted, *([estimate(row[column]) for column in columns] if row else ["cannot be met", "", "", ""])]
        for (model, wanted), row in numbers["judged"]
    ]
    explanation = "Thresholds chosen for a wanted rate on validation pairs, and what they do on test pairs"
    return [Table("Thresholds", explanation, ["model", "wanted", *columns], rows)]


def speed(settings: dict, numbers: dict) -> list[Table]:
    device = settings.get("device") or f"{settings['cores']} cores"
    ratios, memory = numbers["times as fast: median, lowest, highest"], numbers["gigabytes"]
    explanation = (
        f"How many times as fast as sentence-transformers doing the same work, {settings['turns']} turns with "
        f"{settings['sentences']:,} sentences"
    )
    rows = [[name, number(median), f"{number(low)} to {number(high)}"] for name, (median, low, high) in ratios.items()]
    tables = [Table(f"Speed, {device}", explanation, ["", "median", "lowest to highest turn"], rows)]
    rows = [[way, *map(number, by_size.values())] for way, by_size in memory.items()]
    explanation = "GB at the peak of a training step in fp32, by batch size"
    tables.append(Table(f"Memory, {device}", explanation, ["", *memory["plain"]], rows))
    learned = numbers["learned"].items()
    rows = [[way, *(f"{np.mean(turns):.3f}" for turns in values.values())] for way, values in learned]
    explanation = "What SimCSE at temperature 0.05 learns in these runs, mean of the turns on validation"
    columns = ["", "width", "topic order", "fact order"]
    tables.append(Table(f"What is learned, {device}", explanation, columns, rows))
    if counted := numbers.get("seconds for all pairs"):
        rows = [[f"{int(count):,}", number(seconds)] for count, seconds in counted.items()]
        tables.append(Table(f"All pairs, {device}", "Seconds to count all cosines", ["embeddings", "seconds"], rows))
    return tables


def blind_readers() -> Table:
    pairs = pd.read_csv(DATA / "blind_grades.csv")
    explanation = "Grades that two language models gave to generated test pairs, knowing neither grammar nor grades"
    rows = []
    for reader in ("reader1", "reader2"):
        kappa = cohen_kappa_score(pairs["grade"], pairs[reader], weights="linear")
        rows.append([reader, len(pairs), (pairs["grade"] == pairs[reader]).sum(), number(kappa)])
    return Table("Blind readers", explanation, ["", "pairs", "same grade", "weighted κ"], rows)


def markdown(table: Table, source: str) -> str:
    rows = [table.columns, ["---"] * len(table.columns), *table.rows]
    lines = "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
    return f"## {table.heading}\n\n{table.explanation} (`{source}`).\n\n{lines}"


SECTIONS = {
    "tuned": tuned, "label_curve": labels, "label_curve_all-mpnet-base-v2": labels, "human_grades": human_grades,
    "study": study, "thresholds": thresholds,
    "frontier": frontier,
    "training_benchmark": speed, "training_benchmark_gpu": speed,
}  # fmt: skip


def page() -> str:
    """The whole page. Raises `ValueError` naming the file and the key when a number is missing in it."""
    texts = [INTRODUCTION]
    for name, section in SECTIONS.items():
        content = read_json(FIGURES / f"{name}.json")
        try:
            tables = section(content["settings"], content["numbers"])
        except KeyError as missing:
            raise ValueError(f"{FIGURES / name}.json has no {missing}: run again what writes it") from missing
        texts += [markdown(table, f"figures/{name}.json") for table in tables]
    return "\n\n".join([*texts, markdown(blind_readers(), "data/blind_grades.csv")]) + "\n"


def readme_table() -> str:
    """The table of README.md: notebook 3's models, and what sentence-transformers' losses make of graded pairs."""
    tuned, curve = (read_json(FIGURES / f"{name}.json")["numbers"] for name in ("tuned", "label_curve"))
    rows = {name: {m: values[0] for m, values in measures.items()} for name, measures in tuned.items()}
    control = rows.popitem()
    for way, count in IN_README:
        rows.pop(way, None)
        rows[f"{way}, {count:,}" if count else way] = {m: curve[m][way][str(count)][0] for m in curve}
    rows |= dict([control])
    lines = [["", *README_COLUMNS], ["---"] * (len(README_COLUMNS) + 1)]
    for name, row in rows.items():
        lines.append([name, *(number(row[m]) if m in row else "" for m in README_COLUMNS.values())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def with_table(readme: str) -> str:
    """The text of README.md with its table made anew, between two comments."""
    begin, end = "<!-- made by experiments.results -->\n", "<!-- end -->"
    before, rest = readme.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}{readme_table()}\n{end}{after}"


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    readme = with_table(README.read_text(encoding="utf-8"))
    write_atomically(README, lambda path: path.write_text(readme, encoding="utf-8"))
    write_atomically(PAGE, lambda path: path.write_text(page(), encoding="utf-8"))


if __name__ == "__main__":
    main()
