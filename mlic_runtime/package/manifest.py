"""manifest.json: the only source of truth of a model package.

`mlic_train.exporting.package` writes it and `mlic_runtime.package.model_package` reads it, both through the dataclasses
below. Unknown keys, wrong types and values out of range are errors that name the key.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlic_runtime import limits
from mlic_runtime.base.typed_json import (
    MAY_BE_MISSING,
    TypedJsonError,
    build,
    key_name,
    must_be,
    parse_object,
    repeated,
    shown,
)
from mlic_runtime.errors import ManifestError
from mlic_runtime.providers.names import PROVIDERS

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
TOKENIZER_NAME = "tokenizer.json"
CARD_NAME = "README.md"
PRECISIONS = ("fp32", "fp16", "int8-full", "int8")  # the most exact first
# int8 weights have 7 bits in "int8", which is exact on every processor, and all 8 bits in "int8-full", which is only
# where the processor multiplies bytes and adds the products in 32 bits: see `base.machine.has_dot_product`.
FULL_RANGE = "int8-full"
REDUCED_RANGE = "int8"
INTERPOLATIONS = ("bilinear", "bicubic")
RESIZE_MODES = ("stretch", "crop")

# The name of a file of a package, in a folder or an archive.
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

Number = float | int
Metrics = Mapping[str, Number]


@dataclass(frozen=True)
class LabelSpec:
    """One label: its name, and the lowest probability in [0, 1] at which it is predicted."""

    name: str
    threshold: float


@dataclass(frozen=True)
class ImageSpec:
    """How a picture becomes `pixels`, uint8 (H, W, 3).

    `resize` is "stretch" (both sides to the target, aspect ratio not kept) or "crop" (shorter side to the target, then
    the centre is cut out). `interpolation` is one of INTERPOLATIONS. Sides are in pixels.
    """

    height: int
    width: int
    interpolation: str = "bilinear"
    resize: str = "stretch"


@dataclass(frozen=True)
class TextSpec:
    """How a caption becomes `input_ids`: at most `max_length` tokens of tokenizer.json; `pad_id` fills short rows."""

    max_length: int
    vocab_size: int
    pad_id: int = 0


@dataclass(frozen=True)
class FileSpec:
    """One file of the package; `precision` is set for graphs (one of PRECISIONS) and null for everything else."""

    sha256: str
    bytes: int
    precision: str | None = None


@dataclass(frozen=True)
class AgreementSpec:
    """How far a graph is from the PyTorch model it was exported from, over `rows` rows.

    `max_abs_difference` is in logits; `equal_decisions` is the share in [0, 1] of label decisions that agree.
    """

    rows: int
    max_abs_difference: float
    equal_decisions: float


@dataclass(frozen=True)
class ParitySpec(AgreementSpec):
    """How far a graph is from PyTorch on made-up rows of `shapes` (B, T) shapes, and on real ones.

    A logit may differ by `atol` + `rtol` * |logit|. `splits` is {split: agreement on its rows}, with the splits of
    `Manifest.metrics`. It is empty for a package that was exported without data, and missing in older manifests, whose
    schema_version is the same.
    """

    shapes: int
    atol: float
    rtol: float
    splits: Mapping[str, AgreementSpec] = field(default_factory=dict, metadata=MAY_BE_MISSING)


@dataclass(frozen=True)
class LatencySpec:
    """Wall time of one warm run of the graph on one picture with a caption, from arrays in memory to logits in memory.

    `machine` is the processor's name, `threads` the number that one run used; `p50_ms` and `p90_ms` are percentiles of
    `runs` runs, in milliseconds.
    """

    machine: str
    threads: int
    runs: int
    p50_ms: float
    p90_ms: float


@dataclass(frozen=True)
class EvidenceSpec:
    """What the graphs can say about where a logit comes from, in outputs beside `logits`.

    `picture_evidence` float32 (B, L, h, w) has the grid `height` x `width`; `caption_evidence` float32 (B, L, T) is
    there if the model reads a caption. `faithfulness` has numbers that were measured on val: {name: number}.
    """

    height: int
    width: int
    faithfulness: Mapping[str, Number] = field(default_factory=dict, metadata=MAY_BE_MISSING)


@dataclass(frozen=True)
class Manifest:
    """The content of manifest.json.

    `text` is None for a model that reads no caption (its graph has only the input `pixels`). `metrics` is
    {precision: {split: {metric: number}}}; `provenance` has no fixed keys: {key: text or number}.

    `latency` is {precision: {provider: measured when the package was exported}}, and `recommended` {provider: the
    precision that is worth its loss there}. Both are missing in older manifests. `evidence` is None, or missing, where
    the graphs have no such outputs.
    """

    name: str
    version: str
    labels: tuple[LabelSpec, ...]
    image: ImageSpec
    text: TextSpec | None
    files: Mapping[str, FileSpec]
    metrics: Mapping[str, Mapping[str, Metrics]] = field(default_factory=dict)
    parity: Mapping[str, ParitySpec] = field(default_factory=dict)
    latency: Mapping[str, Mapping[str, LatencySpec]] = field(default_factory=dict, metadata=MAY_BE_MISSING)
    recommended: Mapping[str, str] = field(default_factory=dict, metadata=MAY_BE_MISSING)
    evidence: EvidenceSpec | None = field(default=None, metadata=MAY_BE_MISSING)
    provenance: Mapping[str, str | Number] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        _check(self)

    def graph_name(self, precision: str) -> str:
        """Return the file name of the graph of a precision.

        Raises:
            ManifestError: the package has no graph of that precision; the message lists those it has.
        """
        for name, spec in self.files.items():
            if spec.precision == precision:
                return name
        raise ManifestError(
            f"model package {self.name!r} has no {precision} graph; it has: {', '.join(self.precisions)}"
        )

    @property
    def title(self) -> str:
        """The name of the model in results: name@version."""
        return f"{self.name}@{self.version}"

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions of the package's graphs, in the order of `files`."""
        return tuple(spec.precision for spec in self.files.values() if spec.precision is not None)


def parse_manifest(text: str | bytes) -> Manifest:
    """Read manifest.json.

    Raises:
        ManifestError: not JSON, an unknown schema_version or key, a missing key, a wrong type, a value out of range.
    """
    try:
        data = parse_object(text)
    except TypedJsonError as error:
        raise ManifestError(f"{MANIFEST_NAME} {error}") from None
    version = data.get("schema_version")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise ManifestError(
            f"{MANIFEST_NAME} has schema_version {shown(version)}; this mlic-runtime reads {SCHEMA_VERSION}: "
            "update mlic-runtime or export the package again"
        )
    try:
        manifest: Manifest = build(Manifest, data, "manifest")
    except TypedJsonError as error:
        raise ManifestError(f"{MANIFEST_NAME}: {error}") from None
    return manifest


def dump_manifest(manifest: Manifest) -> str:
    """Return the text of manifest.json: UTF-8 JSON, keys in a fixed order, one trailing newline."""
    data = dataclasses.asdict(manifest)
    if manifest.evidence is None:
        del data["evidence"]  # so that older runtimes read the package, too
    ordered = {"schema_version": data.pop("schema_version"), **data}
    return json.dumps(ordered, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _expect(condition: bool, where: str, expected: str, found: object) -> None:
    if not condition:
        raise ManifestError(f"{MANIFEST_NAME}: {must_be(where, expected, found)}")


def _check(manifest: Manifest) -> None:
    """Check the rules that types cannot say."""
    _expect(bool(_NAME.match(manifest.name)), "manifest.name", "letters, digits, '.', '_', '-'", manifest.name)
    _expect(bool(_NAME.match(manifest.version)), "manifest.version", "a version such as 1.0.0", manifest.version)
    _expect(len(manifest.labels) > 0, "manifest.labels", "at least one label", [])
    twice = repeated(label.name for label in manifest.labels)
    _expect(twice is None, "manifest.labels", "labels with unique names", twice)
    for label in manifest.labels:
        # Printable, because names go to terminals and into files with one prediction a line.
        printable = label.name.isprintable() and label.name.strip() != ""
        _expect(printable, "manifest.labels.name", "a name of printable characters", label.name)
        _expect(0.0 <= label.threshold <= 1.0, f"the threshold of {label.name!r}", "in [0, 1]", label.threshold)
    image = manifest.image
    for side in (image.height, image.width):
        limit = limits.MAX_INPUT_SIDE
        _expect(1 <= side <= limit, "manifest.image", f"1 to {limit} pixels a side", side)
    _expect(
        image.interpolation in INTERPOLATIONS, "image.interpolation", f"one of {INTERPOLATIONS}", image.interpolation
    )
    _expect(image.resize in RESIZE_MODES, "image.resize", f"one of {RESIZE_MODES}", image.resize)
    if manifest.text is not None:
        text = manifest.text
        for key, value, limit in (
            ("max_length", text.max_length, limits.MAX_CAPTION_TOKENS),
            ("vocab_size", text.vocab_size, limits.MAX_VOCABULARY),
        ):
            _expect(1 <= value <= limit, f"text.{key}", f"1 to {limit} tokens", value)
        _expect(0 <= text.pad_id < text.vocab_size, "text.pad_id", f"in [0, {text.vocab_size})", text.pad_id)
    if manifest.evidence is not None:
        for side in (manifest.evidence.height, manifest.evidence.width):
            limit = limits.MAX_INPUT_SIDE
            _expect(1 <= side <= limit, "manifest.evidence", f"1 to {limit} places a side", side)
    _check_files(manifest)
    for precision, parity in manifest.parity.items():
        _check_parity(f"parity.{key_name(precision)}", parity)
    _check_speed(manifest)


def _check_files(manifest: Manifest) -> None:
    precisions = manifest.precisions
    _expect(len(precisions) > 0, "manifest.files", "at least one graph (a file with a precision)", list(manifest.files))
    _expect(len(set(precisions)) == len(precisions), "manifest.files", "one graph per precision", precisions)
    for name, spec in manifest.files.items():
        _expect(bool(FILE_NAME.match(name)), "manifest.files", "plain file names inside the package folder", name)
        _expect(
            bool(_SHA256.match(spec.sha256)), f"files.{name}.sha256", "64 lower-case hexadecimal digits", spec.sha256
        )
        other = name in (TOKENIZER_NAME, CARD_NAME)
        limit = limits.MAX_OTHER_FILE_BYTES if other else limits.MAX_GRAPH_BYTES
        _expect(0 <= spec.bytes <= limit, f"files.{name}.bytes", f"0 or more, up to {limit}", spec.bytes)
        graph = spec.precision in PRECISIONS and not other and name != MANIFEST_NAME
        known = graph or (other and spec.precision is None)
        _expect(known, f"files.{name}", f"a graph with a precision, {TOKENIZER_NAME} or {CARD_NAME}", spec.precision)
    has_tokenizer = TOKENIZER_NAME in manifest.files
    _expect(
        has_tokenizer == (manifest.text is not None),
        "manifest.text",
        f"set exactly when {TOKENIZER_NAME} is listed",
        manifest.text,
    )


def _check_parity(where: str, parity: ParitySpec) -> None:
    tolerances = {"shapes": parity.shapes, "atol": parity.atol, "rtol": parity.rtol}
    for name, value in tolerances.items():
        _expect(value >= 0, f"{where}.{name}", "0 or more", value)
    for place, agreement in {
        where: parity,
        **{f"{where}.splits.{key_name(k)}": v for k, v in parity.splits.items()},
    }.items():
        _expect(agreement.rows >= 0, f"{place}.rows", "0 or more", agreement.rows)
        sane = agreement.max_abs_difference >= 0
        _expect(sane, f"{place}.max_abs_difference", "0 or more", agreement.max_abs_difference)
        _expect(0 <= agreement.equal_decisions <= 1, f"{place}.equal_decisions", "in [0, 1]", agreement.equal_decisions)


def _check_speed(manifest: Manifest) -> None:
    one_here = f"one that the package has a graph for ({', '.join(manifest.precisions)})"
    for precision, providers in manifest.latency.items():
        _expect(precision in manifest.precisions, "a precision in manifest.latency", one_here, precision)
        for provider, spec in providers.items():
            where = f"latency.{precision}.{provider}"
            _expect_provider(provider, f"latency.{precision}")
            printable = spec.machine.isprintable() and spec.machine.strip() != ""
            _expect(printable, f"{where}.machine", "a name of printable characters", spec.machine)
            _expect(spec.threads >= 1, f"{where}.threads", "1 or more", spec.threads)
            _expect(spec.runs >= 1, f"{where}.runs", "1 or more", spec.runs)
            sane = 0.0 < spec.p50_ms <= spec.p90_ms < math.inf
            _expect(sane, where, "0 < p50_ms <= p90_ms", (spec.p50_ms, spec.p90_ms))
    for provider, precision in manifest.recommended.items():
        _expect_provider(provider, "recommended")
        _expect(precision in manifest.precisions, f"recommended.{provider}", one_here, precision)


def _expect_provider(provider: str, where: str) -> None:
    _expect(provider in PROVIDERS, f"a provider in manifest.{where}", f"one of {', '.join(PROVIDERS)}", provider)
