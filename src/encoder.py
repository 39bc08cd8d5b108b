"""Sentence encoders: load a model with its tokenizer and pooling, and turn sentences into unit vectors."""

import contextlib
import hashlib
import io
import json
import struct
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from jaxtyping import Float, Int
from safetensors import SafetensorError
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

from src.corpus import check_sentences
from src.pooling import POOLINGS, pool
from src.presets import OLD_LAYOUT, find_weights
from src.records import cache_key, output_folder, read_json, read_with_checksum, write_with_checksum

BATCH_SIZE = 32  # sentences in a forward pass on a CPU
MOST_BATCHES = 16  # at a time on a CPU, since each takes memory
GPU_TOKENS = 2**15  # in a forward pass on a GPU, which idles where they are few
Tokens = Sequence[Mapping[str, list[int]]]  # tokenized sentences


@dataclass(eq=False)
class Encoder:
    """A transformer with its tokenizer and pooling."""

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    pooling: str
    max_length: int  # tokens, special ones included
    sha256: str  # of the weights file it was loaded from
    prompt: str = ""  # put before each sentence
    cache: Path | None = None  # a folder for embeddings and trained weights

    def embed(self, batch: Mapping[str, Tensor]) -> Float[Tensor, "batch dim"]:
        """Pooled embeddings of a padded batch, not normalised, in the model's present mode (train or eval)."""
        return pool(self.model(**batch).last_hidden_state, batch["attention_mask"], self.pooling)

    def tokenize(self, sentences: Sequence[str]) -> list[dict[str, list[int]]]:
        """Token ids of each sentence, cut at `max_length`; a warning says how many were cut."""
        tokens = self.tokenizer([self.prompt + s for s in sentences], truncation=True, max_length=self.max_length)
        if cut := sum(bool(encoding.overflowing) for encoding in tokens.encodings):
            warnings.warn(
                f"{cut:,} of {len(sentences):,} sentences are longer than max_length = {self.max_length} tokens and "
                "were cut there",
                stacklevel=3,
            )
        ids = np.concatenate([np.array(row) for row in tokens["input_ids"]])
        if (unknown := (ids == self.tokenizer.unk_token_id).mean()) > 0.2:
            warnings.warn(
                f"{unknown:.0%} of the tokens are unknown to {self.name}, such as emoji or another script: it sees all "
                "of them as one",
                stacklevel=3,
            )
        return [dict(zip(tokens, values)) for values in zip(*tokens.values())]

    def count_tokens(self, sentences: Sequence[str]) -> list[int]:
        """How many tokens each sentence has, before any is cut."""
        tokens = self.tokenizer([self.prompt + s for s in sentences], verbose=False)
        return [len(ids) for ids in tokens["input_ids"]]

    def pad(self, tokens: Tokens) -> dict[str, Int[Tensor, "batch longest"]]:
        """Tokenized sentences as one padded batch, on the model's device."""
        padded = self.tokenizer.pad(list(tokens))  # asked for tensors, it takes eight times as long
        return {name: torch.from_numpy(np.array(values)).to(self.model.device) for name, values in padded.items()}

    def encode(self, sentences: Sequence[str], progress: bool = True) -> Float[np.ndarray, "sentences dim"]:
        """Unit-length embeddings in float32, in the order of the sentences, dropout off.

        With a `cache`, the same tokens and weights are encoded once. Under a launcher every process must call it: each
        encodes its share and returns all. Raises `ValueError` for no sentence or one that is no text.
        """
        check_sentences(sentences, "what is to be encoded", at_least=1)
        sentences = list(sentences)
        tokens = self.tokenize(sentences)
        if self.cache is None:
            return self.encode_tokens(tokens, progress)
        ids = [row["input_ids"] for row in tokens]
        key = cache_key("embeddings", self.weights_checksum(), self.pooling, self.model.device.type, ids)
        file = output_folder(self.cache) / f"{self.name}-{len(tokens)}-sentences-{key}.npy"
        embeddings = None
        with contextlib.suppress(FileNotFoundError, ValueError):  # damaged: made anew
            embeddings = np.load(io.BytesIO(read_with_checksum(file)))
        (embeddings,) = broadcast_object_list([embeddings])  # all processes encode, or none
        if embeddings is None:
            embeddings = self.encode_tokens(tokens, progress)
            np.save(content := io.BytesIO(), embeddings)
            write_with_checksum(file, content.getvalue())
        return embeddings

    def encode_tokens(self, tokens: Tokens, progress: bool = True) -> Float[np.ndarray, "sentences dim"]:
        """`encode` of tokenized sentences, always anew.

        On a CPU each thread encodes batches of its own: threads that share a batch wait for each other.
        """
        state, threads, was_training = PartialState(), torch.get_num_threads(), self.model.training
        own = list(range(len(tokens)))[state.process_index :: state.num_processes]
        size, workers = BATCH_SIZE, min(threads, MOST_BATCHES)
        if self.model.device.type == "cuda":
            size, workers = max(1, GPU_TOKENS // max(len(row["input_ids"]) for row in tokens)), 1
        share = [tokens[row] for row in own]
        vectors = np.empty((len(own), self.model.config.hidden_size), np.float32)

        def encode_batch(rows: list[int]) -> int:
            with torch.inference_mode():
                embeddings = self.embed(self.pad([share[row] for row in rows]))
                vectors[rows] = F.normalize(embeddings.float(), dim=-1).cpu().numpy()
            return len(rows)

        bar = tqdm(
            total=len(own), desc=f"encoding, {self.name}", unit=" sentences", leave=False,
            disable=not (progress and state.is_main_process),
        )  # fmt: skip
        self.model.eval()
        try:
            with bar, ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as executor:
                for count in executor.map(encode_batch, by_length(share, size)):
                    bar.update(count)
        finally:
            torch.set_num_threads(threads)  # the workers changed it for threads that start later
            self.model.train(was_training)
        embeddings = np.empty((len(tokens), vectors.shape[1]), np.float32)
        for rows, share_of_process in gather_object([(own, vectors)]):
            embeddings[rows] = share_of_process
        return embeddings

    def weights_checksum(self) -> str:
        """A checksum of the weights as they are now, and of the model's configuration."""
        config = self.model.config.to_dict() | {"_name_or_path": None, "transformers_version": None}
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
        for name, value in self.model.state_dict().items():
            digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()


def by_length(tokens: Tokens, batch_size: int) -> list[list[int]]:
    """The numbers of the rows in batches of sentences of similar length, so that little is spent on padding."""
    order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]["input_ids"]))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def load_encoder(
    model: str,
    pooling: str | None = None,
    max_length: int | None = None,
    models_folder: Path | str = "models",
    cache: Path | str | None = None,
) -> Encoder:
    """Load a preset, a local folder, or a hub repository ("owner/name") as an `Encoder`, in fp32.

    A preset is taken from its pip package, else from `models_folder`/name, else from the hub. `pooling`, `max_length`
    and a prompt default to what the preset or the folder's sentence-transformers files say. In `cache`, when given,
    `encode` and `fine_tune` keep what they made, and find it again.

    Raises `FileNotFoundError` for an unknown name or a folder without weights, `ValueError` for altered weights, a kind
    of model or a pooling that is not supported, `ConnectionError` within 15 seconds when the hub does not answer.
    """
    weights, checksum, preset = find_weights(model, Path(models_folder))
    folder = weights.parent.parent if weights.parent.name == OLD_LAYOUT else weights.parent
    saved_pooling, saved_length, prompt = _sentence_transformers_settings(folder)
    pooling = pooling or (preset.pooling if preset else saved_pooling)
    if pooling not in POOLINGS:
        raise ValueError(f"pooling of {model} is {pooling!r}: set it to one of {', '.join(POOLINGS)}")
    transformer = _load_transformer(weights)
    tokenizer = _load_tokenizer(weights.parent, transformer)
    max_length = _check_max_length(max_length, saved_length or tokenizer.model_max_length, transformer)
    transformer.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    name = preset.name if preset else (folder if Path(model).expanduser().is_dir() else Path(model)).name
    cache = Path(cache) if cache else None
    return Encoder(name, transformer, tokenizer, pooling, max_length, checksum, prompt, cache)


def _load_transformer(weights: Path) -> PreTrainedModel:
    transformers_logging.disable_progress_bar()
    config_file = weights.parent / "config.json"
    if config_file.is_file() and "auto_map" in read_json(config_file):
        raise ValueError(f"{config_file} asks for code of its own, which is not run here: take a model without")
    config = AutoConfig.from_pretrained(weights.parent, trust_remote_code=False)
    decoder = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and type(config) not in MODEL_FOR_MASKED_LM_MAPPING
    if decoder or getattr(config, "is_encoder_decoder", False) or config.model_type in ("xlnet", "fnet"):
        raise ValueError(
            f"{weights.parent} is a {config.model_type}: an encoder is needed, such as BERT, RoBERTa, MPNet, ModernBERT"
        )
    try:
        transformer, report = AutoModel.from_pretrained(
            weights.parent, config=config, dtype=torch.float32, trust_remote_code=False, output_loading_info=True,
            use_safetensors=".safetensors" in weights.name,  # a .bin loads through torch's weights-only unpickler
        )  # fmt: skip
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, struct.error, UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{weights} cannot be read, it may be half a download or another model's: {reason}") from None
    if missing := [key for key in report["missing_keys"] if "pooler" not in key]:
        raise ValueError(f"{weights} lacks {len(missing)} weights of the model, such as {missing[0]}")
    if wrong := [name for name, value in transformer.named_parameters() if not value.isfinite().all()]:
        raise ValueError(f"{weights} holds NaN or infinity, in {wrong[0]}: the training that wrote it failed")
    return transformer


def _load_tokenizer(folder: Path, transformer: PreTrainedModel) -> PreTrainedTokenizerBase:
    """Raises `FileNotFoundError` where there is none, because transformers would then make one that turns all sentences
    into the same tokens, and `ValueError` where it belongs to another model."""
    if not any(file for pattern in ("tokenizer*", "vocab*", "*.model", "*bpe*") for file in folder.glob(pattern)):
        raise FileNotFoundError(f"{folder} holds no tokenizer: put tokenizer.json and its kin there, too")
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    words = transformer.get_input_embeddings().num_embeddings
    if not tokenizer.is_fast or tokenizer.pad_token is None or len(tokenizer) > words:
        raise ValueError(
            f"the tokenizer in {folder} cannot be used: a fast one (tokenizer.json) is needed, with a padding token and"
            f" the model's own words (it has {len(tokenizer):,}, the model {words:,})"
        )
    tokenizer.padding_side = "right"
    return tokenizer


def _check_max_length(max_length: int | None, saved: int, transformer: PreTrainedModel) -> int:
    """`max_length`, or what was saved with the model, or the most that its table of positions has room for."""
    tables = [table for name, table in transformer.named_modules() if name.endswith("position_embeddings")]
    longest = getattr(transformer.config, "max_position_embeddings", None) or saved
    if tables and isinstance(tables[0], torch.nn.Embedding):
        # RoBERTa and its kin number positions from the padding index on: the rows up to it are never a token's
        longest = tables[0].num_embeddings - (0 if tables[0].padding_idx is None else tables[0].padding_idx + 1)
    max_length = max_length or min(saved, longest)
    if not 3 <= max_length <= longest:
        raise ValueError(f"max_length is {max_length}: the model takes 3 to {longest} tokens")
    return max_length


def _sentence_transformers_settings(folder: Path) -> tuple[str | None, int | None, str]:
    """Pooling, maximum length and prompt from the files that sentence-transformers writes; None or "" where there is
    none. Raises `ValueError` for layers that are not read here."""
    files = ("modules.json", "config_sentence_transformers.json", "1_Pooling/config.json", "sentence_bert_config.json")
    modules, general, pooling, lengths = (read_json(folder / f) if (folder / f).is_file() else {} for f in files)
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    if more := sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"}):
        raise ValueError(f"{folder} has a layer that is not read here, {', '.join(more)}, after its pooling")
    prompt = (general.get("prompts") or {}).get(general.get("default_prompt_name"), "")
    if prompt and not pooling.get("include_prompt", True):
        raise ValueError(f"{folder} leaves the prompt's tokens out of the pooling, which cannot be done here")
    names = {word: name for name, word in POOLINGS.items()}
    flags = [key.removeprefix("pooling_mode_") for key, on in pooling.items() if key.startswith("pooling_mode_") and on]
    modes = [names.get(flag, flag) for flag in flags]
    mode = pooling.get("pooling_mode", "+".join(modes))  # version 6 writes one word, older ones a flag for each
    return mode or None, lengths.get("max_seq_length"), prompt
