import csv
import json
import re
import statistics

from sklearn.metrics import cohen_kappa_score

from run_notebooks import ROOT

README = (ROOT / "README.md").read_text()


def test_the_numbers_are_those_of_the_figures():
    final, tuned = (
        json.loads((ROOT / "figures" / f"{name}.json").read_text())["numbers"] for name in ("final", "tuned")
    )
    columns = ("width", "width_within", "topic_order", "fact_order")
    rows = {
        f"SimCSE, temperature {t}, epoch {e} (one seed)": [
            tuned[f"simcse, temperature {t}, epoch {e}"][m][0] for m in columns
        ]
        for t, e in ((0.05, 1), (0.4, 1), (0.4, 3))
    }
    rows |= {
        name: [final["test"][m][column][0] for m in columns]
        for name, column in (
            ("base", "base"),
            ("base, sharpened to the same width", "at equal width"),
            ("**topic and facts**, mean of five seeds", "tuned"),
        )
    }
    for name, values in rows.items():
        assert f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |" in README
    differences = [final["test"][m]["minus base"][1:] for m in columns]
    shown = " | ".join(f"{low:+.2f} to {high:+.2f}" for low, high in differences)
    assert f"| its difference to the base, 95 % interval | {shown} |" in README
    words = " ".join(README.split())
    for measure, phrase in (
        ("adversarial_topic_order", "topic order falls"),
        ("adversarial_fact_order", "fact order rises"),
    ):
        before, after = (final["test"][measure][column][0] for column in ("base", "tuned"))
        assert f"{phrase} from {before:.2f} to {after:.2f}" in words
    ratios = [final["test"][m]["tuned"][0] / final["test"][m]["base"][0] for m in columns[:2]]
    assert "becomes {:.2f} times as wide, within a sport {:.2f} times".format(*ratios) in words
    general = next(of for name, of in final.items() if name not in ("test", "unseen sports"))["order"]
    shown = (general[column][0] for column in ("base", "tuned", "at equal width"))
    assert "everyday language falls from {:.2f} to {:.2f} (sharpened: {:.2f};".format(*shown) in words
    written = final["pairs that no template made"]
    shown = [written[m][column][0] for m in ("topic_order", "fact_order") for column in ("tuned", "base")]
    assert "either: topic order {:.2f}, base {:.2f}; fact order {:.2f} and {:.2f}.".format(*shown) in words
    band = json.loads((ROOT / "figures" / "baseline_band.json").read_text())["numbers"][
        "all-MiniLM-L6-v2, all 20,000 sentences"
    ]
    assert f"between {band['p5']:.2f} and {band['p95']:.2f}" in README


def test_the_second_model_is_that_of_the_figure():
    numbers = json.loads((ROOT / "figures" / "final_all-mpnet-base-v2.json").read_text())["numbers"]
    test, words = numbers["test"], " ".join(README.split())
    width, base_width = (test["width"][column][0] for column in ("tuned", "base"))
    assert f"becomes {width / base_width:.2f} times as wide ({base_width:.2f} to {width:.2f}), at another" in words
    for measure, phrase in (("topic_order", "topic order rises"), ("fact_order", "fact order falls")):
        before, after = (test[measure][column][0] for column in ("base", "tuned"))
        assert f"{phrase} from {before:.2f} to {after:.2f}" in words
    facts = numbers["pairs that no template made"]["fact_order"]
    assert f"made from {facts['base'][0]:.2f} to {facts['tuned'][0]:.2f})" in words
    lost, low, high = test["order"]["minus base"]
    assert f"all grades together lose {-lost:.2f} [{-high:.2f}, {-low:.2f}]" in words
    assert "all grades together {:.2f} [{:.2f}, {:.2f}]".format(*test["order"]["minus at equal width"]) in words
    above, adversarial, below = (
        test[measure]["minus at equal width"] for measure in ("topic_order", "adversarial_topic_order", "fact_order")
    )
    assert "topic order is {:.2f} [{:.2f}, {:.2f}] above it".format(*above) in words
    assert "names mislead ({:.2f} [{:.2f}, {:.2f}])".format(*adversarial) in words
    assert f"is {-below[0]:.2f} below, which is not established [{below[1]:.2f}, {below[2]:.2f}]" in words
    (general,) = (of["order"] for part, of in numbers.items() if part.startswith(("control", "STS")))
    shown = (general[column][0] for column in ("tuned", "base", "at equal width"))
    assert "everyday language loses less ({:.2f}, base {:.2f}, sharpened {:.2f})".format(*shown) in words


def test_the_frontier_is_that_of_the_figure():
    numbers = json.loads((ROOT / "figures" / "frontier.json").read_text())["numbers"]
    table = README[README.index("| without training |") :]
    for name in ("base", "centring", "spectral, p = 0.25", "spectral, p = 0.5"):
        shown = " | ".join(f"{numbers['points'][name][m][0]:.2f}" for m in ("width", "topic_order", "fact_order"))
        assert f"| {name} | {shown} |" in table
    overlap = " | ".join(f"{numbers['word_overlap'][m]:.2f}" for m in ("topic_order", "fact_order"))
    assert f"| word overlap, best of three | | {overlap} |" in table
    corpus = json.loads((ROOT / "figures" / "corpus.json").read_text())["numbers"]["word_overlap_spearman"]
    adversarial = max(values["all"] for name, values in corpus.items() if name.startswith("test, adversarial"))
    assert f"adversarial pairs a little (Spearman {adversarial:.2f}" in README


def test_the_thresholds_are_those_of_the_figure():
    numbers = json.loads((ROOT / "figures" / "thresholds.json").read_text())["numbers"]
    recalls = [row["recall"][0] for (_, wanted), row in numbers["judged"] if wanted == "precision 0.9"]
    words = "the base finds {:.2f} of the related pairs, the tuned model {:.2f}".format(*recalls[:2])
    assert words in " ".join(README.split())


def test_speed_and_memory_are_those_measured():
    numbers = json.loads((ROOT / "figures" / "training_benchmark.json").read_text())["numbers"]
    for name, (median, low, high) in numbers["times as fast: median, lowest, highest"].items():
        if "batch 64" not in name:
            assert f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} |" in README
    on_gpu = json.loads((ROOT / "figures" / "training_benchmark_gpu.json").read_text())["numbers"]
    for name, (median, low, high) in on_gpu["times as fast: median, lowest, highest"].items():
        assert f"| {name} | {median:.2f} | {low:.2f} to {high:.2f} |" in README
    assert f"embeddings, five billion, are counted in {on_gpu['seconds for all pairs']['100000']:.1f} s" in README
    cached, plain = (on_gpu["gigabytes"][name]["512"] for name in ("gradient caching", "plain"))
    assert f"on a GPU in {cached:.1f} instead of {plain:.1f}" in " ".join(README.split())
    cached, plain = (numbers["gigabytes"][name]["512"] for name in ("gradient caching", "plain"))
    assert f"512 sentences in {cached:.1f} GB instead of {plain:.1f}" in README
    for measure in ("topic order", "fact order"):
        ours, theirs = (
            sum(numbers["learned"][f"{name}, fp32"][measure]) / 5
            for name in ("this repository", "sentence-transformers")
        )
        assert f"{measure} {ours:.3f} and {theirs:.3f}" in " ".join(README.split())
    rates = numbers["training, sentences per second"]
    theirs = statistics.median(rates["sentence-transformers, bf16"]) / statistics.median(
        rates["sentence-transformers, fp32"]
    )
    assert f"gives them, too ({theirs:.1f})" in README


def test_the_blind_reader_agrees_as_stated():
    rows = list(csv.DictReader((ROOT / "data" / "blind_grades.csv").open()))
    grades, reader = ([int(row[column]) for row in rows] for column in ("grade", "reader_grade"))
    assert f"{sum(a == b for a, b in zip(grades, reader))} of {len(rows)} generated test pairs" in README
    assert f"weighted κ {cohen_kappa_score(grades, reader, weights='linear'):.2f}" in README


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_make_target_and_parameter_named_exists():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make (\w+)", README, re.MULTILINE)) - {"PYTHON"} <= targets
    notebooks = "".join((ROOT / f"{name}.ipynb").read_text() for name in ("baseline_comparison", "fine_tune"))
    for assignments in re.findall(r'SET="([^"]+)"', README):
        for name in re.findall(r"(\w+)=", assignments):
            assert f'"{name} = ' in notebooks


def test_the_other_domain_is_that_of_the_figure():
    numbers = json.loads((ROOT / "figures" / "docstrings.json").read_text())["numbers"]
    base, own = numbers["base"]["as it is"], numbers["topic and facts"]
    words, ratio = (
        " ".join(README.split()),
        [own[s]["width"][0] / base["width"][0] for s in ("stretch 1.0", "stretch 2.5")],
    )
    orders = [of["topic_order"][0] for of in (own["stretch 1.0"], base, own["stretch 2.5"])]
    assert "became {:.2f} times as wide and order stayed ({:.2f}, base {:.2f})".format(ratio[0], *orders[:2]) in words
    assert f"{ratio[1]:.2f} times as wide and order fell to {orders[2]:.2f}" in words
