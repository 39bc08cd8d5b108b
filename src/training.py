"""Fine-tuning on the transformers Trainer, by any of three objectives, with a look at the model after every epoch.

python -m src.training PROFILE.yaml trains and saves as fine_tune.ipynb does, without the looking: as many epochs as the
profile says, by default one, and the last is saved. So does torchrun --nproc-per-node N -m src.training PROFILE.yaml on
N processes, as if they were one.
"""

import argparse
import ast
import contextlib
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml
from accelerate import PartialState
from accelerate.data_loader import prepare_data_loader
from filelock import FileLock, Timeout
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from src.corpus import (
    check_sentences,
    draw_sentences,
    fingerprint,
    load_sentences,
    output_folder,
    split_sentences,
    write_atomically,
)
from src.encoder import Encoder, load_encoder, of_first_process, processes
from src.losses import info_nce, relation_loss, take_apart, topic_and_facts
from src.quality import effective_rank
from src.sentences import triplets
from src.similarity import pairwise_distribution

OBJECTIVES = ("simcse", "supervised_simcse", "topic_and_facts")
PROBE, LOOKS = 64, 4  # sentences by which a collapse is seen, and how often an epoch (then it is saved, too)
SEAL = "checksums.json"  # written last: a folder without it is half a folder
# sentences of similar length in a forward pass: a batch padded as one takes half as long again on a CPU; a GPU idles
# where they are few, and with gradient caching, whose memory is that of a chunk, 128 are enough
CHUNK, CHUNK_ON_GPU, CACHED_CHUNK_ON_GPU = 32, 512, 128


@dataclass(frozen=True)
class TrainingSettings:
    """What a run depends on beside model and sentences. Raises `ValueError` for a value that cannot work."""

    epochs: int = 1  # Gao et al. 2021 train for one
    temperature: float = 0.05  # theirs
    learning_rate: float = 3e-5  # theirs for BERT-base with batches of 64
    batch_size: int = 64  # sentences, over all processes; each has batch_size - 1 negatives
    gradient_caching: bool = False  # large batches in little memory (Gao et al. 2021, arXiv 2101.06983); slower
    mlp_head: bool = False  # a dense layer with tanh on top, trained and then dropped (their table 11)
    seed: int = 0
    precision: str = "auto"  # "fp32", "bf16", or "auto": bf16 autocast where the hardware has it
    objective: str = "simcse"  # one of OBJECTIVES
    facts: float = 0.7  # their share of the targets of `topic_and_facts`; the topic has the rest
    stretch: float = 2.5  # by how much those targets' cosines are multiplied

    def __post_init__(self):
        if self.epochs < 1 or self.epochs != int(self.epochs):
            raise ValueError(f"epochs is {self.epochs}: it must be a whole number, 1 or more")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}: it must be above 0 (the paper uses 0.05)")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate is {self.learning_rate}: it must be above 0 (the paper uses 3e-5)")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}: without a second sentence there are no negatives")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise ValueError(f"precision is {self.precision!r}: expected auto, fp32 or bf16")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective is {self.objective!r}: expected one of {', '.join(OBJECTIVES)}")
        if not 0 <= self.facts <= 1:
            raise ValueError(f"facts is {self.facts}: it is a share, from 0 (topic alone) to 1 (facts alone)")
        if not self.stretch > 0:
            raise ValueError(f"stretch is {self.stretch}: it must be above 0 (1 leaves the targets as they are)")

    @property
    def bf16(self) -> bool:
        if self.precision == "auto":
            on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
            return on_gpu or (not torch.cuda.is_available() and torch.cpu._is_avx512_bf16_supported())
        return self.precision == "bf16"


class Collapse(RuntimeError):
    """Training was stopped; the encoder is as it was when it was last seen to be in order."""


def fine_tune(
    encoder: Encoder,
    sentences: Sequence,
    settings: TrainingSettings,
    after_epoch: Callable[[int], object] = lambda epoch: None,
    parts: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[float]:
    """Train `encoder` in place; returns the loss of every step.

    - `simcse` (Gao et al. 2021, section 3): each sentence is encoded twice under the model's own dropout; the rest of
      the batch are the negatives.
    - `supervised_simcse` (their section 4): a row of `sentences` is (anchor, positive) or (anchor, positive, hard
      negative), each encoded once.
    - `topic_and_facts`: each sentence is encoded once, and the batch's cosines learn those of its targets, made of
      `parts`, which `take_apart` returns for these sentences; None: it is called here, with the encoder as it comes.

    The learning rate warms up over a tenth of an epoch and then stays, so that after epoch 1 a run of three epochs is
    where a run of one would be. `after_epoch(1)`, … is called with the model in eval mode.

    With `encoder.cache`, a run that was killed goes on from where it was last saved, and one that was finished is not
    done again; either calls `after_epoch` for all epochs and ends with the same weights.

    Raises `ValueError` for sentences that repeat or are fewer than a batch, for a model without dropout where its
    views would be equal, or for a damaged checkpoint; `RuntimeError` when another process is at the same run;
    `Collapse` when the loss is not finite, all cosines get high, or few directions are left.
    """
    columns = _columns(sentences, settings)
    targets = None
    if settings.objective == "topic_and_facts":
        topic, facts = parts or take_apart(columns[0], encoder.encode, seed=settings.seed)
        targets = of_first_process(topic_and_facts(topic, facts, settings.facts).astype(np.float32))
        targets = torch.from_numpy(targets)
    tokens = [encoder.tokenize(column) for column in columns]
    if settings.objective == "simcse":
        _refuse_equal_views(encoder, tokens[0][:2])
        tokens *= 2  # two views
    made_of = columns if parts is None else [hashlib.sha256(part.tobytes()).hexdigest() for part in parts]
    with _folder(encoder, settings, tokens, made_of) as folder:
        return _train(encoder, tokens, targets, settings, after_epoch, folder)


def _train(encoder, tokens, targets, settings, after_epoch, folder: Path) -> list[float]:
    steps = math.ceil(len(tokens[0]) / settings.batch_size)
    progress = _Progress(encoder, tokens[0][:PROBE], settings, after_epoch, folder, steps)
    if progress.replay():  # all of it was done before
        return progress.losses
    set_seed(settings.seed)
    rank, world = processes()
    arguments = TrainingArguments(
        str(folder), num_train_epochs=settings.epochs, per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate, lr_scheduler_type="constant_with_warmup",
        warmup_steps=math.ceil(0.1 * len(tokens[0]) / settings.batch_size), seed=settings.seed, data_seed=settings.seed,
        bf16=settings.bf16, use_cpu=not torch.cuda.is_available(), logging_steps=1, logging_nan_inf_filter=False,
        save_strategy="steps" if encoder.cache else "no", save_steps=progress.every,
        report_to="none", disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    arguments._n_gpu = 1  # of a process; several GPUs are for several processes, not for DataParallel's split batches
    trainer = _WholeBatches(
        Objective(encoder, settings, tokens, targets),
        arguments,
        data_collator=lambda rows: {"rows": torch.tensor(rows)},
        train_dataset=range(len(tokens[0])),
        callbacks=[progress],
    )
    trainer.remove_callback(PrinterCallback)
    if world > 1:
        torch.manual_seed(settings.seed + rank)  # each process draws its own dropout masks
    try:
        trainer.train(resume_from_checkpoint=progress.checkpoint)
    finally:
        encoder.model.eval()
    if rank == 0:
        for left in folder.glob("checkpoint-*"):
            shutil.rmtree(left)
    return progress.losses


class _WholeBatches(Trainer):
    """Hands every process the whole batch, of which `Objective` encodes a share: the batches, a short last one too, are
    then the same on any number of processes, and no sentence is repeated to make shares even."""

    def get_train_dataloader(self):
        loader = DataLoader(self.train_dataset, self.args.train_batch_size, shuffle=True, collate_fn=self.data_collator)
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True,
            use_seedable_sampler=True, data_seed=self.args.data_seed,
        )  # fmt: skip


class Objective(nn.Module):
    """The training objective as the module that the Trainer wants: numbers of a batch's rows in, loss out.

    All views of the sentences go through in one forward pass: for `simcse` the same sentences twice, differing by their
    dropout masks alone. Several processes encode a share of the batch each, and all have the loss of the whole.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: TrainingSettings,
        tokens: Sequence[Sequence[Mapping[str, list[int]]]],
        targets: Float[Tensor, "n target_dim"] | None = None,
    ):
        """`tokens`: the tokenized sentences of each view."""
        super().__init__()
        width = encoder.model.config.hidden_size
        self.transformer, self.encoder, self.settings, self.tokens = encoder.model, encoder, settings, tokens
        self.targets = targets  # no buffer, which would be sent to all processes at every step
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if settings.mlp_head else nn.Identity()
        self.head.to(encoder.model.device)

    def forward(self, rows: Int[Tensor, " batch"]) -> dict[str, Float[Tensor, ""]]:
        rank, world = processes()
        shares = rows.tensor_split(world)
        mine = shares[rank].tolist() or rows[:1].tolist()  # a last batch may have fewer sentences than processes
        views = [view[row] for view in self.tokens for row in mine]
        embeddings = self.head(_embed(self.encoder, views, self.settings.gradient_caching))
        # not under bf16 autocast, where a cosine has two digits: too few for 1/0.05
        with torch.autocast(embeddings.device.type, enabled=False):
            by_row = embeddings.float().view(len(self.tokens), len(mine), -1).transpose(0, 1)
            anchors, *others = _gather(by_row, [len(share) for share in shares]).unbind(1)
            if self.targets is not None:
                return {
                    "loss": relation_loss(anchors, self.targets[rows.cpu()].to(anchors.device), self.settings.stretch)
                }
            return {"loss": info_nce(anchors, others[0], self.settings.temperature, *others[1:])}


def _embed(encoder: Encoder, tokens: Sequence, gradient_caching: bool = False) -> Float[Tensor, "sentences dim"]:
    """Embeddings in the order of the tokenized sentences. With `gradient_caching` no chunk's activations are kept but
    its words' embeddings: each is run again, under the same dropout masks, when its gradient is known."""
    embed = partial(checkpoint, encoder.embed, use_reentrant=False) if gradient_caching else encoder.embed
    size = CHUNK
    if encoder.model.device.type == "cuda":
        size = CACHED_CHUNK_ON_GPU if gradient_caching else CHUNK_ON_GPU
    rows, chunks = zip(*encoder.batches(tokens, size))
    # words are looked up for all chunks at once: the gradient of the table, the largest there is, is made once, not by
    # chunk. And `checkpoint` replays the dropout of a GPU only when it sees a tensor of that GPU in a plain dict
    ids = [chunk.pop("input_ids").to(encoder.model.device) for chunk in chunks]
    words = encoder.model.get_input_embeddings()(torch.cat([part.flatten() for part in ids]))
    words = [part.view(*of.shape, -1) for part, of in zip(words.split([of.numel() for of in ids]), ids)]
    embeddings = [embed({**chunk, "inputs_embeds": part}) for chunk, part in zip(chunks, words)]
    return torch.cat(embeddings)[torch.tensor(list(chain.from_iterable(rows))).argsort()]


def _gather(mine: Float[Tensor, "share views dim"], sizes: list[int]) -> Float[Tensor, "batch views dim"]:
    """The rows of all processes, whose shares have these `sizes`. A gradient goes to this process's own, times the
    number of processes, for afterwards the gradients of all are averaged and their sum is wanted."""
    rank, world = processes()
    if world == 1:
        return mine
    even = F.pad(mine[: sizes[rank]].detach(), (0, 0, 0, 0, 0, max(sizes) - sizes[rank])).contiguous()
    gathered = [torch.empty_like(even) for _ in sizes]
    dist.all_gather(gathered, even)
    parts = [rows[:size] for rows, size in zip(gathered, sizes)]
    parts[rank] = mine[: sizes[rank]]
    if mine.requires_grad:
        mine.register_hook(lambda gradient: gradient * world)
    return torch.cat(parts)


class _Progress(TrainerCallback):
    """A plain-text progress bar with the loss, the guard against a collapse, what is saved, and the call after every
    epoch."""

    def __init__(
        self,
        encoder: Encoder,
        probe: Sequence[Mapping[str, list[int]]],  # tokenized sentences
        settings: TrainingSettings,
        after_epoch: Callable[[int], object],
        folder: Path,
        steps: int,  # of an epoch
    ):
        self.encoder, self.probe, self.settings, self.after_epoch = encoder, probe, settings, after_epoch
        self.folder, self.steps, self.every = folder, steps, max(1, steps // LOOKS)
        self.losses: list[float] = []
        self.mean, self.rank = self._look()

    def replay(self) -> bool:
        """Find what an earlier run has left, and go through the epochs that it finished; whether these were all.

        Raises `ValueError` when a file there is not as it was written.
        """
        ends = [self.folder / f"epoch-{epoch}" for epoch in range(1, self.settings.epochs + 1)]
        checkpoints = {
            int(path.parent.name.split("-")[1]): path.parent for path in self.folder.glob(f"checkpoint-*/{SEAL}")
        }
        step, finished = max(checkpoints, default=0), (ends[-1] / SEAL).is_file()
        self.checkpoint = None if finished or not step else str(checkpoints[step])
        done = ends if finished else ends[: step // self.steps]
        for epoch, end in enumerate(done, 1):
            _check_seal(end)
            self.encoder.model.load_state_dict(load_file(end / "model.safetensors"))
            self.losses = json.loads((end / "losses.json").read_text())
            self.after_epoch(epoch)
        if self.checkpoint:
            _check_seal(checkpoints[step])
        return finished

    def on_train_begin(self, args, state, control, **kwargs):
        self.losses = [entry["loss"] for entry in state.log_history if "loss" in entry]  # of a run that goes on
        self._keep(state.global_step)

    def on_epoch_begin(self, args, state, control, **kwargs):
        of_objective = f", temperature {self.settings.temperature}" * ("simcse" in self.settings.objective)
        epoch, step = divmod(state.global_step, self.steps)
        label = f"{self.settings.objective}{of_objective}, epoch {epoch + 1} of {self.settings.epochs}"
        hidden = not state.is_world_process_zero
        self.bar = tqdm(total=self.steps, initial=step, desc=label, unit=" steps", leave=False, disable=hidden)

    def on_log(self, args, state, control, logs, **kwargs):
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            self._stop(f"the loss is {logs['loss']} at step {state.global_step}")
        self.losses.append(logs["loss"])
        self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
        self.bar.update()
        at_end = state.global_step % self.steps == 0
        if state.global_step % self.every == 0 or at_end:  # before anything is saved
            self._guard(state.global_step)
        end = self.folder / f"epoch-{state.global_step // self.steps}"
        if at_end and self.encoder.cache and state.is_world_process_zero and not (end / SEAL).is_file():
            end.mkdir(exist_ok=True)  # before the checkpoint of this step
            save_file(self.encoder.model.state_dict(), end / "model.safetensors")
            (end / "losses.json").write_text(json.dumps(self.losses))
            _seal(end)

    def on_save(self, args, state, control, **kwargs):
        if args.world_size > 1:
            dist.barrier()  # every process writes its random state
        if state.is_world_process_zero:
            _seal(new := self.folder / f"checkpoint-{state.global_step}")
            for old in set(self.folder.glob("checkpoint-*")) - {new}:
                shutil.rmtree(old)

    def on_epoch_end(self, args, state, control, model, **kwargs):
        self.bar.close()  # before the caller opens one: notebooks cannot draw one bar below another
        model.eval()
        with torch.random.fork_rng():  # whatever the caller does, training goes on as if nobody had looked
            self.after_epoch(state.global_step // self.steps)
        model.train()

    def _look(self) -> tuple[float, float]:
        """Mean cosine and effective rank of the probe; dropout is off, so nothing random is drawn."""
        embeddings = self.encoder.encode_tokens(self.probe, progress=False)
        try:
            return pairwise_distribution(embeddings).mean, effective_rank(embeddings)
        except ValueError:  # NaN, a row of zeros, or all rows equal
            return math.nan, math.nan

    def _guard(self, step: int) -> None:
        mean, rank = self._look()
        if not mean < (1 + self.mean) / 2:
            self._stop(f"the mean cosine is {mean:.2f} at step {step}, it was {self.mean:.2f} before training")
        if not rank > self.rank / 3:
            self._stop(f"the effective rank is {rank:.0f} at step {step}, it was {self.rank:.0f} before training")
        self._keep(step)

    def _keep(self, step: int) -> None:
        self.kept = step, {name: value.clone() for name, value in self.encoder.model.state_dict().items()}

    def _stop(self, reason: str) -> None:
        self.bar.close()
        step, weights = self.kept
        self.encoder.model.load_state_dict(weights)
        stretched = " or the stretch" if self.settings.objective == "topic_and_facts" else ""
        raise Collapse(
            f"{reason}: stopped, and the model is as it was at step {step}. "
            f"Lower the learning rate{stretched}, or train less"
        )


def _columns(sentences: Sequence, settings: TrainingSettings) -> list[list[str]]:
    """The views that a row of the training data has, each checked: one column of sentences, or two or three."""
    columns = [list(sentences)]
    if settings.objective == "supervised_simcse":
        lengths = {len(row) if isinstance(row, tuple | list) else 1 for row in sentences}
        if lengths not in ({2}, {3}):
            raise ValueError(
                "supervised_simcse learns from rows of (anchor, positive) or (anchor, positive, hard negative), "
                f"these have {' or '.join(map(str, sorted(lengths)))} sentences"
            )
        columns = [list(column) for column in zip(*sentences)]
    for column in columns:
        check_sentences(column, "the training sentences")
    if repeated := len(columns[0]) - len(set(columns[0])):
        raise ValueError(f"{repeated} training sentences are repeats: each would be a false negative of its twin")
    if settings.batch_size > len(sentences):
        raise ValueError(f"batch_size is {settings.batch_size}, but there are only {len(sentences)} training sentences")
    return columns


def _refuse_equal_views(encoder: Encoder, tokens: list[dict[str, list[int]]]) -> None:
    """Two passes in training mode must differ, or the objective has nothing to teach."""
    batch = encoder.pad(tokens)
    was_training = encoder.model.training
    encoder.model.train()
    with torch.no_grad(), torch.random.fork_rng():
        equal = torch.equal(encoder.embed(batch), encoder.embed(batch))
    encoder.model.train(was_training)
    if equal:
        config = encoder.model.config.to_dict()
        names = [key for key, of in config.items() if "dropout" in key and "classifier" not in key and of == 0]
        raise ValueError(
            f"{encoder.name} has dropout 0 everywhere, both views of a sentence would be identical: set "
            f"{', '.join(names)} in its config.json (0.1 in most models), or take the objective topic_and_facts"
        )


@contextlib.contextmanager
def _folder(encoder: Encoder, settings: TrainingSettings, tokens: list, made_of: list) -> Iterator[Path]:
    """Where this run is saved, named by all that it depends on, and ours alone until the end."""
    if encoder.cache is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    # what the objective does not use, and the number of epochs: of those that are there, as many as wanted are taken
    unused = ("temperature",) if settings.objective == "topic_and_facts" else ("facts", "stretch")
    key = fingerprint(
        asdict(settings) | dict.fromkeys(("epochs", "precision", *unused)),
        [settings.bf16, encoder.model.device.type, encoder.pooling, processes()[1], encoder.weights()],
        [[row["input_ids"] for row in view] for view in tokens],
        made_of,  # not the targets themselves, whose last bits depend on the number of threads
    )
    folder = output_folder(encoder.cache / of_first_process(f"{encoder.name}-{settings.objective}-{key}"))
    lock = FileLock(folder / ".lock", timeout=0) if processes()[0] == 0 else contextlib.nullcontext()
    try:
        with lock:
            yield folder
    except Timeout:
        raise RuntimeError(f"another process is at this very run, in {folder}: wait for it, or stop it") from None


def _checksums(folder: Path) -> dict[str, str]:
    files = (file for file in folder.iterdir() if file.is_file() and file.name != SEAL)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _seal(folder: Path) -> None:
    write_atomically(folder / SEAL, lambda path: path.write_text(json.dumps(_checksums(folder))))


def _check_seal(folder: Path) -> None:
    there = _checksums(folder)
    for name, checksum in json.loads((folder / SEAL).read_text()).items():
        if there.get(name) != checksum:
            raise ValueError(f"{folder / name} is not as it was written: remove {folder.parent} to train anew")


def main() -> None:
    from papermill import inspect_notebook  # below this module, and for the command alone

    from src.sharing import save_encoder

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", type=Path, help="a YAML file like those in profiles/; its section fine_tune is read")
    profile = parser.parse_args().profile
    given = (yaml.safe_load(profile.read_text()) or {}).get("fine_tune")
    if not isinstance(given, dict):
        raise SystemExit(f"{profile} has no section fine_tune with parameters")
    cell = inspect_notebook(str(Path(__file__).parent.parent / "fine_tune.ipynb"))
    parameters = {name: ast.literal_eval(parameter["default"]) for name, parameter in cell.items()}
    if unknown := set(given) - set(parameters):
        raise SystemExit(f"fine_tune has no parameter {unknown.pop()!r}, only {', '.join(parameters)}")
    parameters |= given
    # what the notebook trains beyond the epoch that it saves is for looking at
    parameters["epochs"] = given.get("saved_epoch") or given.get("epochs") or TrainingSettings.epochs
    names = {field.name for field in fields(TrainingSettings)}
    settings = TrainingSettings(**{name: value for name, value in parameters.items() if name in names})
    if settings.objective == "supervised_simcse" and "corpus_path" in given:
        raise SystemExit("supervised_simcse learns from triplets of the sport grammar here: leave corpus_path out")
    state = PartialState(cpu=not torch.cuda.is_available())  # under a launcher: joins the others, picks a GPU
    corpus = load_sentences(*(parameters[name] for name in ("corpus_path", "text_column", "duplicates_from")))
    corpus = split_sentences(corpus, settings.seed)
    training = draw_sentences(corpus, parameters["train_sentences"], np.random.default_rng(settings.seed))
    encoder = load_encoder(
        *(parameters[name] for name in ("model", "pooling", "max_length", "models_folder", "cache_folder"))
    )
    if settings.objective == "supervised_simcse":
        training = triplets("train", parameters["train_sentences"], settings.seed)
    if state.is_main_process:
        print(f"{settings}, {len(training):,} rows, {state.num_processes} processes", flush=True)
    fine_tune(encoder, training, settings)
    if state.is_main_process:
        settings = asdict(settings) | {"corpus": parameters["corpus_path"], "sentences": len(training)}
        print(f"saved to {save_encoder(encoder, parameters['saved_model'], settings)}")


if __name__ == "__main__":
    main()
