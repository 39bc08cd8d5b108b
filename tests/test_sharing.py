import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from src.encoder import load_encoder
from src.postprocessing import Centering, SpectralScaling
from src.scorecard import score, thresholds
from src.sharing import save_encoder, write_card


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


def test_a_prompt_is_kept_and_read_again(tiny_folder, tmp_path, some_sentences):
    encoder = replace(load_encoder(str(tiny_folder), "mean"), prompt="about: ")
    ours = encoder.encode(some_sentences, progress=False)
    assert not np.allclose(load_encoder(str(tiny_folder), "mean").encode(some_sentences, progress=False), ours)
    folder = save_encoder(encoder, tmp_path / "tuned", {})
    assert load_encoder(str(folder)).prompt == "about: "
    assert np.allclose(SentenceTransformer(str(folder), device="cpu").encode(some_sentences), ours, atol=1e-6)
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"include_prompt": False}))
    with pytest.raises(ValueError, match="leaves the prompt's tokens out of the pooling"):
        load_encoder(str(folder))


@pytest.mark.parametrize("transform", [Centering(), SpectralScaling(0.25)])
def test_a_transform_is_part_of_the_model(tiny, tmp_path, some_sentences, transform):
    ours = transform.fit(tiny.encode(some_sentences[:50])).transform(tiny.encode(some_sentences))
    folder = save_encoder(tiny, tmp_path / "sharpened", {}, transform)
    assert np.allclose(SentenceTransformer(str(folder), device="cpu").encode(some_sentences), ours, atol=1e-6)
    card = (folder / "README.md").read_text()
    assert f"- transform: {transform}" in card
    assert f"tiny, with {transform} fitted on sentences" in card
    with pytest.raises(ValueError, match="has a layer that is not read here, Dense"):  # rather than left out
        load_encoder(str(folder))


def test_a_model_is_replaced_and_nothing_else_is(tiny, tmp_path):
    folder = save_encoder(tiny, tmp_path / "tuned", {"run": 1})
    save_encoder(tiny, folder, {"run": 2})
    assert json.loads((folder / "training.json").read_text())["run"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="thesis exists and holds no model: nothing is overwritten"):
        save_encoder(tiny, thesis, {})
    assert (thesis / "chapter1.txt").read_text() == "years of work"


def test_a_failed_save_leaves_the_old_model(tiny, tmp_path, monkeypatch):
    folder = save_encoder(tiny, tmp_path / "tuned", {"run": 1})

    def full_disk(folder):
        (folder / "vocab.txt").write_text("half")
        raise OSError("No space left on device")

    monkeypatch.setattr(tiny.tokenizer, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_encoder(tiny, folder, {"run": 2})
    assert json.loads((folder / "training.json").read_text())["run"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def test_a_pooling_without_a_name_there(tiny_folder, tmp_path):
    encoder = load_encoder(str(tiny_folder), "first_last_mean")
    with pytest.raises(ValueError, match="sentence-transformers has no first_last_mean pooling"):
        save_encoder(encoder, tmp_path / "tuned", {})
    assert not list(tmp_path.iterdir())


def test_a_card_says_what_is_known(tiny, tmp_path, some_sentences):
    folder = save_encoder(tiny, tmp_path / "tuned", {"objective": "simcse", "corpus": "mine.txt"})
    first = (folder / "README.md").read_text()
    assert first.startswith("---\nlibrary_name: sentence-transformers\n")
    assert "# tuned\n\ntiny, fine-tuned (simcse) on sentences of one domain (mine.txt)" in first
    assert "## Before and after" not in first
    corpus, rng = Dataset.from_dict({"sentence": some_sentences}), np.random.default_rng(0)
    cards = [score(tiny, corpus, name=name, replicates=5) for name in ("base", "epoch 1")]
    pairs = pd.DataFrame({"sentence1": some_sentences, "sentence2": some_sentences, "grade": rng.integers(0, 5, 72)})
    found = thresholds(rng.random(72), pairs, 2, 0.5, 0.1, replicates=5)
    (tmp_path / "picture.png").write_bytes(b"png")
    write_card(folder, cards, found, tmp_path / "picture.png")
    card = (folder / "README.md").read_text()
    for words in (
        "| | base | epoch 1 |",
        "| p95 - p5 of the cosines of all pairs | ",
        "![Cosines before and after](picture.png)",
        '.push_to_hub("you/tuned", local_model_path="path/to/tuned")',
    ):
        assert words in card
    assert (folder / "picture.png").read_bytes() == b"png"
    assert json.loads((folder / "thresholds.json").read_text()) == found
    SentenceTransformer(str(folder), device="cpu")


def test_a_saved_calibration_is_three_lines_of_plain_python(tiny, tmp_path, some_sentences):
    """The lines that the card gives, run as they stand there."""
    folder = save_encoder(tiny, tmp_path / "tuned", {})
    cosines = np.linspace(-0.5, 0.9, 72)
    pairs = pd.DataFrame(
        {"sentence1": some_sentences, "sentence2": some_sentences, "grade": [0, 1, 0, 3] * 9 + [1, 2, 3, 4] * 9}
    )
    write_card(folder, thresholds=thresholds(cosines, pairs, 2, 0.5, 0.1, replicates=5))
    code = (folder / "README.md").read_text().split("```python\n")[2].split("```")[0]
    place = {"cosine": 0.9}
    exec(code.replace('"thresholds.json"', repr(str(folder / "thresholds.json"))), place)
    low = place["probability"]
    place["cosine"] = -0.5
    exec(code.replace('"thresholds.json"', repr(str(folder / "thresholds.json"))), place)
    assert 0 < place["probability"] < 0.5 < low < 1
