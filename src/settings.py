"""What a run depends on: the defaults of notebook 3 and of `python -m src.training`, checked where they enter."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args, get_type_hints

import torch
import yaml

from src.pooling import POOLINGS

OBJECTIVES = {  # what each uses beside the settings of every run
    "simcse": ("temperature", "batch_size"),
    "supervised_simcse": ("temperature", "batch_size"),
    "topic_and_facts": ("facts", "stretch", "batch_size"),
    "graded_pairs": ("pair_steps",),
}
COMMON = ("objective", "epochs", "learning_rate", "gradient_caching", "precision", "seed")


@dataclass(frozen=True)
class RunSettings:
    """Where sentences and model come from, and where the tuned model goes."""

    corpus_path: str = "data/sport_sentences.csv"  # a file, a folder of files, or owner/name of a hub dataset
    text_column: str = "sentence"  # the column that holds the sentences
    duplicates_from: float | None = 0.9  # similarity from which sentences count as repeats; None keeps them all
    train_sentences: int = 3_072  # a seeded draw from the train split; a large number takes them all
    model: str = "all-MiniLM-L6-v2"  # a preset, a local folder, or owner/name on the hub
    pooling: str | None = None  # "cls", "mean" or "max"; None: what the model was made with
    max_length: int | None = 64  # tokens
    models_folder: str = "models"  # where presets are looked for
    cache_folder: str | None = "runs/cache"  # what was encoded or trained before is taken from there
    pairs_path: str | None = "data/graded_pairs.csv"  # pairs of known relatedness; None when there are none
    graded_train_pairs: int = 300  # of its train split, to learn from; 0: none
    triplets_path: str | None = None  # for supervised_simcse: a table of anchor, positive and maybe negative
    saved_model: str = "models/tuned"


@dataclass(frozen=True)
class TrainingSettings:
    """What a run depends on beside model and sentences. Raises `ValueError` for a value that cannot work."""

    objective: str = "graded_pairs"  # one of OBJECTIVES
    epochs: int = 1  # Gao et al. 2021 train for one
    temperature: float = 0.05  # of SimCSE; theirs
    facts: float = 0.86  # of topic_and_facts: the share of facts in the targets; the topic has the rest
    stretch: float = 1.5  # of topic_and_facts: by how much the targets' cosines are multiplied
    pair_steps: int = 60  # of graded_pairs: the steps that make an epoch, each with 64 of the pairs
    learning_rate: float | None = None  # None: 1e-4 for topic_and_facts; 3e-5, theirs for BERT-base, for the others
    batch_size: int = 64  # sentences, over all processes; each has batch_size - 1 negatives
    gradient_caching: bool = False  # each chunk is run twice (arXiv 2101.06983): less memory, slower
    precision: str = "auto"  # "fp32", "bf16", or "auto": bf16 autocast where the hardware has it
    seed: int = 0

    def __post_init__(self):
        check_parameters(vars(self))

    @classmethod
    def of(cls, given: Mapping[str, object]) -> "TrainingSettings":
        """The settings among a notebook's `globals()`."""
        return cls(**{field.name: given[field.name] for field in fields(cls)})

    @property
    def rate(self) -> float:
        """The learning rate."""
        if self.learning_rate is None:
            return 1e-4 if self.objective == "topic_and_facts" else 3e-5
        return self.learning_rate

    @property
    def name(self) -> str:
        """What progress bars and pictures call it."""
        words = self.objective.replace("_", " ").replace("simcse", "SimCSE")
        return f"{words}, temperature {self.temperature}" if "simcse" in self.objective else words

    def used(self) -> dict:
        """The settings that the objective uses."""
        return {name: getattr(self, name) for name in (*COMMON, *OBJECTIVES[self.objective])}

    @property
    def bf16(self) -> bool:
        if self.precision == "auto":
            on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
            return on_gpu or (not torch.cuda.is_available() and torch.cpu._is_avx512_bf16_supported())
        return self.precision == "bf16"


_OF_NOTEBOOKS = {  # the parameters that only notebooks have, by type
    (int,): "sentence_count pairs_per_grade train_pairs_per_grade comparison_sentences sheet_pairs simcse_epochs "
    "simcse_sentences test_sentences judging_pairs related_from replicates",
    (float,): "wanted_precision false_positive_rate",
    (float, type(None)): "other_temperature",
    (str,): "grammar_folder data_folder figures_folder",
    (str, type(None)): "comparison_model comparison_pooling sheet_path look_at",
}
TYPES = {
    name: get_args(hint) or (hint,)
    for kind in (RunSettings, TrainingSettings)
    for name, hint in get_type_hints(kind).items()
} | {name: types for types, names in _OF_NOTEBOOKS.items() for name in names.split()}
CHOICES = {
    "objective": tuple(OBJECTIVES), "precision": ("auto", "fp32", "bf16"),
    "pooling": tuple(POOLINGS), "comparison_pooling": tuple(POOLINGS),
}  # fmt: skip
ABOVE_0 = ("temperature", "other_temperature", "stretch", "learning_rate")
RANGES = {  # from, to
    "facts": (0, 1), "wanted_precision": (0, 1), "false_positive_rate": (0, 1), "duplicates_from": (0.8, 1),
    "related_from": (1, 4), "batch_size": (3, None), "max_length": (3, None), "seed": (0, 2**32 - 1),
    "graded_train_pairs": (0, None), "replicates": (2, None),
}  # fmt: skip
EXPECTED = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def check_parameters(given: Mapping[str, object]) -> None:
    """Raise `ValueError` naming the first parameter whose value is of the wrong type or out of its range. A notebook
    gives its `globals()`: names that are no parameters are passed over. A whole number must be 1 or more unless
    `RANGES` says otherwise."""
    for name, allowed in TYPES.items():
        if name not in given:
            continue
        value = given[name]
        if value is None and type(None) in allowed:
            continue
        kinds = (*allowed, int) if float in allowed else allowed
        if not isinstance(value, kinds) or isinstance(value, bool) != (bool in allowed):
            example = ", such as 1.0e-5" if float in allowed and isinstance(value, str) else ""
            raise ValueError(
                f"{name} is {value!r}, of type {type(value).__name__}: expected {EXPECTED[allowed[0]]}{example}"
            )
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"{name} is empty: give a value" + (", or none" if type(None) in allowed else ""))
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name} is {value!r}: expected one of {', '.join(CHOICES[name])}")
        if name in ABOVE_0 and not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}: it must be above 0")
        low, high = RANGES.get(name, (1 if int in allowed else None, None))
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            wanted = f"from {low} to {high}" if high is not None else f"{low} or more"
            raise ValueError(f"{name} is {value}: it must be {wanted}")
    if str(given.get("sheet_path") or ".csv")[-4:] != ".csv":
        raise ValueError(f"sheet_path is {given['sheet_path']!r}: the sheet is a CSV, name it so")
    if given.get("objective") == "supervised_simcse" and given.get("triplets_path", "") is None:
        raise ValueError("supervised_simcse learns from pairs or triplets of sentences: name a file as triplets_path")


def is_text(name: str) -> bool:
    """Whether the parameter is a text, so that 007 stays "007"."""
    return str in TYPES.get(name, ())


def without_foreign_pairs(given: Mapping[str, object]) -> dict:
    """The parameters. With a corpus_path, pairs_path is None by default: the sport pairs fit no other corpus."""
    return ({"pairs_path": None} if "corpus_path" in given else {}) | dict(given)


def read_yaml(path: Path) -> dict:
    """The sections of a profile. Raises `ValueError` naming file and line of what is no YAML, or no section."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not in UTF-8: save it so") from None
    except yaml.MarkedYAMLError as error:
        line, problem = error.problem_mark.line + 1, error.problem
        raise ValueError(f"{path}, line {line}: no YAML: {problem}. Put quotes around texts") from None
    except (yaml.YAMLError, ValueError) as error:  # a control character, or a date that is none
        raise ValueError(f"{path}: no YAML: {error}. Put quotes around texts") from None
    for name, section in content.items() if isinstance(content, dict) else [("it", content)]:
        if not isinstance(section, dict | None) or any(not isinstance(key, str) for key in section or ()):
            raise ValueError(f"{path}: {name} must be lines of NAME: VALUE, with a blank after the colon")
    return content


def read_profile(path: Path | str) -> tuple[RunSettings, TrainingSettings]:
    """The settings of a run and of its training, from the section fine_tune of a YAML file like those in profiles/.

    Raises `ValueError` when there is no such section, when a name in it is no parameter, or when a value cannot work.
    """
    given = read_yaml(Path(path)).get("fine_tune")
    if not given:
        raise ValueError(f"{path} has no section fine_tune with parameters")
    if unknown := set(given) - set(TYPES):
        raise ValueError(f"{path}: fine_tune has no parameter {min(unknown)!r}, only {', '.join(TYPES)}")
    check_parameters({"triplets_path": None} | given)
    given = without_foreign_pairs(given)
    kinds = (RunSettings, TrainingSettings)
    run, training = (kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given}) for kind in kinds)
    return run, training
