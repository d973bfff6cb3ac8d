"""What a frozen encoder makes of every clip of a source, as one file that can be shared and trained on without them.

Belongs here: from a source of clips to such a file. Computing is `common/features.py`'s, and its cache is the one that
trainings fill and use; the file's format, written and read, is `video/stored.py`'s.
"""

import os
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path, PurePath
from typing import Any

import torch
from accelerate.utils import set_seed

from common.encoders import Encoder
from common.errors import UserError
from common.features import FeatureStore, cached_features
from common.runs import cache_directory, main_first, on_main, refuse_existing
from common.training import make_accelerator
from common.training_runs import encoder_note, make_encoder, preprocessing_of, settle_random
from video.data import VideoData
from video.extract_options import ExtractOptions
from video.frames import ClipViews, sampling_of
from video.options import TrainVideoOptions
from video.scoring import load_source
from video.stored import INDEX, StoredFeatures, write_stored

Clip = tuple[Mapping[str, str], torch.Tensor]


def extract(options: ExtractOptions) -> Path:
    """Write the features of every clip, over any number of processes; → the file. Raises `UserError`."""
    training = _as_training(options)
    accelerator = make_accelerator(training)
    on_main(accelerator, lambda: _check_output(options))
    cache = cache_directory(options.cache)
    data, _ = main_first(accelerator, lambda: load_source(training, cache))
    set_seed(options.seed)
    encoder = make_encoder(training)
    preprocessing = preprocessing_of(training, encoder.preprocessing)
    source = ClipViews(sampling=sampling_of(options), preprocessing=preprocessing)
    rows = data.splits["train"]
    settle_random(training, encoder, list(zip(rows["path"][:], rows["hash"][:], strict=True)), source, cache)
    paths = {
        digest: path
        for rows in data.splits.values()
        for digest, path in zip(rows["hash"][:], rows["path"][:], strict=True)
    }
    store = cached_features(
        encoder,
        list(paths.values()),
        list(paths),
        source=source,
        cache=cache,
        accelerator=accelerator,
        precision=options.feature_precision,
        compiled=options.feature_compile,
        pool=options.pool,
        workers=options.workers,
    )
    output = Path(options.output)
    on_main(accelerator, lambda: _write(output, _clips(data, store), overwrite=options.overwrite))
    if accelerator.is_main_process:
        print("\n".join(_told(options, training, encoder, data, output)), flush=True)
    accelerator.end_training()
    return output


def _as_training(options: ExtractOptions) -> TrainVideoOptions:
    """The training that would compute the same features: so they are checked, loaded and found in the cache alike."""
    shared = {field.name for field in fields(ExtractOptions)} & {field.name for field in fields(TrainVideoOptions)}
    return TrainVideoOptions(**{name: getattr(options, name) for name in shared - {"output", "overwrite"}})


def _check_output(options: ExtractOptions) -> None:
    refuse_existing(options.output, overwrite=options.overwrite)
    index = Path(options.output).with_name(INDEX)
    if index.exists() and not Path(options.output).exists():  # another file's, or a data set's own
        raise UserError(f"--output {options.output}: {index} is there and is not its index; choose another folder")


def _clips(data: VideoData, store: FeatureStore) -> Iterator[Clip]:
    """Each clip's row of the index and its features `(T, D)`, split by split."""
    paths = [path for rows in data.splits.values() for path in rows["path"][:]]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # where they lie here is nobody's business
    for split, rows in data.splits.items():
        for row in rows:
            features, _ = store.take_clips([(row["hash"], 0)])
            path = PurePath(os.path.relpath(row["path"], root)).as_posix()
            yield {"path": path, "label": row["label"], "group": row["group"], "split": split}, features


def _write(path: Path, clips: Iterable[Clip], *, overwrite: bool) -> None:
    """Write file and index. What they replace stays whole until both are."""
    if not overwrite:
        write_stored(path, clips)
        return
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            fresh = write_stored(Path(folder) / path.name, clips)
            fresh.with_name(INDEX).replace(path.with_name(INDEX))
            fresh.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def _told(
    options: ExtractOptions, training: TrainVideoOptions, encoder: Encoder, data: VideoData, path: Path
) -> list[str]:
    stored = StoredFeatures(path)
    frames, sizes = int(stored.lengths.sum()), Counter({name: len(rows) for name, rows in data.splits.items()})
    classes: list[Any] = ["--classes", *options.classes] if options.classes else []  # their order is not in the file
    return [
        *data.notes,
        f"{encoder_note(training, encoder).replace(', features cached', '')}, {options.pool} × {options.pool} cells",
        f"{path}: {sizes.total():,} clips ({', '.join(f'{name} {count:,}' for name, count in sizes.items())}), "
        f"{frames:,} frames, {stored.size:,} numbers each, {path.stat().st_size / 2**20:,.1f} MiB; {INDEX} beside it",
        "next:",
        f"  {shlex.join(['python', 'scripts/train_video.py', '--features', str(path), *classes])}",
    ]
