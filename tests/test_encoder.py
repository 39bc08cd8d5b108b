import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer

from src import encoder as encoder_module
from src.encoder import PRESETS, Preset, load_encoder
from tests.hub import stand_in_hub
from tests.tiny_model import make_tiny_model

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_equals_sentence_transformers(tiny_folder, some_sentences, pooling):
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    oracle = SentenceTransformer(
        modules=[Transformer(str(tiny_folder)), Pooling(32, pooling_mode=pooling), Normalize()], device="cpu"
    )
    ours = load_encoder(str(tiny_folder), pooling).encode(some_sentences, batch_size=5, progress=False)
    assert ours.dtype == np.float32
    assert np.allclose(ours, oracle.encode(some_sentences), atol=1e-5)
    assert np.allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)


def test_the_embedded_model_is_what_sentence_transformers_makes_of_it(some_sentences):
    ours = load_encoder("all-MiniLM-L6-v2")
    folder = encoder_module._preset_folder(PRESETS["all-MiniLM-L6-v2"], Path("models"))
    assert (ours.pooling, ours.max_length, ours.sha256) == ("mean", 256, PRESETS["all-MiniLM-L6-v2"].sha256)
    expected = SentenceTransformer(str(folder), device="cpu").encode(some_sentences[:6])
    assert np.allclose(ours.encode(some_sentences[:6], progress=False), expected, atol=1e-5)


def test_order_and_batches_do_not_matter(tiny, some_sentences):
    embeddings = tiny.encode(some_sentences, progress=False)
    backwards = tiny.encode(some_sentences[::-1], batch_size=3, progress=False)[::-1]
    assert np.allclose(embeddings, backwards, atol=1e-6)


def test_dropout_is_off_while_encoding_and_the_mode_is_kept(tiny, some_sentences):
    tiny.model.train()
    first, second = tiny.encode(some_sentences, progress=False), tiny.encode(some_sentences, progress=False)
    assert np.array_equal(first, second)
    assert tiny.model.training


def test_cut_sentences_are_counted(tiny_folder):
    tiny = load_encoder(str(tiny_folder), "mean", max_length=8)
    with pytest.warns(UserWarning, match="1 of 2 sentences are longer than max_length = 8 tokens"):
        tiny.encode(["short one", "a far longer sentence than eight tokens will ever hold"], progress=False)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ([], "the corpus has 0 sentences: at least 1 are needed"),
        (["a", 7], "row 2: 7 is no text but int"),
        (["a", " "], "row 2: the sentence is empty"),
    ],
)
def test_bad_sentences(tiny, sentences, message):
    with pytest.raises(ValueError, match=message):
        tiny.encode(sentences)


def test_what_a_folder_lacks_is_named(tiny_folder, tmp_path):
    with pytest.raises(ValueError, match=r"pooling of .* is None: set it to one of cls, mean"):
        load_encoder(str(tiny_folder))
    with pytest.raises(ValueError, match=r"max_length is 99: .* takes 3 to 64 tokens"):
        load_encoder(str(tiny_folder), "cls", max_length=99)
    shutil.copytree(tiny_folder, tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="bare holds no weights"):
        load_encoder(str(tmp_path / "bare"), "cls")
    with pytest.raises(
        FileNotFoundError, match=r"no model 'models/nothing': neither a folder, nor a preset \(all-MiniLM"
    ):
        load_encoder("models/nothing")
    with pytest.raises(FileNotFoundError, match="no model 'all-minilm'"):
        load_encoder("all-minilm")


def preset(monkeypatch, **values):
    made = Preset("test-model", "mean", "MIT", "owner/test-model", **values)
    monkeypatch.setitem(PRESETS, "test-model", made)
    return made


def test_altered_weights_are_refused(monkeypatch, tmp_path):
    make_tiny_model(tmp_path / "test-model")
    preset(monkeypatch, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"is not test-model: its sha256 is [0-9a-f]{64}, expected 0000"):
        load_encoder("test-model", models_folder=tmp_path)


def test_a_preset_is_known_by_its_checksum_wherever_it_lies(monkeypatch, tiny, tiny_folder):
    preset(monkeypatch, sha256=tiny.sha256)
    assert load_encoder(str(tiny_folder)).name == "test-model"
    assert load_encoder(str(tiny_folder)).pooling == "mean"


def test_missing_package_says_what_to_install(monkeypatch, tmp_path):
    preset(monkeypatch, install="test-model-package==1.0")
    with pytest.raises(FileNotFoundError, match=r"`pip install test-model-package==1.0`, or put its folder at"):
        load_encoder("test-model", models_folder=tmp_path)


def test_parts_of_a_zip_are_joined_once(tmp_path):
    folder = make_tiny_model(tmp_path / "source" / "test-model")
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"test-model/{path.name}")
    content = (tmp_path / "whole.zip").read_bytes()
    parts = [tmp_path / f"model.zip.{i:03}" for i in range(3)]
    for i, part in enumerate(parts):
        part.write_bytes(content[i * len(content) // 3 : (i + 1) * len(content) // 3])
    joined = encoder_module._join_parts(parts, tmp_path / "models" / "test-model")
    assert load_encoder(str(joined), "cls").model.config.hidden_size == 32
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["test-model"]


def test_bin_weights_load_and_safetensors_are_preferred(tiny_folder, tmp_path, some_sentences):
    folder = tmp_path / "with_bin"
    shutil.copytree(tiny_folder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    both = load_encoder(str(folder), "cls")
    assert both.sha256 == load_encoder(str(tiny_folder), "cls").sha256
    (folder / "model.safetensors").unlink()
    alone = load_encoder(str(folder), "cls")
    assert np.array_equal(alone.encode(some_sentences, progress=False), both.encode(some_sentences, progress=False))


def test_a_pickle_payload_is_not_executed(tiny_folder, tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "hacked"),)

    folder = tmp_path / "evil"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Payload()}, folder / "pytorch_model.bin")
    with pytest.raises(pickle.UnpicklingError):
        load_encoder(str(folder), "cls")
    assert not (tmp_path / "hacked").exists()


def test_missing_weights_are_no_silent_random_ones(tiny_folder, tmp_path):
    from safetensors.torch import save_file

    folder = tmp_path / "partial"
    shutil.copytree(tiny_folder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lacks 1 weights of the model, such as encoder\.layer\.1\.output\.dense\.weight"
    ):
        load_encoder(str(folder), "cls")


def test_no_network_is_said_within_15_seconds(tmp_path):
    """In processes of their own, against a port that refuses and against one that accepts and never answers."""
    script = (
        "import sys, time; from src.encoder import load_encoder\nstart = time.monotonic()\n"
        "try: load_encoder(sys.argv[1])\nexcept ConnectionError as error: print(time.monotonic() - start, error)"
    )
    with socket.socket() as silent, socket.socket() as refusing:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        refusing.bind(("127.0.0.1", 0))
        processes = []
        for server, model in ((silent, "unsup-simcse-roberta-base"), (refusing, "owner/some-model")):
            hub = {
                "HF_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}",
                "HF_HOME": str(tmp_path),
                "HF_HUB_OFFLINE": "0",
            }
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", script, model],
                    cwd=tmp_path,
                    text=True,
                    stdout=subprocess.PIPE,
                    env=os.environ | hub | {"PYTHONPATH": str(ROOT)},
                )
            )
        answers = [process.communicate(timeout=60)[0] for process in processes]
    for answer, model in zip(answers, ("princeton-nlp/unsup-simcse-roberta-base", "owner/some-model")):
        seconds, message = answer.split(" ", 1)
        assert float(seconds) < 15
        assert message.startswith(f"{model} is not on this machine and the hub did not answer")
        assert f"models/{model.split('/')[-1]}" in message
        assert "PROFILE=embedded" in message


def test_a_hub_model_is_taken_from_the_local_folder(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "unsup-simcse-roberta-base")
    assert load_encoder("unsup-simcse-roberta-base", models_folder=tmp_path).pooling == "cls"


def test_pooling_is_read_from_sentence_transformers_files(tiny_folder, tmp_path):
    for name, saved in {"old": {"pooling_mode_cls_token": True}, "new": {"pooling_mode": "cls"}}.items():
        folder = tmp_path / name
        shutil.copytree(tiny_folder, folder)
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(saved))
        (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 24}')
        loaded = load_encoder(str(folder))
        assert (loaded.pooling, loaded.max_length) == ("cls", 24)


def test_download_prefers_safetensors_falls_back_to_bin_and_works_offline_afterwards(tiny_folder, tmp_path):
    both, alone = tmp_path / "both", tmp_path / "alone"
    for folder in (both, alone):
        shutil.copytree(tiny_folder, folder)
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    (alone / "model.safetensors").unlink()
    (both / "modeling_evil.py").write_text("raise SystemExit('remote code ran')")
    script = (
        "from src.encoder import load_encoder\n"
        "print([load_encoder(m).encode(['a', 'b'], progress=False).sum() for m in ('owner/both', 'owner/alone')])"
    )
    server, environment = stand_in_hub({"owner/both": both, "owner/alone": alone}, tmp_path / "home")
    outputs = []
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stderr[-2000:]
        outputs.append(result.stdout)
        server.shutdown()
        server.server_close()  # the second time there is no hub any more
    assert outputs[0] == outputs[1]
    assert "both/model.safetensors" in server.sent
    assert "alone/pytorch_model.bin" in server.sent
    assert not {"both/pytorch_model.bin", "both/modeling_evil.py"} & set(server.sent)


def test_lengths_are_those_before_the_cut(tiny_folder):
    encoder = load_encoder(str(tiny_folder), "mean", max_length=8)
    long = "the keeper beats the field in lap 1 and the skipper holds a rival"
    before, after = encoder.lengths([long, "the keeper"]), []
    with pytest.warns(UserWarning, match="1 of 2 sentences are longer than max_length = 8"):
        after = [len(row["input_ids"]) for row in encoder.tokenize([long, "the keeper"])]
    assert before[0] > after[0] == 8
    assert before[1] == after[1] == 4


def test_a_layer_that_is_not_read_is_refused(tiny_folder, tmp_path):
    folder = tmp_path / "with-dense"
    shutil.copytree(tiny_folder, folder)
    names = ("models.Transformer", "models.Pooling", "models.Dense")
    (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.{name}"} for name in names]))
    with pytest.raises(ValueError, match="with-dense has a layer that is not read here, Dense, after its pooling"):
        load_encoder(str(folder), "mean")
