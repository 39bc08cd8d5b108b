"""Save a fine-tuned encoder as a folder that sentence-transformers and transformers open, with its card."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from src.corpus import library_versions, write_atomically
from src.encoder import PRESETS, Encoder
from src.postprocessing import AffineMap
from src.scorecard import MAIN, MEASURES, Scorecard, compare


def save_encoder(encoder: Encoder, folder: Path | str, settings: dict, transform: AffineMap | None = None) -> Path:
    """Write the encoder to `folder`, with its `settings` in training.json; an older model there is replaced.

    A fitted `transform` of `src.postprocessing` is saved as a dense layer on top, which sentence-transformers applies
    (and `load_encoder`, which reads none, refuses). The folder appears complete or not at all. Raises
    `FileExistsError` when `folder` holds something that is no model, `ValueError` for a pooling that
    sentence-transformers has no name for.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / "modules.json").is_file():
        raise FileExistsError(f"{folder} exists and holds no model: nothing is overwritten")
    if encoder.pooling == "first_last_mean":
        raise ValueError("sentence-transformers has no first_last_mean pooling: train with cls, mean or max")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        _write(encoder, scratch, settings, transform)
        write_card(scratch, name=folder.name)
        scratch.chmod(0o755)
        if folder.exists():
            os.replace(folder, old := scratch.with_name(scratch.name + ".old"))
            os.replace(scratch, folder)
            shutil.rmtree(old)
        else:
            os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _write(encoder: Encoder, folder: Path, settings: dict, transform: AffineMap | None) -> None:
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    kinds = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens"}
    pooling = {f"pooling_mode_{kind}": encoder.pooling == name for name, kind in kinds.items()}
    width = encoder.model.config.hidden_size
    # the classic module paths: version 6 opens them and older versions know no others
    paths = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    paths |= {"3_Dense": "Dense", "4_Normalize": "Normalize"} if transform else {}
    for path in paths:
        (folder / path).mkdir(exist_ok=True)
    files = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{module}"}
            for i, (path, module) in enumerate(paths.items())
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": width, **pooling},
        "sentence_bert_config.json": {"max_seq_length": encoder.max_length, "do_lower_case": False},
        "training.json": settings | {"base model": encoder.name, "base sha256": encoder.sha256},
    }
    if prompt := encoder.prompt:
        files["config_sentence_transformers.json"] = {"prompts": {"default": prompt}, "default_prompt_name": "default"}
    if transform:
        files["training.json"]["transform"] = str(transform)
        linear = {"linear.weight": transform.matrix_.T, "linear.bias": -transform.mean_ @ transform.matrix_}
        linear = {name: np.ascontiguousarray(value, np.float32) for name, value in linear.items()}
        save_file(linear, folder / "3_Dense" / "model.safetensors")
        files["3_Dense/config.json"] = {
            "in_features": width, "out_features": width, "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def write_card(
    folder: Path | str,
    cards: Sequence[Scorecard] = (),
    thresholds: dict | None = None,
    picture: Path | str | None = None,
    name: str | None = None,
) -> None:
    """Put a model card (README.md) into a saved model's folder, with what is known of it: `cards`, scorecards of the
    base model and of this one; `thresholds` as `scorecard.thresholds` makes them, also written to thresholds.json; a
    `picture`, a PNG."""
    folder = Path(folder)
    name = name or folder.name
    settings = json.loads((folder / "training.json").read_text())
    base = PRESETS.get(settings["base model"])
    known = f"base_model: {base.hub}\nlicense: {base.licence.lower()}\n" if base else ""
    done = {"objective": "fine-tuned ({})", "transform": "with {} fitted"}
    what = " and ".join(words.format(settings[key]) for key, words in done.items() if key in settings)
    parts = [
        f"---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n{known}---",
        f"# {name}",
        f"{settings['base model']}, {what} on sentences of one domain ({settings.get('corpus')}), so that their cosine "
        "similarities use a wider range.",
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        f'model = SentenceTransformer("path/to/{name}")\n```',
    ]
    if picture:
        write_atomically(folder / Path(picture).name, lambda path: shutil.copyfile(picture, path))
        parts.append(f"![Cosines before and after]({Path(picture).name})")
    if cards:
        table = compare(cards, [m for m in MAIN if m in cards[0].values])
        header = "| | " + " | ".join(table.columns) + " |\n|---" + "|---" * len(table.columns) + "|\n"
        rows = "\n".join(
            f"| {MEASURES[measure]} | " + " | ".join(row) + " |" for measure, row in zip(table.index, table.to_numpy())
        )
        parts += [
            "## Before and after",
            "Held-out data; 95 % intervals, \\* where the difference's excludes 0.",
            header + rows,
        ]
    if thresholds:
        write_atomically(
            folder / "thresholds.json", lambda path: path.write_text(json.dumps(thresholds, indent=2) + "\n")
        )
        parts += [
            "## Thresholds",
            "A threshold belongs to one model. `thresholds.json` has those chosen for this one on validation "
            "pairs, and a calibration; probabilities hold where "
            f"{thresholds['share_related']:.0%} of the pairs are related.",
            '```python\nimport json, math\nsaved = json.load(open("thresholds.json"))["calibration"]\n'
            'probability = 1 / (1 + math.exp(-saved["slope"] * cosine - saved["intercept"]))\n```',
        ]
    parts += [
        "## Use and limits",
        "For sentences like those it was trained on. It has been made to tell these apart, and order among others may "
        "be worse than the base model's: measure before use. The licence is that of the base model.",
        "## Settings",
        "\n".join(f"- {key}: {value}" for key, value in (settings | library_versions()).items()),
        f'To share it: `SentenceTransformer("path/to/{name}").push_to_hub("you/{name}", '
        f'local_model_path="path/to/{name}")`.',
    ]
    write_atomically(folder / "README.md", lambda path: path.write_text("\n\n".join(parts) + "\n"))
