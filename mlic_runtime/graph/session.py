"""ONNX Runtime, or OpenVINO, behind the graph contract: `pixels` (and perhaps a caption's tokens) in, `logits` out."""

import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from mlic_runtime.base.arrays import Logits, Pixels, Tokens
from mlic_runtime.base.machine import available_cores
from mlic_runtime.base.text import error_line
from mlic_runtime.errors import PackageError, ProviderError
from mlic_runtime.package.manifest import Manifest
from mlic_runtime.providers.distributions import conflict
from mlic_runtime.providers.library import available_providers, load_libraries, onnxruntime
from mlic_runtime.providers.names import PROVIDERS, candidates, offered_names
from mlic_runtime.providers.openvino import OpenVINOSession, library_version, reason

PIXELS, INPUT_IDS, ATTENTION_MASK, LOGITS = "pixels", "input_ids", "attention_mask", "logits"
PICTURE_EVIDENCE, CAPTION_EVIDENCE = "picture_evidence", "caption_evidence"

_PICTURE_INPUTS = {PIXELS: ("tensor(uint8)", 4)}
_CAPTION_INPUTS = {INPUT_IDS: ("tensor(int64)", 2), ATTENTION_MASK: ("tensor(int64)", 2)}
_OUTPUTS = {LOGITS: ("tensor(float)", 2)}
# Optional outputs: float32 (B, L, h, w) and (B, L, T).
_PICTURE_EVIDENCE = {PICTURE_EVIDENCE: ("tensor(float)", 4)}
_CAPTION_EVIDENCE = {CAPTION_EVIDENCE: ("tensor(float)", 3)}
_Loaded = TypeVar("_Loaded")

# Providers for which ONNX Runtime does not plan memory in advance for every shape (`enable_mem_pattern`). On the CPU,
# hybrid in batches of 16 peaked at 511 MB with it and 356 MB without (int8: 459 and 309), in the same CPU time. Without
# the arena, time grows by 40 to 57 % (benchmarks/session_options.py). DirectML cannot do it. Others were not measured.
_NO_MEMORY_PATTERN = ("cpu", "directml")
_EXPORT_AGAIN = "export the package again"
_ERRORS_ONLY = 3  # ONNX Runtime's severities: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal


class GraphEvidence(NamedTuple):
    """What a graph gives when it explains: all float32, in logits.

    Attributes:
        logits: (B, L).
        picture: (B, L, h, w), what each place of the picture adds to each logit, row by row from the top left.
        caption: (B, L, T), what each token adds; None for a graph that reads no caption.
    """

    logits: Logits
    picture: npt.NDArray[np.float32]
    caption: npt.NDArray[np.float32] | None


class GraphSession:
    """A loaded graph with the inputs and outputs above; made by `create_session`. Thread-safe.

    Attributes:
        provider: the short name of the execution provider that runs it.
        library: what runs it, with its version, such as "onnxruntime 1.32.0".
        threads: how many threads one `run` uses.
        reads_caption: whether the graph has the inputs `input_ids` and `attention_mask`.
        height: of `pixels`, or None if the graph takes any.
        width: of `pixels`, or None if the graph takes any.
        num_labels: L, or None if the graph does not say.
        explains: whether the graph has the outputs `picture_evidence` and, if it reads a caption, `caption_evidence`.
        grid: (h, w) of `picture_evidence`; None without it, or if the graph does not say.
    """

    def __init__(self, session: Any, provider: str, threads: int, library: str) -> None:
        self._session = session
        self._process = os.getpid()
        _SESSIONS.add(self)
        self._options: onnxruntime.RunOptions | None = None
        self.grid: tuple[int | None, int | None] | None = None
        self.provider = provider
        self.library = library
        self.threads = threads
        inputs = {node.name: node for node in session.get_inputs()}
        outputs = {node.name: node for node in session.get_outputs()}
        self.reads_caption = bool(inputs.keys() & _CAPTION_INPUTS.keys())
        _check_nodes("input", inputs, _PICTURE_INPUTS | (_CAPTION_INPUTS if self.reads_caption else {}))
        self.explains = PICTURE_EVIDENCE in outputs
        evidence = _PICTURE_EVIDENCE | (_CAPTION_EVIDENCE if self.reads_caption else {}) if self.explains else {}
        _check_nodes("output", outputs, _OUTPUTS | evidence)
        if self.explains:
            # Without it ONNX Runtime computes every output, also those that nobody fetches.
            sides = [_fixed(side) for side in outputs[PICTURE_EVIDENCE].shape[2:]]
            self.grid = None if None in sides else (sides[0], sides[1])
            self._options = onnxruntime.RunOptions()
            self._options.only_execute_path_to_fetches = True
        shape = inputs[PIXELS].shape
        if shape[3] != 3:
            raise PackageError(f"the graph's input {PIXELS} has shape {shape}, expected (B, H, W, 3)")
        self.height, self.width = _fixed(shape[1]), _fixed(shape[2])
        self.num_labels = _fixed(outputs[LOGITS].shape[1])

    def run(
        self,
        pixels: Pixels,
        input_ids: Tokens | None = None,
        attention_mask: Tokens | None = None,
    ) -> Logits:
        """Run the graph; of its nodes only those that the logits need.

        Args:
            pixels: uint8 (B, H, W, 3), RGB.
            input_ids: int64 (B, T); given exactly when `reads_caption`.
            attention_mask: int64 (B, T) of 0 and 1; an all-zero row means "no caption".

        Returns:
            logits, float32 (B, L), all finite.

        Raises:
            PackageError: the graph failed, or gave a number that is not finite. Its inputs are integers, so that is a
                fault of the graph, not of the picture.
            ProviderError: this process was forked from the one that loaded the graph. ONNX Runtime's threads do not
                survive that, and a run could wait for them without end.
        """
        logits: Logits = self._run([LOGITS], pixels, input_ids, attention_mask)[0]
        return logits

    def explain(
        self,
        pixels: Pixels,
        input_ids: Tokens | None = None,
        attention_mask: Tokens | None = None,
    ) -> GraphEvidence:
        """Run the graph, and compute what each place of the inputs contributes; arguments and errors as for `run`.

        Raises:
            PackageError: the graph does not explain (see `explains`).
        """
        if not self.explains:
            raise PackageError(f"the graph has no output {PICTURE_EVIDENCE}; export the model again, with evidence")
        names = [LOGITS, PICTURE_EVIDENCE, *([CAPTION_EVIDENCE] if self.reads_caption else [])]
        outputs = self._run(names, pixels, input_ids, attention_mask)
        return GraphEvidence(outputs[0], outputs[1], outputs[2] if self.reads_caption else None)

    def _run(
        self, names: list[str], pixels: Pixels, input_ids: Tokens | None, attention_mask: Tokens | None
    ) -> list[npt.NDArray[np.float32]]:
        if os.getpid() != self._process:
            raise ProviderError(
                f"the model was loaded by process {self._process} and cannot run in its fork {os.getpid()}: load it in "
                "each worker (gunicorn: without --preload), or start workers with 'spawn'"
            )
        feed: dict[str, npt.NDArray[Any]] = {PIXELS: pixels}
        if input_ids is not None and attention_mask is not None:
            feed |= {INPUT_IDS: input_ids, ATTENTION_MASK: attention_mask}
        try:
            outputs: list[npt.NDArray[np.float32]] = self._session.run(names, feed, self._options)
        except Exception as error:  # the errors of ONNX Runtime and OpenVINO have no common base class
            why = reason(error) if self.provider == "openvino" else error_line(error)
            raise PackageError(f"the graph failed on {_shapes(feed)}: {why}") from error
        for name, output in zip(names, outputs, strict=True):
            if not np.isfinite(output).all():
                raise PackageError(f"the graph gave {name} that are not finite on {_shapes(feed)}")
        return outputs


def _keep_inherited() -> None:
    """Keep each native session of the parent for ever in a forked child: to free one there hangs or crashes.

    A list in this module would not do, because Python empties modules as it ends.
    """
    import ctypes

    for session in _SESSIONS:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session._session))


_SESSIONS: "weakref.WeakSet[GraphSession]" = weakref.WeakSet()  # that are alive
if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_keep_inherited)


def create_session(
    graph: bytes,
    *,
    provider: str = "cpu",
    threads: int | None = None,
    spin: bool = False,
    optimised: bytes | None = None,
    save_to: Path | None = None,
) -> GraphSession:
    """Load an ONNX graph, and check its inputs and outputs.

    Args:
        graph: the content of an .onnx file.
        provider: a key of `names.PROVIDERS`, or "auto" for the best one that loads here. ONNX Runtime runs operators
            that a provider lacks on the CPU. "openvino" is the package of that name, on the CPU; one run waits there
            for another.
        threads: how many threads one run uses, >= 1; None means one per physical core that this process may use.
        spin: let waiting threads spin. This shortens a run a little and keeps the CPUs busy between runs. OpenVINO has
            no such setting.
        optimised: what an earlier call wrote to `save_to` from this `graph`, for this provider, version of its library
            and kind of processor. It loads in a third of the time.
        save_to: write the graph to this file as the library optimised it, in its own format.

    Raises:
        ProviderError: an unknown provider, or one that is not offered or does not load here.
        PackageError: ONNX Runtime cannot load the graph, `optimised` cannot be used, or the graph's inputs or outputs
            differ from the contract.
        ValueError: `threads` is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads must be 1 or more, found {threads}")
    count = available_cores() if threads is None else threads
    session, _ = first_that_loads(provider, lambda name: _create(graph, name, count, spin, optimised, save_to))
    return session


def first_that_loads(
    provider: str, load: Callable[[str], _Loaded], preferred: str | None = None
) -> tuple[_Loaded, str]:
    """Load something with the best execution provider that can.

    Args:
        provider: a key of `names.PROVIDERS`, or "auto" for the best one that loads here.
        load: called with the name of one provider after the other, best first, until it raises no ProviderError.
        preferred: the provider that `mlic-bench --choose` found best here; "auto" tries it first.

    Returns:
        What `load` returned; and why this provider was taken, for people: "as asked", "chosen by mlic-bench --choose",
        or "the best that loads here" and why better ones did not load.

    Raises:
        ProviderError: an unknown provider, one that is not offered, or that of `load` for the last candidate.
        MlicError: any other that `load` raised; the remaining candidates were not tried.
    """
    names = candidates(provider, available_providers())
    if provider in names:
        return load(provider), "as asked"
    why, problems = "the best that loads here", ""
    if preferred in names:
        try:
            return load(preferred), "chosen by mlic-bench --choose"
        except ProviderError as error:  # the next one may load
            names, problems = tuple(name for name in names if name != preferred), f"; {error}"
    elif preferred is not None:
        problems = f"; {preferred!r}, chosen by mlic-bench --choose, is not offered here"
    for name in names[:-1]:
        try:
            return load(name), why + problems
        except ProviderError as error:
            problems += f"; {error}"
    return load(names[-1]), why + problems


def check_agreement(session: GraphSession, manifest: Manifest) -> None:
    """Check that a graph and a manifest describe the same model.

    Raises:
        PackageError: they differ in the sides of `pixels`, in the number of labels, or in whether a caption is read.
    """
    if session.reads_caption != (manifest.text is not None):
        reads = "reads a caption" if session.reads_caption else "reads no caption"
        raise PackageError(
            f"the graph of {manifest.name} {reads}, but the manifest says otherwise (text): {_EXPORT_AGAIN}"
        )
    sides = (session.height or manifest.image.height, session.width or manifest.image.width)
    if sides != (manifest.image.height, manifest.image.width):
        raise PackageError(
            f"the graph of {manifest.name} takes pictures of {sides} pixels (height, width), "
            f"but the manifest says {(manifest.image.height, manifest.image.width)}: {_EXPORT_AGAIN}"
        )
    grid = None if manifest.evidence is None else (manifest.evidence.height, manifest.evidence.width)
    if (grid is None) == session.explains or (grid and session.grid not in (None, grid)):
        raise PackageError(
            f"the graph of {manifest.name} has the evidence grid {session.grid if session.explains else 'none'}, "
            f"but the manifest says {grid or 'none'}: {_EXPORT_AGAIN}"
        )
    if session.num_labels not in (None, len(manifest.labels)):
        raise PackageError(
            f"the graph of {manifest.name} has {session.num_labels} outputs, "
            f"but the manifest has {len(manifest.labels)} labels: {_EXPORT_AGAIN}"
        )


def _create(
    graph: bytes, provider: str, threads: int, spin: bool, optimised: bytes | None, save_to: Path | None
) -> GraphSession:
    if provider == "openvino":
        return _create_openvino(graph, threads, optimised, save_to)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    if provider in _NO_MEMORY_PATTERN:
        options.enable_mem_pattern = False
    if optimised is not None:
        # ONNX Runtime's own format needs no protobuf and no copy: 25 ms of CPU time for the fp32 graph of hybrid. With
        # a copy it takes 33 ms, an optimised .onnx file 36, and the original 84.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.load_model_format", "ORT")
        options.add_session_config_entry("session.use_ort_model_bytes_directly", "1")
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
        options.add_session_config_entry("session.save_model_format", "ORT")
    wanted = list(dict.fromkeys([PROVIDERS[provider], PROVIDERS["cpu"]]))
    missing = load_libraries(provider)
    if missing is not None:
        raise ProviderError(_did_not_load(provider, missing))
    try:
        # With its fallback on, ONNX Runtime would continue on the CPU and print that on stdout.
        session = onnxruntime.InferenceSession(optimised or graph, options, providers=wanted, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's errors have no common base class
        if provider == "cpu":
            raise PackageError(f"ONNX Runtime cannot load the graph: {error_line(error)}") from error
        raise ProviderError(_did_not_load(provider, error_line(error))) from error
    if PROVIDERS[provider] not in session.get_providers():
        raise ProviderError(_did_not_load(provider, "its libraries or its device are missing"))
    return GraphSession(session, provider, threads, f"onnxruntime {onnxruntime.__version__}")


def _create_openvino(graph: bytes, threads: int, optimised: bytes | None, save_to: Path | None) -> GraphSession:
    try:
        session = OpenVINOSession(graph, [LOGITS], threads=threads, saved=optimised, save_to=save_to)
    except ProviderError:
        raise
    except Exception as error:  # RuntimeError, and any other error of its bindings
        if optimised is not None:
            raise PackageError(f"OpenVINO cannot load what it had compiled: {reason(error)}") from error
        raise ProviderError(_did_not_load("openvino", f"OpenVINO cannot compile the graph: {reason(error)}")) from error
    return GraphSession(session, "openvino", threads, f"openvino {library_version()}")


def _did_not_load(provider: str, cause: str) -> str:
    others = [name for name in offered_names(available_providers()) if name != provider]
    notes = [cause, f"also offered here: {', '.join(others)}", None if provider == "openvino" else conflict(provider)]
    return f"provider {provider!r} did not load: {'; '.join(note for note in notes if note)}"


def _check_nodes(kind: str, nodes: dict[str, Any], expected: dict[str, tuple[str, int]]) -> None:
    if nodes.keys() != expected.keys():
        raise PackageError(f"the graph has the {kind}s {', '.join(nodes)}; expected {', '.join(expected)}")
    for name, (dtype, rank) in expected.items():
        node = nodes[name]
        if node.type != dtype or len(node.shape) != rank:
            raise PackageError(
                f"the graph's {kind} {name} is {node.type} of shape {node.shape}; expected {dtype} of rank {rank}"
            )
        batch_and_tokens = {**dict.fromkeys(_CAPTION_INPUTS, (0, 1)), CAPTION_EVIDENCE: (0, 2)}
        if any(isinstance(node.shape[axis], int) for axis in batch_and_tokens.get(name, (0,))):
            raise PackageError(
                f"the graph's {kind} {name} has the fixed shape {node.shape}; export it with dynamic axes"
            )


def _fixed(side: int | str | None) -> int | None:
    return side if isinstance(side, int) else None


def _shapes(feed: dict[str, npt.NDArray[Any]]) -> str:
    return ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in feed.items())
