"""The engines that `rivals.py` compares: how each converts the released model, loads it, and runs it on one thread.

An engine works in a folder with what they share (`write_inputs`), and keeps what it converted there.
"""

import importlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mlic_runtime import load_package
from mlic_runtime.graph.session import ATTENTION_MASK, INPUT_IDS, LOGITS, PIXELS, create_session
from mlic_runtime.package.model_package import ModelPackage
from mlic_runtime.providers.library import onnxruntime
from mlic_runtime.providers.openvino import load_library

Array = npt.NDArray[Any]
Floats32 = npt.NDArray[np.float32]
Run = Callable[..., Floats32]

WHOLE, BACKBONE = "whole model", "backbone alone"
INPUTS = (PIXELS, INPUT_IDS, ATTENTION_MASK)
PICTURE, FEATURES = "picture", "features"  # input (1, 3, H, W) and output (1, C, h, w) of the backbone
HEAD = "head.onnx"  # pixels, tokens and features in, logits out, in fp32
CALIBRATION = "calibration.npz"
SKIPPED = "fp16"  # a precision for other devices than CPUs


@dataclass(frozen=True)
class Sources:
    """What an engine converts: a model package and the run folder that it was exported from.

    Attributes:
        package: the folder of the package.
        run: the run folder.
        folder: where conversions lie, and what `rivals.py` wrote before: graphs of the backbone, calibration rows.
    """

    package: Path
    run: Path
    folder: Path

    def graph(self, scope: str, precision: str) -> bytes:
        """Return the ONNX file of the whole model, or of its backbone with a fixed shape."""
        if scope == WHOLE:
            return load_package(self.package).read_graph(precision)
        return (self.folder / backbone_name(precision)).read_bytes()


@dataclass(frozen=True)
class Engine:
    """One row of the table.

    Attributes:
        name: of the row.
        library: what computes; rows of one library have one colour.
        scope: WHOLE, whose run takes (pixels, ids, mask), or BACKBONE, whose run takes (1, 3, H, W) float32.
        load: makes the run from what `convert` left.
        convert: works once, in a process of its own.
    """

    name: str
    library: str
    scope: str
    load: Callable[[Sources], Run]
    convert: Callable[[Sources], None] = lambda sources: None

    @property
    def key(self) -> str:
        """A name for files and for the command line."""
        return "".join(char if char.isalnum() else "-" for char in f"{self.scope} {self.name}".lower())


def backbone_name(precision: str) -> str:
    """Return the name of the file with the backbone's graph."""
    return f"backbone.{precision}.onnx"


def engines(package: ModelPackage) -> list[Engine]:
    """Return all rivals, the runtime's own first."""
    precisions = [precision for precision in package.manifest.precisions if precision != SKIPPED]
    found = []
    for precision in precisions:
        found.append(Engine(f"MLIC, {precision}", "MLIC", WHOLE, partial(_runtime, precision, "cpu")))
    for precision in precisions:
        load = partial(_runtime, precision, "openvino")
        found.append(Engine(f"MLIC --provider openvino, {precision}", "MLIC", WHOLE, load))
    for scope in (WHOLE, BACKBONE):
        for precision in precisions:
            found.append(
                Engine(f"ONNX Runtime, {precision}", "ONNX Runtime", scope, partial(_onnxruntime, scope, precision))
            )
        for precision in precisions:
            found.append(Engine(f"OpenVINO, {precision}", "OpenVINO", scope, partial(_openvino, scope, precision)))
        found.append(
            Engine("OpenVINO, NNCF int8", "OpenVINO", scope, partial(_load_nncf, scope), partial(_nncf, scope))
        )
        found.append(Engine("MNN, fp32", "MNN", scope, partial(_load_mnn, scope), partial(_mnn, scope)))
        found.append(Engine("ncnn, fp32", "ncnn", scope, partial(_load_ncnn, scope), partial(_ncnn, scope)))
        found.append(Engine("LiteRT, fp32", "LiteRT", scope, partial(_load_litert, scope), partial(_litert, scope)))
        if scope == BACKBONE:  # of a whole model that LiteRT does not convert there is nothing to quantise
            found.append(Engine("LiteRT, int8", "LiteRT", scope, _load_litert_int8, _litert_int8))
        for compiled, channels_last in ((False, False), (False, True), (True, False), (True, True)):
            name = ("torch.compile" if compiled else "PyTorch eager") + (", channels_last" if channels_last else "")
            found.append(Engine(name, "PyTorch", scope, partial(_pytorch, scope, compiled, channels_last)))
    return found


# ONNX Runtime


def _runtime(precision: str, provider: str, sources: Sources) -> Run:
    return create_session(sources.graph(WHOLE, precision), provider=provider, threads=1).run


def _onnxruntime(scope: str, precision: str, sources: Sources) -> Run:
    """Run with the default options, but for the number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(sources.graph(scope, precision), options, providers=["CPUExecutionProvider"])
    names, output = _names(scope)

    def run(*arrays: Array) -> Floats32:
        found: Floats32 = session.run([output], dict(zip(names, arrays, strict=True)))[0]
        return found

    return run


def head(sources: Sources) -> Run:
    """Return what makes logits of (pixels, ids, mask, features), in fp32."""
    session = onnxruntime.InferenceSession(str(sources.folder / HEAD), providers=["CPUExecutionProvider"])
    names = (*INPUTS, FEATURES)

    def run(*arrays: Array) -> Floats32:
        found: Floats32 = session.run([LOGITS], dict(zip(names, arrays, strict=True)))[0]
        return found

    return run


# OpenVINO

# f32: otherwise a CPU with bfloat16 computes float32 graphs in bfloat16, which is another model.
_ONE_THREAD = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}


def _openvino(scope: str, precision: str, sources: Sources) -> Run:
    return _compiled(scope, load_library().Core().read_model(sources.graph(scope, precision)))


def _compiled(scope: str, model: Any) -> Run:
    request = load_library().Core().compile_model(model, "CPU", _ONE_THREAD).create_infer_request()
    names, output = _names(scope)
    return lambda *arrays: np.array(request.infer(dict(zip(names, arrays, strict=True)), share_inputs=True)[output])


def _nncf(scope: str, sources: Sources) -> None:
    """Quantise after training with NNCF's defaults; of the whole model only the backbone.

    NNCF breaks the caption's LSTM, or ends with an error of its own.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment] # NNCF imports it, and it reports to its makers
    openvino, nncf = load_library(), importlib.import_module("nncf")
    model = openvino.Core().read_model(sources.graph(scope, "fp32"))
    with np.load(sources.folder / CALIBRATION) as stored:
        rows = _rows(stored) if scope == WHOLE else [(picture[np.newaxis],) for picture in stored[PICTURE]]
    names, _ = _names(scope)
    ignored = [
        node.get_friendly_name()
        for node in model.get_ops()
        if scope == WHOLE
        and "backbone" not in node.get_friendly_name()
        and node.get_type_name() not in ("Constant", "Parameter", "Result")
    ]
    quantised = nncf.quantize(
        model,
        nncf.Dataset([dict(zip(names, row, strict=True)) for row in rows]),
        subset_size=len(rows),
        ignored_scope=nncf.IgnoredScope(names=ignored, validate=False),
    )
    openvino.save_model(quantised, _nncf_file(scope, sources), compress_to_fp16=False)


def _load_nncf(scope: str, sources: Sources) -> Run:
    return _compiled(scope, load_library().Core().read_model(_nncf_file(scope, sources)))


def _nncf_file(scope: str, sources: Sources) -> Path:
    return sources.folder / f"nncf-{_short(scope)}.xml"


# MNN


def _mnn(scope: str, sources: Sources) -> None:
    source = sources.folder / f"mnn-{_short(scope)}.onnx"
    source.write_bytes(_without_uint8_maximum(sources.graph(scope, "fp32")))
    files = ["--modelFile", str(source), "--MNNModel", str(_mnn_file(scope, sources))]
    _call("mnnconvert", "-f", "ONNX", "--bizCode", "mlic", *files)


def _without_uint8_maximum(graph: bytes) -> bytes:
    """Return a graph that casts pixels to float before it takes their maximum, which MNN cannot take of uint8."""
    import onnx

    model = onnx.load_from_string(graph)
    types = {
        one.name: one.type.tensor_type.elem_type for one in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    for index, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type == "ReduceMax" and types.get(node.input[0]) == onnx.TensorProto.UINT8:
            cast = onnx.helper.make_node(
                "Cast", [node.input[0]], [f"{node.input[0]}_float"], to=onnx.TensorProto.FLOAT, name=f"{node.name}/Cast"
            )
            node.input[0] = cast.output[0]
            model.graph.node.insert(index, cast)
    del model.graph.value_info[:]  # says that the maximum is uint8
    return bytes(model.SerializeToString())


def _load_mnn(scope: str, sources: Sources) -> Run:
    library = importlib.import_module("MNN")
    library.expr.set_global_executor_config(0, 1, 1)  # CPU, high precision, one thread; the module's own is not enough
    names, output = _names(scope)
    net = library.nn.load_module_from_file(
        str(_mnn_file(scope, sources)), list(names), [output], backend=0, thread_mode=1, precision_mode=1
    )
    kinds = {  # MNN has no int64
        "uint8": (np.uint8, library.expr.uint8),
        "int64": (np.int32, library.expr.int),
        "float32": (np.float32, library.expr.float),
    }
    layout = library.expr.NCHW

    def run(*arrays: Array) -> Floats32:
        given = []
        for array in arrays:
            dtype, kind = kinds[str(array.dtype)]
            given.append(library.expr.const(np.ascontiguousarray(array, dtype), list(array.shape), layout, kind))
        found = net.forward(given)
        if not found:
            raise RuntimeError("MNN converts it, and gives no result")
        return np.array(library.expr.convert(found[0], layout).read(), dtype=np.float32)

    return run


def _mnn_file(scope: str, sources: Sources) -> Path:
    return sources.folder / f"{_short(scope)}.mnn"


# ncnn


def _ncnn(scope: str, sources: Sources) -> None:
    package = load_package(sources.package)
    sides = (package.manifest.image.height, package.manifest.image.width)
    shapes = f"[1,3,{sides[0]},{sides[1]}]"
    if scope == WHOLE:
        shapes = f"[1,{sides[0]},{sides[1]},3]u8,[1,12]i64,[1,12]i64"
    folder = _ncnn_folder(scope, sources)
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(sources.graph(scope, "fp32"))
    _call("pnnx", "model.onnx", f"inputshape={shapes}", "fp16=0", folder=folder)


def _load_ncnn(scope: str, sources: Sources) -> Run:
    library = importlib.import_module("ncnn")
    folder = _ncnn_folder(scope, sources)
    net = library.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_arithmetic = net.opt.use_fp16_storage = net.opt.use_fp16_packed = False
    net.opt.use_bf16_storage = False
    files = [str(folder / f"model.ncnn.{kind}") for kind in ("param", "bin")]
    if net.load_param(files[0]) or net.load_model(files[1]):
        raise RuntimeError("ncnn does not load what pnnx wrote")

    def run(*arrays: Array) -> Floats32:
        with net.create_extractor() as extractor:
            for index, array in enumerate(arrays):
                extractor.input(f"in{index}", library.Mat(array[0]))
            failed, found = extractor.extract("out0")
            if failed:
                raise RuntimeError(f"ncnn fails when it runs it ({failed})")
            return np.array(found)[np.newaxis]

    return run


def _ncnn_folder(scope: str, sources: Sources) -> Path:
    return sources.folder / f"ncnn-{_short(scope)}"


# LiteRT


def _litert(scope: str, sources: Sources) -> None:
    import torch

    litert = importlib.import_module("litert_torch")
    with np.load(sources.folder / CALIBRATION) as stored:
        row = _rows(stored)[0] if scope == WHOLE else (stored[PICTURE][:1].transpose(0, 2, 3, 1).copy(),)
    model = _torch_model(scope, sources)
    converted = litert.convert(
        model if scope == WHOLE else _channels_last_backbone(model), tuple(torch.from_numpy(array) for array in row)
    )
    part = _litert_file(scope, sources).with_suffix(f".{os.getpid()}")  # two engines may convert at once
    converted.export(str(part))
    part.replace(_litert_file(scope, sources))


def _channels_last_backbone(backbone: Any) -> Any:
    """Return the backbone with NHWC at both ends, as LiteRT computes."""
    import torch

    class ChannelsLast(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, picture: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.backbone(picture.permute(0, 3, 1, 2))
            return features.permute(0, 2, 3, 1)

    return ChannelsLast().eval()


def _litert_int8(sources: Sources) -> None:
    """Quantise weights and activations after training, but for the numbers that go in and come out."""
    if not (float_file := _litert_file(BACKBONE, sources)).exists():
        _litert(BACKBONE, sources)
    quantizer, recipe, qtyping = (
        importlib.import_module(f"ai_edge_quantizer.{name}") for name in ("quantizer", "recipe", "qtyping")
    )
    made = quantizer.Quantizer(str(float_file))
    made.load_quantization_recipe(recipe.static_wi8_ai8())
    for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        made.update_quantization_recipe(regex=".*", operation_name=end, algorithm_key="no_quantize")
    (signature, ends), *_ = _litert_interpreter(float_file).get_signature_list().items()
    with np.load(sources.folder / CALIBRATION) as stored:
        pictures = stored[PICTURE].transpose(0, 2, 3, 1)
    ranges = made.calibrate({signature: [{ends["inputs"][0]: one[np.newaxis].copy()} for one in pictures]})
    made.quantize(ranges).export_model(str(_int8_file(sources)), overwrite=True)


def _load_litert_int8(sources: Sources) -> Run:
    return _litert_run(BACKBONE, _int8_file(sources))


def _int8_file(sources: Sources) -> Path:
    return sources.folder / "backbone.int8.tflite"


def _litert_interpreter(file: Path) -> Any:
    library = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = library.Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def _load_litert(scope: str, sources: Sources) -> Run:
    return _litert_run(scope, _litert_file(scope, sources))


def _litert_run(scope: str, file: Path) -> Run:
    interpreter = _litert_interpreter(file)
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(*arrays: Array) -> Floats32:
        for detail, array in zip(inputs, arrays, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        found: Floats32 = interpreter.get_tensor(outputs[0]["index"])
        return found

    if scope == WHOLE:
        return run
    # A user of LiteRT has NHWC anyway: the arrays here are views, so that the runs copy what set_tensor copies.
    return lambda picture: run(picture.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _litert_file(scope: str, sources: Sources) -> Path:
    return sources.folder / f"{_short(scope)}.tflite"


# PyTorch


def _torch_model(scope: str, sources: Sources) -> Any:
    from mlic_train.runs.folder import load_trained

    model = load_trained(sources.run).model
    return model if scope == WHOLE else model.backbone


def reference(sources: Sources) -> Run:
    """Return the model in fp32 PyTorch, which all logits are compared with."""
    return _pytorch(WHOLE, False, False, sources)


def _pytorch(scope: str, compiled: bool, channels_last: bool, sources: Sources) -> Run:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(sources.folder / "inductor")
    import torch

    torch.set_num_threads(1)
    model = _torch_model(scope, sources)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if compiled:
        model = torch.compile(model)

    def run(*arrays: Array) -> Floats32:
        tensors = [torch.from_numpy(array) for array in arrays]
        if channels_last and scope == BACKBONE:  # the whole model reads NHWC pixels
            tensors = [tensor.contiguous(memory_format=torch.channels_last) for tensor in tensors]
        with torch.inference_mode():
            found: Floats32 = model(*tensors).numpy()
        return found

    return run


# What they share


def write_inputs(sources: Sources, package: ModelPackage) -> None:
    """Write the graphs of the backbone in each precision, and that of the rest of the model in fp32.

    Raises:
        ValueError: the graph does not have a backbone behind a normalisation, by the names of its nodes.
    """
    import onnx
    from onnx.utils import Extractor

    image = package.manifest.image
    full = onnx.shape_inference.infer_shapes(onnx.load_from_string(package.read_graph("fp32")))
    first, last = _ends(full)
    for precision in package.manifest.precisions:
        if precision == SKIPPED:
            continue
        model = onnx.load_from_string(package.read_graph(precision))
        _quantize_picture(model, onnx, first)
        made = {name for node in model.graph.node for name in (*node.input, *node.output)}
        if not {first, last} <= made:
            continue  # the engine then names the missing file
        end = _dequantized(model, last)
        _declare(model, onnx, {first: [1, 3, image.height, image.width], end: None})
        part = Extractor(model).extract_model([first], [end])
        _rename(part, {first: PICTURE, end: FEATURES})
        part = onnx.shape_inference.infer_shapes(part)
        (sources.folder / backbone_name(precision)).write_bytes(part.SerializeToString())
    part = Extractor(full).extract_model([*INPUTS, last], [LOGITS])
    _rename(part, {last: FEATURES})
    (sources.folder / HEAD).write_bytes(part.SerializeToString())


def _ends(model: Any) -> tuple[str, str]:
    """Return the first and the last tensor of the backbone."""
    inside = [node for node in model.graph.node if node.name.startswith("/backbone/")]
    made = {name for node in inside for name in node.output}
    constants = {one.name for one in model.graph.initializer}
    first = {name for node in inside for name in node.input if name and name not in made | constants}
    others = [node for node in model.graph.node if not node.name.startswith("/backbone/")]
    last = {name for node in others for name in node.input if name in made}
    if len(first) != 1 or len(last) != 1 or not next(iter(first)).startswith("/normalize/"):
        raise ValueError(
            f"expected one tensor into the backbone, of /normalize/, and one out of it; found {first}, {last}"
        )
    return first.pop(), last.pop()


def _quantize_picture(model: Any, onnx: Any, first: str) -> None:
    """Let an int8 backbone that reads pixels read the normalised picture `first`, quantized to those pixels again.

    The picture is quantized as the pixels are: exact to a level of 255 where all channels are normalised alike.
    Another graph stays as it is.
    """
    planes = {node.output[0] for node in model.graph.node if node.op_type == "Transpose" and node.input[0] == PIXELS}
    readers = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in planes]
    for reader in readers:
        name = f"{reader.name}_quantized"
        quantize = onnx.helper.make_node("QuantizeLinear", [first, *reader.input[1:]], [name], name=name)
        model.graph.node.insert(list(model.graph.node).index(reader), quantize)
        reader.input[0] = name


def _dequantized(model: Any, name: str) -> str:
    """Return the tensor after the quantisation of `name`, which includes its ReLU6; `name` where there is none."""
    for kind in ("QuantizeLinear", "DequantizeLinear"):
        name = next((one.output[0] for one in model.graph.node if one.op_type == kind and one.input[0] == name), name)
    return name


def _declare(model: Any, onnx: Any, shapes: Mapping[str, list[int] | None]) -> None:
    """Say the shapes of inner tensors, which they need to become inputs and outputs."""
    kept = [one for one in model.graph.value_info if one.name not in shapes]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    for name, shape in shapes.items():
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))


def _rename(model: Any, names: Mapping[str, str]) -> None:
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for one in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        one.name = names.get(one.name, one.name)


def write_rows(file: Path, rows: list[tuple[Array, Array, Array]], pictures: Array | None = None) -> None:
    """Write rows of (pixels, ids, mask), each with one row, and what the backbone reads of them."""
    longest = max(ids.shape[1] for _, ids, _ in rows)
    ids, masks = (
        np.concatenate([np.pad(row[index], ((0, 0), (0, longest - row[index].shape[1]))) for row in rows])
        for index in (1, 2)
    )
    more = {} if pictures is None else {PICTURE: pictures}
    arrays: dict[str, Any] = {
        PIXELS: np.concatenate([row[0] for row in rows]),
        INPUT_IDS: ids,
        ATTENTION_MASK: masks,
        **more,
    }
    np.savez(file, **arrays)


def read_rows(file: Path) -> list[tuple[Array, Array, Array]]:
    """Return what `write_rows` wrote, each row as long as its caption."""
    with np.load(file) as stored:
        return _rows(stored)


def _rows(stored: Mapping[str, Array]) -> list[tuple[Array, Array, Array]]:
    pixels, ids, masks = (stored[name] for name in INPUTS)
    lengths = masks.sum(axis=1).clip(1)
    return [
        (pixels[row : row + 1], ids[row : row + 1, :length].copy(), masks[row : row + 1, :length].copy())
        for row, length in enumerate(lengths)
    ]


def _names(scope: str) -> tuple[tuple[str, ...], str]:
    return (INPUTS, LOGITS) if scope == WHOLE else ((PICTURE,), FEATURES)


def _short(scope: str) -> str:
    return scope.partition(" ")[0]


def _call(script: str, *arguments: str, folder: Path | None = None) -> None:
    """Run a program of this environment.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    command = [str(Path(sysconfig.get_path("scripts")) / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, cwd=folder)
    print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(f"{script} ended with {done.returncode}: {' '.join(said[-2:])[-200:]}")
