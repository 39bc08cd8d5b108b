import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoModel

from src.encoder import load_encoder
from src.sharing import save_encoder


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
    assert json.loads((folder / "training.json").read_text()) == {"temperature": 0.05}
    modules = json.loads((folder / "modules.json").read_text())
    assert [m["type"] for m in modules] == [
        f"sentence_transformers.models.{m}" for m in ("Transformer", "Pooling", "Normalize")
    ]


def test_a_model_is_replaced_and_nothing_else_is(tiny, tmp_path):
    folder = save_encoder(tiny, tmp_path / "tuned", {"run": 1})
    save_encoder(tiny, folder, {"run": 2})
    assert json.loads((folder / "training.json").read_text()) == {"run": 2}
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
    assert json.loads((folder / "training.json").read_text()) == {"run": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["tuned"]


def test_a_pooling_without_a_name_there(tiny_folder, tmp_path):
    encoder = load_encoder(str(tiny_folder), "first_last_mean")
    with pytest.raises(ValueError, match="sentence-transformers has no first_last_mean pooling"):
        save_encoder(encoder, tmp_path / "tuned", {})
    assert not list(tmp_path.iterdir())
