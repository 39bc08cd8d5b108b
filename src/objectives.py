"""The training objectives: which texts a step embeds, and the loss of their embeddings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from accelerate.utils import broadcast_object_list
from jaxtyping import Float, Int
from torch import Tensor

from src.corpus import check_sentences
from src.encoder import Encoder, Tokens
from src.losses import graded_loss, info_nce, relation_loss
from src.settings import TrainingSettings
from src.targets import topic_and_facts

FEWEST_PAIRS = 10  # to learn from
PAIR_BATCH = 64  # graded pairs in a step


@dataclass(frozen=True, eq=False)
class Objective:
    """Rows of texts, `batch_size` of which make a step, and the loss of their embeddings."""

    views: list[Tokens]  # one, two or three texts of each row
    loss: Callable[[Float[Tensor, "batch views dim"], Tensor | None], Float[Tensor, ""]]
    batch_size: int
    targets: np.ndarray | None = None  # what `loss` learns: one row for each row of texts
    source: Sequence = ()  # what the targets were made of; part of the key of a saved run

    @property
    def steps(self) -> int:
        """Full batches in one pass; the rows left over are skipped."""
        return len(self.views[0]) // self.batch_size

    def rows(self, step: int, seed: int) -> Int[np.ndarray, " batch"]:
        """The numbers of this step's rows. Each pass is shuffled anew; the order depends on seed and step alone."""
        turn, position = divmod(step, self.steps)
        order = np.random.default_rng([seed, 0, turn]).permutation(len(self.views[0]))  # 0: keeps old runs' order
        return order[position * self.batch_size : (position + 1) * self.batch_size]


def make_objective(
    encoder: Encoder,
    sentences: Sequence,
    settings: TrainingSettings,
    pairs: pd.DataFrame | None = None,
) -> Objective:
    """What `settings.objective` learns from the data, for which see `fine_tune`; raises as `check_data` does."""
    check_data(settings, sentences, pairs)
    if settings.objective == "graded_pairs":
        views = [encoder.tokenize(pairs[column].tolist()) for column in ("sentence1", "sentence2")]
        relatedness = pairs["relatedness"].to_numpy(np.float32)
        return Objective(
            views,
            loss=lambda rows, y: graded_loss(*rows.unbind(1), y),
            batch_size=min(PAIR_BATCH, len(pairs)),
            targets=relatedness,
            source=relatedness.tolist(),
        )
    views = [encoder.tokenize(column) for column in _columns(sentences, settings)]
    if settings.objective == "topic_and_facts":
        targets = topic_and_facts(sentences, encoder.encode, settings.facts)
        (targets,) = broadcast_object_list([targets])  # all processes have those of the first, to the last bit
        return Objective(
            views,
            loss=lambda rows, y: relation_loss(rows[:, 0], y, settings.stretch),
            batch_size=settings.batch_size,
            targets=targets,
            source=list(sentences),
        )
    if settings.objective == "simcse":
        _refuse_equal_views(encoder, views[0][:2])
        views *= 2  # the two views of a sentence differ by their dropout masks alone
    return Objective(
        views,
        # a third text, where there is one, is a hard negative
        loss=lambda rows, _: info_nce(rows[:, 0], rows[:, 1], settings.temperature, *rows[:, 2:].unbind(1)),
        batch_size=settings.batch_size,
    )


def check_data(settings: TrainingSettings, sentences: Sequence, pairs: pd.DataFrame | None) -> None:
    """Raise `ValueError` for data that the objective cannot use."""
    if settings.objective == "graded_pairs":
        if pairs is None:
            raise ValueError("graded_pairs learns from pairs: give some")
        grades = pairs["relatedness"].nunique()
        if len(pairs) < FEWEST_PAIRS or grades < 2:
            raise ValueError(
                f"{len(pairs)} graded pairs of {grades} grades to learn from: {FEWEST_PAIRS} pairs or more, not all "
                "alike, are needed. Where pairs name no split, half of them train"
            )
        return
    columns = _columns(sentences, settings)
    for column in columns:
        check_sentences(column, "the training sentences")
    for column in columns[:2]:
        if repeats := len(column) - len(set(column)):
            raise ValueError(f"{repeats} training sentences are repeats: each would be a false negative of its twin")
    if any(len({*row}) < len(row) for row in zip(*columns)) or len(set(columns[-1])) < 2:
        raise ValueError("a row of training data holds one sentence twice, or all hard negatives are the same")
    if settings.batch_size > len(columns[0]):
        raise ValueError(f"batch_size is {settings.batch_size}, but there are only {len(sentences)} training sentences")


def _columns(sentences: Sequence, settings: TrainingSettings) -> list[list[str]]:
    """The columns of the training data: one of sentences, or two or three for supervised SimCSE."""
    if settings.objective != "supervised_simcse":
        return [list(sentences)]
    lengths = {len(row) if isinstance(row, tuple | list) else 1 for row in sentences}
    if lengths not in ({2}, {3}):
        counts = " or ".join(map(str, sorted(lengths)))
        raise ValueError(f"supervised_simcse learns from rows of 2 or 3 sentences each, these rows have {counts}")
    return [list(column) for column in zip(*sentences)]


def has_dropout(encoder: Encoder, tokens: Tokens) -> bool:
    """Whether two passes in training mode differ; else SimCSE has nothing to teach."""
    batch = encoder.pad(tokens)
    encoder.model.train()
    with torch.no_grad(), torch.random.fork_rng():
        equal = torch.equal(encoder.embed(batch), encoder.embed(batch))
    encoder.model.eval()
    return not equal


def _refuse_equal_views(encoder: Encoder, tokens: Tokens) -> None:
    if not has_dropout(encoder, tokens):
        config = encoder.model.config.to_dict()
        zeros = [key for key, value in config.items() if "dropout" in key and "classifier" not in key and value == 0]
        raise ValueError(
            f"{encoder.name} has dropout 0 everywhere, both views of a sentence would be identical: set "
            f"{', '.join(zeros)} in its config.json (0.1 in most models), or take the objective topic_and_facts"
        )
