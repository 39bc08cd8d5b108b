import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from src.encoder import load_encoder
from src.scorecard import MEASURES, compare
from src.scoring import score
from src.sharing import save_encoder, write_card
from src.thresholds import choose_thresholds


def encode_as_others_do(folder, sentences):
    return SentenceTransformer(str(folder), device="cpu").encode(sentences)


@pytest.fixture
def saved(tiny, tmp_path):
    return save_encoder(tiny, tmp_path / "tuned", {"objective": "simcse", "corpus": "mine.txt", "run": 1})


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_others_open_it_and_embed_the_same(tiny_folder, tmp_path, some_sentences, pooling):
    encoder = load_encoder(str(tiny_folder), pooling, max_length=32)
    ours = encoder.encode(some_sentences, progress=False)
    folder = save_encoder(encoder, tmp_path / "models" / "tuned", {"temperature": 0.05})
    reloaded = load_encoder(str(folder))
    assert (reloaded.pooling, reloaded.max_length) == (pooling, 32)
    assert np.array_equal(reloaded.encode(some_sentences, progress=False), ours)
    theirs = SentenceTransformer(str(folder), device="cpu")
    assert theirs.max_seq_length == 32
    assert np.allclose(theirs.encode(some_sentences), ours, atol=1e-6)
    assert AutoModel.from_pretrained(folder).config.hidden_size == 32
    assert "temperature: 0.05" in (folder / "README.md").read_text()
    expected = {"temperature": 0.05, "base model": "tiny", "base sha256": encoder.sha256}
    assert json.loads((folder / "training.json").read_text()) == expected
    modules = json.loads((folder / "modules.json").read_text())
    assert [m["type"] for m in modules] == [
        f"sentence_transformers.models.{m}" for m in ("Transformer", "Pooling", "Normalize")
    ]


def test_a_prompt_is_kept_and_read_again(tiny, tmp_path, some_sentences):
    encoder = replace(tiny, prompt="about: ")
    ours = encoder.encode(some_sentences, progress=False)
    assert not np.allclose(tiny.encode(some_sentences, progress=False), ours)
    folder = save_encoder(encoder, tmp_path / "tuned", {})
    assert load_encoder(str(folder)).prompt == "about: "
    assert np.allclose(encode_as_others_do(folder, some_sentences), ours, atol=1e-6)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))
    with pytest.raises(ValueError, match="prompt"):
        load_encoder(str(folder))


def test_a_model_is_replaced_and_nothing_else_is(saved, tiny, tmp_path):
    (saved / "old_file.txt").write_text("of the old model")
    save_encoder(tiny, saved, {"run": 2})
    assert json.loads((saved / "training.json").read_text())["run"] == 2
    assert not (saved / "old_file.txt").exists()
    assert os.listdir(tmp_path) == ["tuned"]
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="thesis"):
        save_encoder(tiny, thesis, {})
    assert (thesis / "chapter1.txt").read_text() == "years of work"


def test_a_failed_save_leaves_the_old_model(saved, tiny, tmp_path, monkeypatch):
    def full_disk(folder):
        (folder / "vocab.txt").write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(tiny.tokenizer, "save_pretrained", full_disk)
    for folder in (saved, tmp_path / "new"):
        with pytest.raises(OSError, match="No space left"):
            save_encoder(tiny, folder, {"run": 2})
    assert json.loads((saved / "training.json").read_text())["run"] == 1
    assert os.listdir(tmp_path) == ["tuned"]


def test_others_may_read_the_folder(saved):
    """The temporary folder that it is written in is the user's alone."""
    umask = os.umask(0)
    os.umask(umask)
    assert saved.stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.fixture(scope="module")
def chosen(some_sentences):
    cosines, grades = np.linspace(-0.5, 0.9, 72), [0, 1, 0, 3] * 9 + [1, 2, 3, 4] * 9
    pairs = pd.DataFrame({"sentence1": some_sentences, "sentence2": some_sentences, "grade": grades})
    return choose_thresholds(cosines, pairs, 2, 0.5, 0.1, replicates=5)


def test_a_card_says_what_is_known(saved, tiny, tmp_path, some_sentences, chosen):
    first = (saved / "README.md").read_text()
    assert first.startswith("---\nlibrary_name: sentence-transformers\n")
    assert "# tuned\n\ntiny, fine-tuned (simcse) on sentences of one domain (mine.txt)" in first
    assert "## Before and after" not in first and "## Thresholds" not in first
    embeddings, corpus = tiny.encode(some_sentences, progress=False), pd.DataFrame({"sentence": some_sentences})
    cards = [score(name, lambda sentences: embeddings, corpus, replicates=5) for name in ("base", "epoch 1")]
    comparison = compare(cards).rename(index=MEASURES)
    (tmp_path / "picture.png").write_bytes(b"png")
    write_card(saved, comparison, chosen, tmp_path / "picture.png")
    card = (saved / "README.md").read_text()
    width = comparison.loc[MEASURES["width"], "base"]
    for words in (
        "|  | base | epoch 1 |\n| --- | --- | --- |\n",
        f"| p95 - p5 of the cosines of all pairs | {width} | {width} |\n",
        "![Cosines before and after](picture.png)",
        '.push_to_hub("you/tuned", local_model_path="path/to/tuned")',
        f"where {chosen['share_related']:.0%} of the pairs",
    ):
        assert words in card
    assert (saved / "picture.png").read_bytes() == b"png"
    assert json.loads((saved / "thresholds.json").read_text()) == chosen
    encode_as_others_do(saved, some_sentences[:2])


def test_a_card_of_a_known_model_names_its_hub_and_licence(tiny, tmp_path):
    folder = save_encoder(replace(tiny, name="all-MiniLM-L6-v2"), tmp_path / "tuned", {})
    head = (folder / "README.md").read_text().split("---")[1]
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2\nlicense: apache-2.0\n" in head


def test_the_code_of_a_card_runs_as_written(saved, chosen, monkeypatch):
    write_card(saved, thresholds=chosen)
    opening, calibration = (code.split("```")[0] for code in (saved / "README.md").read_text().split("```python\n")[1:])
    place = {}
    exec(opening.replace("path/to/tuned", str(saved)), place)
    assert isinstance(place["model"], SentenceTransformer)
    monkeypatch.chdir(saved)
    probabilities = []
    for cosine in (-0.5, 0.9):
        exec(calibration, place := {"cosine": cosine})
        probabilities.append(place["probability"])
    slope, intercept = chosen["calibration"].values()
    assert probabilities == pytest.approx(1 / (1 + np.exp(-slope * np.array([-0.5, 0.9]) - intercept)))
    assert probabilities[0] < 0.5 < probabilities[1]
