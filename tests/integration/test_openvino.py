"""The provider "openvino" with the real package."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from mlic_runtime import Predictor
from mlic_runtime.bench.inputs import package_inputs
from mlic_runtime.cli.bench import bench
from mlic_runtime.cli.infer import infer
from mlic_runtime.graph.opening import open_graph
from mlic_runtime.package.model_package import ModelPackage, load_package
from tests.serving import SECONDS, server

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "data" / "tiny"
PICTURES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".jpg", ".png"))
CAPTION = "A dog runs along the beach"


@pytest.fixture(autouse=True)
def graph_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's optimised graphs lie."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "cache" / "mlic" / "graphs"


@pytest.fixture
def released() -> ModelPackage:
    return load_package(ROOT / "exported" / "hybrid")


@pytest.mark.parametrize(("precision", "atol"), [("fp32", 1e-4), ("int8", 0.5)])
def test_the_released_graphs_give_the_same_answers(released: ModelPackage, precision: str, atol: float) -> None:
    """int8 rounds at other places: its logits differ by a part of what int8 costs, and the decisions do not."""
    path = released.path
    ours = Predictor.load(path, precision=precision, threads=1)
    other = Predictor.load(path, provider="openvino", precision=precision, threads=1)
    assert other.session.library.startswith("openvino 20")
    for size in (1, 2, 3):
        inputs = package_inputs(released, image=PICTURES[0], caption=CAPTION, batch_size=size)
        found = other.session.run(*inputs.arrays)
        np.testing.assert_allclose(found, ours.session.run(*inputs.arrays), atol=atol)
        np.testing.assert_allclose(found, np.repeat(found[:1], size, axis=0), atol=1e-4)
        alone = other.session.run(*package_inputs(released, image=PICTURES[0], caption=CAPTION).arrays)
        np.testing.assert_allclose(found[:1], alone, atol=1e-4)
    for picture in PICTURES:
        assert other.predict(picture, CAPTION).labels == ours.predict(picture, CAPTION).labels


def test_the_second_load_is_from_the_cache_and_gives_the_same(released: ModelPackage, graph_cache: Path) -> None:
    inputs = package_inputs(released, caption=CAPTION)
    logits: list[npt.NDArray[np.float32]] = []
    for origin in ("added to the cache", "from the cache"):
        opened = open_graph(released, provider="openvino", precision="int8", threads=1)
        assert opened.origin == origin
        logits.append(opened.session.run(*inputs.arrays))
    np.testing.assert_array_equal(logits[0], logits[1])
    (entry,) = graph_cache.iterdir()
    assert "-openvino-" in entry.name
    assert entry.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", ["bytes", "others may write"])
def test_an_entry_that_cannot_be_trusted_is_replaced(graph_cache: Path, damage: str) -> None:
    package = load_package(TINY)
    open_graph(package, provider="openvino", precision="fp32")
    (entry,) = graph_cache.iterdir()
    if damage == "bytes":
        content = bytearray(entry.read_bytes())
        content[len(content) // 2] ^= 1
        entry.write_bytes(content)
    else:
        entry.chmod(0o666)
    opened = open_graph(package, provider="openvino", precision="fp32")
    assert opened.origin.startswith("replaced in the cache: ")


@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_reaches_openvino(threads: int) -> None:
    session = open_graph(load_package(TINY), provider="openvino", threads=threads, cache=False).session
    assert session.threads == threads
    (request,) = session._session._requests.values()
    assert request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == threads


def test_threads_get_what_they_would_get_alone() -> None:
    predictor = Predictor.load(TINY, provider="openvino", threads=1)
    random = np.random.default_rng(0)
    rows = [(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), caption) for caption in ("red", "green no", "") * 40]
    alone = [predictor.predict(*row) for row in rows]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: predictor.predict(*row), rows)) == alone
    assert len({tuple(each.probabilities.items()) for each in alone}) == len(rows), "the rows differ"


def test_batches_of_any_size_run() -> None:
    predictor = Predictor.load(TINY, provider="openvino", threads=1)
    other = Predictor.load(TINY, threads=1)
    for size in (1, 3, 2, 0, 5):
        pixels = np.full((size, 6, 8, 3), 200, dtype=np.uint8)
        tokens = np.ones((size, 2), dtype=np.int64)
        found, expected = (each.session.run(pixels, tokens, tokens) for each in (predictor, other))
        np.testing.assert_allclose(found, expected, atol=1e-5)


PROGRAM = """
import os, sys
import numpy as np
from mlic_runtime import MlicError, Predictor

def load():
    return Predictor.load(sys.argv[1], provider="openvino", threads=2)

picture = np.zeros((6, 8, 3), np.uint8)
predictor = load()
expected = predictor.predict(picture, "red")
{before}
child = os.fork()
if child == 0:
    for action in (lambda: predictor.predict(picture, "red"), load):
        try:
            action()
        except (MlicError, AttributeError) as error:
            print(type(error).__name__, flush=True)
    sys.exit(3)
_, status = os.waitpid(child, 0)
assert load().predict(picture, "red") == expected
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [("", ["ProviderError", "ProviderError", "3"]), ("predictor = None", ["AttributeError", "ProviderError", "3"])],
    ids=["loaded", "loaded and dropped"],
)
def test_a_fork_gets_an_error_and_ends(before: str, said: list[str]) -> None:
    """A run there would wait without end, and to free what it inherited aborts."""
    command = [sys.executable, "-c", PROGRAM.format(before=before), str(TINY)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # The limit turns a hang into a failure.
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == said


def test_it_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    """OpenVINO's telemetry would leave an identifier there."""
    home = tmp_path / "home"
    home.mkdir()
    command = [sys.executable, "-m", "mlic_runtime.cli", str(PICTURES[0]), CAPTION, "--provider", "openvino"]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "MLIC_MODEL": str(ROOT / "exported/hybrid"),
    }
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(home.iterdir()) == []


def test_choose_measures_it_and_auto_remembers() -> None:
    options = ["--model", str(TINY), "--threads", "1"]
    result = CliRunner().invoke(bench, ["--choose", "--runs", "3", "--warmup", "1", *options])
    assert result.exit_code == 0, result.stderr
    measured = [line.split()[:2] for line in result.stdout.splitlines() if line.startswith("fp")]
    assert measured == [[precision, name] for name in ("cpu", "openvino") for precision in ("fp32", "fp16")]
    chosen = result.stdout.split("chosen")[0].splitlines()[-1].split()[:2]
    said = CliRunner().invoke(infer, [str(PICTURES[0]), "red", "--provider", "auto", "-v", *options]).stderr
    assert f"{chosen[0]} on {chosen[1]}, " in said
    assert "provider: chosen by mlic-bench --choose" in said


def test_a_batch_takes_it(tmp_path: Path) -> None:
    output = tmp_path / "labels.jsonl"
    arguments = ["--input", str(ROOT / "examples"), "--model", str(TINY), "--output", str(output)]
    result = CliRunner().invoke(infer, [*arguments, "--provider", "openvino", "--workers", "2"])
    assert result.exit_code == 0, result.output
    assert len(output.read_text("utf-8").splitlines()) == len(PICTURES)


def test_the_server_takes_it() -> None:
    picture = PICTURES[0].read_bytes()
    expected = Predictor.load(TINY, provider="openvino").predict(picture, "red", evidence=True).to_dict()
    with server(TINY, "--provider", "openvino") as (_, port):
        address = f"http://127.0.0.1:{port}"
        assert httpx.get(f"{address}/v1/models").json()["models"][0]["provider"] == "openvino"
        # One after the other: in a shared run of the graph the last bits could differ.
        for evidence in (False, True):
            form = {"caption": "red", "evidence": str(evidence)}
            answer = httpx.post(f"{address}/v1/predict", data=form, files={"image": picture}, timeout=SECONDS)
            assert answer.status_code == 200, answer.text
            wanted = expected if evidence else {name: expected[name] for name in expected if name != "evidence"}
            assert answer.json() == wanted


def test_requests_at_once_get_the_same_labels_from_the_server() -> None:
    predictor = Predictor.load(TINY, provider="openvino")
    expected = [predictor.predict(path.read_bytes(), "red") for path in PICTURES] * 4

    def ask(path: Path) -> httpx.Response:
        files = {"image": path.read_bytes()}
        return httpx.post(f"http://127.0.0.1:{port}/v1/predict", data={"caption": "red"}, files=files, timeout=SECONDS)

    with server(TINY, "--provider", "openvino") as (_, port), ThreadPoolExecutor(6) as pool:
        for prediction, answer in zip(expected, pool.map(ask, PICTURES * 4), strict=True):
            assert answer.status_code == 200, answer.text
            assert answer.json()["labels"] == list(prediction.labels)
            assert answer.json()["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-4)
