"""Train a run from start to end: configuration, tokenizer, features, fit, final metrics."""

import dataclasses
import platform
import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path

import torch
from lightning_fabric import Fabric

from mlic_runtime.base.files import remove_abandoned
from mlic_runtime.base.output_files import write_bytes
from mlic_runtime.base.progress import SECONDS_BETWEEN_LINES, duration, progress_bar
from mlic_runtime.predict.prediction import sigmoid
from mlic_train.base.stopwatch import Stopwatch
from mlic_train.batches.dataset import Batch, Examples, unknown_of
from mlic_train.batches.features import FeatureCache, build_cache
from mlic_train.config import (
    DataOptions,
    Distillation,
    FirstWeights,
    ModelConfig,
    Options,
    RunOptions,
    TrainConfig,
    resolve_configs,
    to_toml,
)
from mlic_train.config.options import MAY_CHANGE, changed_options, repeatable
from mlic_train.config.preset import NONE
from mlic_train.data import Record
from mlic_train.data.divide import write_division
from mlic_train.data.splits import Splits, load_splits
from mlic_train.data.summary import fingerprint
from mlic_train.errors import CheckpointError, ConfigError, DataError
from mlic_train.measure.calibration import calibrate
from mlic_train.measure.collect import collect, report, usable_records
from mlic_train.measure.thresholds import fit_thresholds
from mlic_train.models import Model, create_model
from mlic_train.models.calibration import BOTH, CAPTION_ONLY
from mlic_train.runs.folder import (
    BEST_NAME,
    CONFIG_NAME,
    LAST_NAME,
    NEVER_SEEN,
    RunConfig,
    State,
    TrainedModel,
    create_tokenizer,
    load_checkpoint,
    load_trained,
    load_weights,
    read_run_config,
    read_tokenizer,
    save_checkpoint,
    write_run_config,
)

from .adapt import adapt, pictures_are_missing, remarks
from .distillation import FINGERPRINT, check_soft_files, read_soft_labels, teach, write_soft_labels
from .first_model import make_first_model
from .fit import FitData, fit, is_finished
from .learner import Learner
from .loggers import RunLog
from .parallel import create_fabric, on_first_process
from .time_limit import RowLimit, TimeBudget, seconds_to_finish, seconds_to_validate

Log = Callable[[str], None]
KeepGoing = Callable[[State], bool]
Progress = Callable[[int, int], None]
_LIBRARIES = ("torch", "timm", "tokenizers", "numpy", "lightning-fabric")
_CACHE_FOLDER = "feature-cache"
_SECONDS_BETWEEN_LINES = 5.0  # of caching features, where there is no terminal
_FEWEST_PICTURES = 32  # with fewer features than these, the backbone computes them anew in every epoch
OPTIONS_NAME = "options.toml"  # `mlic-train --config` repeats the run with it


def train_run(
    folder: Path,
    model_config: ModelConfig,
    train_config: TrainConfig,
    splits: Splits,
    *,
    backbone_weights: str | Path | None = None,
    embedding: str | None = None,
    provenance: Mapping[str, str] | None = None,
    distillation: Distillation | None = None,
    device: str = "auto",
    log: Log = lambda _: None,
    keep_going: KeepGoing = lambda _: True,
) -> State:
    """Train a model into a new run folder.

    Args:
        folder: the run folder.
        model_config: the model. If its `text_encoder` names a Hugging Face encoder, the tokenizer, vocabulary and first
            weights of the captions are that encoder's.
        train_config: how it is fitted; what is None in it follows from the model (see `resolve_configs`).
        splits: the data.
        backbone_weights: where the backbone starts: "hub", "package", a file or a run folder.
        embedding: a Hugging Face encoder whose token embeddings "lstm" and "mean" start from.
        provenance: facts for the model card, such as data_note.
        distillation: the teachers.
        device: see `create_fabric`.
        log: called with lines of progress.
        keep_going: called after each epoch; False ends the run there (see `fit`).

    Raises:
        CheckpointError: the folder holds a run already.
        ConfigError: options that do not go together, a model that has no use for `text_encoder` or `embedding`, or an
            encoder that reads fewer tokens than `max_length`.
        MlicError: see `fit`, `create_model`, `train_tokenizer`, `teach`, `load_text_encoder`, `initial_embedding`.
    """
    weights = FirstWeights(None if backbone_weights is None else str(backbone_weights), embedding=embedding)
    run, teacher = RunOptions(device=device), distillation or Distillation()
    given = changed_options(run, model_config, weights, train_config, teacher)
    configs = resolve_configs(model_config, train_config, pretrained=weights.pretrained is not None)
    options = Options(DataOptions(), run, configs[0], weights, configs[1], teacher, given, given)
    return start_run(options, folder, splits, provenance=provenance, log=log, keep_going=keep_going)


def start_run(
    options: Options,
    folder: Path,
    splits: Splits,
    *,
    provenance: Mapping[str, str] | None = None,
    log: Log = lambda _: None,
    keep_going: KeepGoing = lambda _: True,
    stopwatch: Stopwatch | None = None,
) -> State:
    """Train a model into a new run folder with options that were given together; see `train_run`.

    `stopwatch` was started with the command, for `time_limit`; None starts it now.
    """
    stopwatch = stopwatch or Stopwatch()
    note = {"data_note": options.run.note} if options.run.note else {}
    fabric = create_fabric(options.run.device, options.train.mixed_precision)
    facts = {**note, **(provenance or {})}
    on_first_process(fabric, partial(_start, options, folder, splits, facts, fabric.device.type, log))
    return _resume(fabric, folder, read_run_config(folder), splits, log, keep_going, stopwatch, options.run.loggers)


def is_started(folder: Path, device: str = "auto") -> bool:
    """Return whether the folder holds a run that can be resumed; all processes get the first one's answer.

    This is for a command that is started again, as torchrun does after it lost a process or a machine.
    """
    return on_first_process(create_fabric(device), (folder / CONFIG_NAME).exists)


def read_rows(options: Options) -> tuple[Options, Splits, bool]:
    """Read the data; return the options with what follows from the rows, the splits, and whether a run is resumed.

    Raises:
        MlicError: see `load_splits`, `adapt` and `is_started`.
    """
    resume = _is_resumed(options)
    splits = load_splits(options.data, divided=options.folder if resume else None)
    adapted = adapt(options, splits)
    if adapted.folder == options.folder:
        return adapted, splits, resume
    resume = _is_resumed(adapted)  # the rows decide about the model, and so about its usual folder
    return adapted, load_splits(options.data, divided=adapted.folder) if resume else splits, resume


def _is_resumed(options: Options) -> bool:
    run = options.run
    return run.resume or (run.auto_resume and is_started(options.folder, run.device))


def resume_run(
    folder: Path,
    splits: Splits,
    *,
    wanted: Mapping[str, object] | None = None,
    device: str = "auto",
    loggers: Sequence[str] = (),
    log: Log = lambda _: None,
    keep_going: KeepGoing = lambda _: True,
    stopwatch: Stopwatch | None = None,
) -> State:
    """Resume a run from its last checkpoint.

    Args:
        folder: the run folder.
        splits: the same labelled data as before (its fingerprint is compared); soft labels are in the folder.
        wanted: configuration values that the run must have; only those that earlier steps do not depend on may differ
            (epochs, time_limit, patience, workers, calibration, empty_odds, threshold_for).
        device: see `create_fabric`.
        loggers: where to log too (see `RunLog`); logs that the run has already go on in any case.
        log: called with lines of progress.
        keep_going: see `fit`.
        stopwatch: see `start_run`. A run with a `time_limit` keeps its plan, and the time that it has taken counts.

    Raises:
        CheckpointError: there is no run to resume, or its data was different.
        DataError: a pseudo-labelled picture is missing.
        ConfigError: `wanted` differs from the run's own configuration.
    """
    stopwatch = stopwatch or Stopwatch()
    config = read_run_config(folder)
    if fingerprint(splits.named()) != config.provenance.get("data_fingerprint"):
        raise CheckpointError(f"{folder} was trained on other data; resume it with the data it was started with")
    saved = {**dataclasses.asdict(config.model), **dataclasses.asdict(config.train)}
    saved["preset"] = config.provenance.get("preset", NONE)
    changes = {name: value for name, value in (wanted or {}).items() if saved[name] != value}
    pieces = changes.get("vocab_size")
    if isinstance(pieces, int) and pieces > saved["vocab_size"]:
        del changes["vocab_size"]  # the captions gave fewer pieces than the option allows
    for name, value in changes.items():
        if name not in MAY_CHANGE:
            raise ConfigError(
                f"{folder} was started with {name} {saved[name]!r}, not {value!r}; "
                f"leave the option out, or start a new run (only {', '.join(MAY_CHANGE)} may change)"
            )
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))  # type: ignore[arg-type] # names and values come from these dataclasses
    fabric = create_fabric(device, config.train.mixed_precision)
    if changes:
        on_first_process(fabric, partial(write_run_config, folder, config, None))
    return _resume(fabric, folder, config, splits, log, keep_going, stopwatch, loggers)


def _start(
    options: Options, folder: Path, splits: Splits, provenance: Mapping[str, str], device: str, log: Log
) -> None:
    """Write a run folder that every process can resume, as it resumes an interrupted run."""
    if (folder / CONFIG_NAME).exists():
        raise CheckpointError(
            f"{folder} holds a run already; continue with --resume or choose another --output, such as {folder}-2"
        )
    for line in remarks(options, splits):
        log(line)
    ignores_pictures = pictures_are_missing(options, splits)
    data_fingerprint, train = fingerprint(splits.named()), options.train
    if not train.epochs and (options.teacher.teachers or options.teacher.soft_labels):
        raise ConfigError("--epochs 0 trains nothing, so no one can teach: leave --teacher and --soft-labels out")
    splits, taught = teach(splits, options.teacher, train.teacher_weight, device, log)
    first = make_first_model(options, splits, log)
    if ignores_pictures:
        first.model.ignore_pictures()
    facts: dict[str, str | int | float] = {
        "data_fingerprint": data_fingerprint,
        "seed": train.seed,
        "preset": options.run.preset or NONE,
        **({NEVER_SEEN: "pictures"} if ignores_pictures else {}),
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
        **first.facts,
        **({} if splits.division is None else {"division": splits.division.notes[0]}),
        **taught,
        **provenance,
    }
    run_config = RunConfig(first.config, train, facts)
    # Refuse now what training would refuse, before a folder exists that nothing can be done with.
    _usable_rows(run_config, splits, lambda _: None)
    Learner(first.model, train)
    # config.json comes last: a folder with it can be resumed, a folder without it can be started again.
    save_checkpoint(folder / LAST_NAME, first.model.state_dict(), State())
    if not train.epochs:  # then the first weights are the best; thresholds follow, as after the last epoch
        state = State(thresholds=[0.5] * first.config.num_labels)
        save_checkpoint(folder / BEST_NAME, first.model.state_dict(), state)
    if taught:
        write_soft_labels(folder, splits)
    if splits.division is not None:
        write_division(folder, splits.division)
    # A path may hold bytes that are no text; that is no reason not to train.
    write_bytes(folder / OPTIONS_NAME, to_toml(repeatable(options.chosen)).encode("utf-8", "backslashreplace"))
    write_run_config(folder, run_config, first.tokenizer)


def _resume(
    fabric: Fabric,
    folder: Path,
    config: RunConfig,
    splits: Splits,
    log: Log,
    keep_going: KeepGoing,
    stopwatch: Stopwatch,
    loggers: Sequence[str],
) -> State:
    """Train from the last checkpoint to the end, in every process; only the first one logs, writes and measures."""
    if not fabric.is_global_zero:
        log = _log_nothing
    if FINGERPRINT in config.provenance:
        check_soft_files(config.provenance)
        splits = read_soft_labels(folder, splits, config.provenance[FINGERPRINT])
    tokenizer = read_tokenizer(folder, config.model)
    model = create_model(config.model)
    checkpoint = load_checkpoint(folder / LAST_NAME)
    load_weights(model, checkpoint.model, folder / LAST_NAME)
    run_log: RunLog | None = None

    def open_log() -> None:
        nonlocal run_log
        run_log = RunLog(folder, loggers, checkpoint.state.epoch)
        run_log.start(config)

    on_first_process(fabric, open_log)
    budget = None
    if config.train.time_limit is not None and not is_finished(checkpoint.state, config.train):
        budget = TimeBudget(config.train, stopwatch, checkpoint.state.time.get("spent", 0.0), log)
    data = _fit_data(fabric, config, tokenizer, splits, folder, model, log, budget, checkpoint.state)
    if budget is not None:
        trained = TrainedModel(folder, config, model, tokenizer, State())
        begin = partial(_begin, budget, checkpoint.state, trained, splits, data, stopwatch)
        checkpoint.state.time = on_first_process(fabric, begin)

    def after_epoch(state: State) -> bool:
        if run_log is not None:
            run_log.epoch(state)
        return keep_going(state)

    state = fit(
        model, data, config.train, folder, fabric, resume=checkpoint, log=log, keep_going=after_epoch, budget=budget
    )
    state = on_first_process(fabric, partial(_finish, folder, state, splits, log, budget))
    if run_log is not None:
        run_log.end(state)
    if budget is not None:
        log(f"ended after {duration(budget.spent())} of --time-limit {config.train.time_limit}")
    return state


def _begin(
    budget: TimeBudget, state: State, trained: TrainedModel, splits: Splits, data: FitData, stopwatch: Stopwatch
) -> dict[str, float]:
    """Measure what follows training and take up the plan of a resumed run; return the new `State.time`."""
    learner = Learner(trained.model, trained.config.train).eval()

    def run(batch: Batch) -> torch.Tensor:
        logits: torch.Tensor = learner(batch)
        return logits

    validation = seconds_to_validate(run, data.val, data.tokenizer, trained.config.train, stopwatch)
    reading, fewest, scoring = seconds_to_finish(trained, splits, stopwatch)
    budget.begin(state, reading + scoring, fewest + scoring, validation, scoring)
    return state.time


def _log_nothing(_: str) -> None:
    """Ignore a line."""


def _usable_rows(config: RunConfig, splits: Splits, log: Log) -> dict[str, list[Record]]:
    """Return the rows of train and val that the model can use."""
    rows = {}
    for name, split in (("train", splits.train), ("val", splits.val)):
        rows[name] = usable_records(split.records, config.model)
        left_out = len(split.records) - len(rows[name])
        if not rows[name]:
            raise DataError(f"the split {name!r} has no row that {config.model.name} can use: it reads only pictures")
        if not any(record.labels for record in rows[name]):
            raise DataError(f"no row of the split {name!r} has a label: there is nothing to learn or to measure")
        _check_unknown(name, rows[name], config.model.labels, log)
        if left_out:
            log(f"{name}: {left_out} rows without a picture are left out, {config.model.name} reads only pictures")
    return rows


def _check_unknown(name: str, records: Sequence[Record], labels: Sequence[str], log: Log) -> None:
    """Say how many labels of the rows are unknown; refuse a label about which no training row says anything."""
    unknown = Counter(index for record in records for index in unknown_of(record))
    if not unknown:
        return
    nowhere = [label for index, label in enumerate(labels) if unknown[index] == len(records)]
    shown = ", ".join(map(repr, nowhere[:3])) + (f" and {len(nowhere) - 3} more" if len(nowhere) > 3 else "")
    if nowhere and name == "train":
        raise DataError(
            f"no training row says whether it has {shown}: {len(nowhere)} of {len(labels)} labels are unknown in all "
            f"{len(records)} rows and cannot be learned; leave them out of the data and of the labels file"
        )
    text = f"{name}: {unknown.total()} of {len(records) * len(labels)} labels of rows are unknown, and count nowhere"
    if nowhere:
        text += f"; {len(nowhere)} labels are unknown in every row, and get the thresholds of all together: {shown}"
    log(text)


def _fit_data(
    fabric: Fabric,
    config: RunConfig,
    tokenizer: bytes | None,
    splits: Splits,
    folder: Path,
    model: Model,
    log: Log,
    budget: TimeBudget | None,
    state: State,
) -> FitData:
    """Return the rows that the model can use, with their feature caches if `cache_features` is set and time allows.

    Where time allows some features of train only, the pictures of the other rows are left out, and `state.time` says
    how many are kept: a resumed run trains with the same rows.
    """
    rows = _usable_rows(config, splits, log)
    spec, train, num_labels = config.model.image_spec, config.train, config.model.num_labels
    caches: dict[str, FeatureCache] = {}
    if train.cache_features and not is_finished(state, train):
        flips = product({False, train.horizontal_flip}, {False, train.vertical_flip})
        variants = {"train": sorted(flips), "val": [(False, False)]}
        with_pictures = partial(_with_pictures, reads_captions=config.model.reads_captions, seed=train.seed, log=log)
        every, decided = rows["train"], int(state.time.get("pictures", 0))
        if decided:
            rows["train"] = with_pictures(every, decided)
        for name in ("val", "train"):  # what val takes is known when train is judged
            if all(record.image is None for record in rows[name]):
                continue

            def build(progress: Progress | None = None, name: str = name) -> FeatureCache:
                return build_cache(model, rows[name], spec, variants[name], folder.parent / _CACHE_FOLDER, progress)

            asked, again = None if decided and name == "train" else budget, False
            while True:
                compute = partial(_compute_features, name, build, asked, log, again=again)
                fitting = on_first_process(fabric, compute)
                if fitting is None or name == "val" or fitting < _FEWEST_PICTURES:
                    break
                state.time["pictures"] = float(fitting)
                rows[name], again = with_pictures(every, fitting), True
            if fitting is not None:
                log("features are not cached: the backbone computes features anew in every epoch")
                caches.clear()
                break
            caches[name] = build()
    return FitData(
        train=Examples(rows["train"], num_labels, spec, train, caches.get("train")),
        val=Examples(rows["val"], num_labels, spec, None, caches.get("val")),
        tokenizer=create_tokenizer(config.model, tokenizer),
    )


def _with_pictures(records: Sequence[Record], count: int, *, reads_captions: bool, seed: int, log: Log) -> list[Record]:
    """Return the rows with `count` of their pictures, drawn by `seed`; rows with nothing left to read are left out."""
    having = [index for index, record in enumerate(records) if record.image is not None]
    dropped = set(having) - set(random.Random(seed).sample(having, min(count, len(having))))
    kept = [
        dataclasses.replace(record, image=None) if index in dropped else record
        for index, record in enumerate(records)
        if index not in dropped or (reads_captions and record.captions)
    ]
    log(
        f"train: {len(having) - len(dropped):,} of {len(having):,} pictures are used, drawn by the seed, as the time "
        f"limit is too short for the features of all; {len(dropped) - len(records) + len(kept):,} other rows train "
        f"with their caption alone, {len(records) - len(kept):,} are left out"
    )
    return kept


class _TooSlowError(Exception):
    """Caching would leave no time for training; `fitting` pictures would leave enough."""

    def __init__(self, message: str, fitting: int) -> None:
        super().__init__(message)
        self.fitting = fitting


def _compute_features(
    name: str, build: Callable[[Progress | None], FeatureCache], budget: TimeBudget | None, log: Log, *, again: bool
) -> int | None:
    """Compute a cache, if it does not exist. `again`: an attempt with all its pictures took too long.

    Returns:
        None, or the number of pictures that the time limit allows, where it does not allow all; then it was said.
    """
    with progress_bar(f"caching features of {name}", "picture", _SECONDS_BETWEEN_LINES, ends=True) as show:
        if budget is None:
            build(show)
            return None
        ticks: deque[tuple[int, float]] = deque()

        def progress(done: int, total: int) -> None:
            show(done, total)
            now = budget.spent()
            ticks.append((done, now))
            while len(ticks) > 3 and not budget.recent(now - ticks[1][1]):
                ticks.popleft()
            first, begun = ticks[0]
            if not budget.can_judge(now - begun):
                return
            a_picture = (now - begun) / (done - first)
            if not budget.allows_caching(a_picture * (total - done), again=again):
                raise _TooSlowError(
                    f"features of all {total} pictures of {name} would take {duration(a_picture * total)}, too much of "
                    "the time limit",
                    int(budget.for_caching() / a_picture),
                )

        try:
            build(progress)
        except _TooSlowError as error:
            log(str(error))
            return error.fitting
    return None


def _finish(folder: Path, state: State, splits: Splits, log: Log, budget: TimeBudget | None) -> State:
    """Calibrate the best checkpoint on val, fit its thresholds, and measure every split and mode, after the last epoch.

    All of it is written into the checkpoint. A second call gives the same: it starts from the model's own logits. With
    a `budget` as many rows are read as the time that is left allows.
    """
    for file in list(folder.iterdir()):
        remove_abandoned(file)  # writing a file anew does that too, but no file may be written again
    if not state.finished:
        return state
    trained = load_trained(folder)
    best, model, config = trained.state, trained.model, trained.config.train
    rows_of_test = 0 if splits.test is None else len(usable_records(splits.test.records, trained.config.model))

    def say_left_out(name: str, limit: RowLimit | None) -> None:
        if budget is not None and limit is not None and limit.left_out > 0:
            budget.say_left_out(name, limit)

    model.calibration.reset()
    rows = len(usable_records(splits.val.records, trained.config.model))
    what = f"the best epoch, {best.epoch} of {state.epoch}" if best.epoch else "the model that it starts from"
    log(f"calibrating {what}, on {rows:,} rows of val")
    with progress_bar("calibration", "row", SECONDS_BETWEEN_LINES) as show:
        limit = None if budget is None else budget.for_calibration(rows, rows_of_test)
        raw = collect(trained, trained.run, splits.val.records, show, limit)
    say_left_out("val", limit)
    outputs = {"val": calibrate(model.calibration, raw, config.calibration, config.empty_odds)}
    if NEVER_SEEN in trained.config.provenance:
        model.calibration.set(BOTH, model.calibration.scale[CAPTION_ONLY], model.calibration.bias[CAPTION_ONLY])
    val = outputs["val"]["both"]
    best.thresholds = fit_thresholds(sigmoid(val.logits), val.targets, config.threshold_for, val.known).tolist()
    if splits.test is not None:
        log(f"measuring it on {rows_of_test:,} rows of test")
        with progress_bar("measurement", "row", SECONDS_BETWEEN_LINES) as show:
            limit = None if budget is None else budget.for_measurement(rows_of_test)
            outputs["test"] = collect(trained, trained.run, splits.test.records, show, limit)
        say_left_out("test", limit)
    for name, by_mode in outputs.items():
        for mode, metrics in report(by_mode, best.thresholds).items():
            best.metrics[name + mode] = metrics
    save_checkpoint(folder / BEST_NAME, model.state_dict(), best)
    return dataclasses.replace(state, metrics=best.metrics, thresholds=best.thresholds)
