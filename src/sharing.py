"""Save a fine-tuned encoder as a folder that sentence-transformers and transformers open, with its card."""

import os
import shutil
import tempfile
from pathlib import Path

import pandas as pd

from src.encoder import Encoder
from src.pooling import POOLINGS
from src.presets import PRESETS
from src.records import library_versions, read_json, write_atomically, write_json

COMPARED = "On held-out data, with 95 % intervals. \\* marks a difference whose interval excludes 0."
THRESHOLDS = """## Thresholds

A threshold belongs to one model. `thresholds.json` holds those chosen for this one on validation pairs, and a
calibration, whose probabilities hold where {share:.0%} of the pairs are related.

```python
import json, math
saved = json.load(open("thresholds.json"))["calibration"]
probability = 1 / (1 + math.exp(-saved["slope"] * cosine - saved["intercept"]))
```"""
USE = """## Use and limits

The model is for sentences like those it was trained on. It may order others worse than the base model does: measure
before use. Its licence is that of the base model. To share it:
`SentenceTransformer("path/to/{name}").push_to_hub("you/{name}", local_model_path="path/to/{name}")`.

## Settings

{settings}"""


def save_encoder(encoder: Encoder, folder: Path | str, settings: dict) -> Path:
    """Write the encoder to `folder`, with its `settings` in training.json; an older model there is replaced.

    The folder appears complete or not at all. Raises `FileExistsError` when `folder` holds something that is no model.
    """
    folder = check_model_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as scratch:
        new, old = Path(scratch) / folder.name, Path(f"{scratch}.old")
        _write_files(encoder, new, settings)
        write_card(new)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old, ignore_errors=True)
    return folder


def check_model_folder(folder: Path | str) -> Path:
    """Whether a model may be saved there; raises `FileExistsError` when it holds something that is no model."""
    folder = Path(folder).expanduser()
    if folder.exists() and not (folder / "modules.json").is_file():
        raise FileExistsError(f"{folder.absolute()} exists and holds no model: nothing is overwritten")
    return folder


def _write_files(encoder: Encoder, folder: Path, settings: dict) -> None:
    encoder.model.save_pretrained(folder)  # which makes the folder
    encoder.tokenizer.save_pretrained(folder)
    width = encoder.model.config.hidden_size
    pooling = {f"pooling_mode_{word}": encoder.pooling == name for name, word in POOLINGS.items()}
    # the classic module paths: version 6 opens them and older versions know no others
    modules = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    for path in modules:
        (folder / path).mkdir(exist_ok=True)
    files = {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{module}"}
            for i, (path, module) in enumerate(modules.items())
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": width, **pooling},
        "sentence_bert_config.json": {"max_seq_length": encoder.max_length, "do_lower_case": False},
        "training.json": settings | {"base model": encoder.name, "base sha256": encoder.sha256},
    }
    if prompt := encoder.prompt:
        files["config_sentence_transformers.json"] = {"prompts": {"default": prompt}, "default_prompt_name": "default"}
    for name, content in files.items():
        write_json(folder / name, content)


def write_card(
    folder: Path | str, comparison: pd.DataFrame | None = None, thresholds: dict | None = None,
    picture: Path | str | None = None,
) -> None:  # fmt: skip
    """Put a model card (README.md) into a saved model's folder, with what is known of it: `comparison`, a table of
    measures of the base model and of this one; `thresholds` as `choose_thresholds` makes them, also written to
    thresholds.json; a `picture`, a PNG."""
    folder = Path(folder).expanduser()
    name, settings = folder.name, read_json(folder / "training.json")
    preset = PRESETS.get(base := settings["base model"])
    known = f"base_model: {preset.hub}\nlicense: {preset.licence.lower()}\n" if preset else ""
    changed = f"fine-tuned ({settings['objective']})" if "objective" in settings else ""
    sections = [
        f"---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n{known}---\n\n# {name}",
        f"{base}, {changed} on sentences of one domain ({settings.get('corpus')}), for a wider range of their cosines.",
        "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        f'model = SentenceTransformer("path/to/{name}")\n```',
    ]
    if picture:
        write_atomically(folder / Path(picture).name, lambda path: shutil.copyfile(picture, path))
        sections.append(f"![Cosines before and after]({Path(picture).name})")
    if comparison is not None:
        rows = [["", *comparison], ["---"] * (1 + comparison.shape[1]), *comparison.reset_index().to_numpy()]
        table = "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)
        sections += ["## Before and after", COMPARED, table]
    if thresholds:
        write_json(folder / "thresholds.json", thresholds)
        sections.append(THRESHOLDS.format(share=thresholds["share_related"]))
    listed = "\n".join(f"- {key}: {value}" for key, value in (settings | library_versions()).items())
    sections.append(USE.format(name=name, settings=listed))
    write_atomically(folder / "README.md", lambda path: path.write_text("\n\n".join(sections) + "\n", encoding="utf-8"))
