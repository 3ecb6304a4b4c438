import json
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from click.testing import CliRunner, Result

from mlic_runtime.base.machine import processor_name
from mlic_runtime.bench import benchmark as bench_module
from mlic_runtime.bench import choose_precision as choosing
from mlic_runtime.bench.choose_precision import choose_precision
from mlic_runtime.bench.inputs import BenchOptions
from mlic_runtime.bench.latency import WORTH_IT
from mlic_runtime.cli.bench import bench
from mlic_runtime.cli.infer import infer
from mlic_runtime.errors import InputError
from mlic_runtime.graph.saved_precision import find_saved_precision, find_saved_provider
from mlic_runtime.graph.session import GraphSession
from mlic_runtime.package.manifest import LatencySpec
from mlic_runtime.package.model_package import ModelPackage, load_package
from mlic_runtime.predict.predictor import Predictor

Measured = Callable[..., None]

QUICK = ["--runs", "2", "--warmup", "1", "--threads", "1"]


@pytest.fixture(autouse=True)
def _use_tiny(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny))


@pytest.fixture
def package(tiny: Path) -> ModelPackage:
    return load_package(tiny)


@pytest.fixture
def took(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Pretend that the precisions took these milliseconds at the median, and twice as many at the 90th percentile.

    `slower` are factors of providers.
    """

    def pretend(slower: Mapping[str, float] = MappingProxyType({}), **p50_ms: float) -> None:
        def measure(sessions: "dict[tuple[str, str], GraphSession]", feed: object, runs: int, **_: object) -> object:
            assert list(dict.fromkeys(precision for _, precision in sessions)) == list(p50_ms)
            times = {key: p50_ms[key[1]] * slower.get(key[0], 1.0) for key in sessions}
            return {
                key: LatencySpec(processor_name(), session.threads, runs, times[key], times[key] * 2)
                for key, session in sessions.items()
            }

        monkeypatch.setattr(choosing, "measure_latency", measure)

    return pretend


def choose(*arguments: str) -> Result:
    return CliRunner().invoke(bench, ["--choose", *QUICK, *arguments])


# --- measuring


def test_every_precision_is_measured_and_the_report_says_how(package: ModelPackage, settings: Path) -> None:
    rounds: list[None] = []
    options = BenchOptions(caption="red", runs=3, warmup=2, threads=1)
    report = choose_precision(package, options, progress=lambda: rounds.append(None))
    assert len(rounds) == 5
    assert (report.model, report.provider, report.threads, report.spin) == ("tiny@1.0.0", "cpu", 1, False)
    assert (report.runs, report.warmup, report.caption, report.tokens) == (3, 2, "red", 1)
    assert [(row.precision, row.bytes) for row in report.precisions] == [("fp32", 898), ("fp16", 856)]
    for row in report.precisions:
        assert 0 < row.p50_ms <= row.p90_ms
    (choice,) = report.choices
    assert report.chosen == choice.precision
    assert choice.p50_ms == {row.precision: row.p50_ms for row in report.precisions}
    assert report.machine["processor"] == choice.processor == processor_name()
    assert report.providers == (), "a provider was asked for"
    assert not {"choices", "providers"} & json.loads(json.dumps(report.to_dict(), allow_nan=False)).keys()
    assert not settings.exists(), "nothing is saved"


@pytest.mark.parametrize("name", ["runs", "warmup"])
def test_numbers_start_at_one(package: ModelPackage, name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be 1 or more, found 0"):
        choose_precision(package, BenchOptions(**{name: 0}))  # type: ignore[arg-type] # one of two ints


# --- mlic-bench --choose


@pytest.mark.parametrize(("fp16", "chosen"), [(9.4, "fp16"), (9.6, "fp32")])
def test_the_choice_is_what_auto_takes_from_then_on(
    took: Measured, package: ModelPackage, settings: Path, fp16: float, chosen: str
) -> None:
    took(fp32=10.0, fp16=fp16)
    result = choose()
    assert result.exit_code == 0
    assert result.stderr == (
        f"Wrote {settings}: from now on --precision auto takes {chosen} on cpu for tiny@1.0.0, "
        "and --provider auto takes cpu.\n"
    )
    assert find_saved_precision(package.manifest, "cpu") == chosen
    predictor = Predictor.load()
    assert (predictor.precision, predictor.precision_reason) == (chosen, "chosen by mlic-bench --choose")


def test_the_table_marks_the_choice(took: Measured) -> None:
    took(fp32=10.0, fp16=5.0)
    head, rows = choose("--caption", "red").stdout.split("\n\n")
    assert "model      tiny@1.0.0\ninput      one picture, 1 tokens a caption\n" in head
    assert "measured   the graph alone, warm: 2 runs after 1, 1 threads\n" in head
    assert rows == (
        "precision  provider         MB     p50 ms     p90 ms\n"
        "fp32       cpu            0.00     10.000     20.000\n"
        "fp16       cpu            0.00      5.000     10.000  chosen\n"
    )


def test_the_report_is_json_too(took: Measured) -> None:
    took(fp32=10.0, fp16=5.0)
    report = json.loads(choose("--format", "json").stdout)
    assert report["command"] == shlex.join(["bench", "--choose", *QUICK, "--format", "json"])
    assert (report["chosen"], report["provider"], report["threads"], report["runs"]) == ("fp16", "cpu", 1, 2)
    assert report["precisions"] == [
        {"provider": "cpu", "precision": "fp32", "bytes": 898, "p50_ms": 10.0, "p90_ms": 20.0},
        {"provider": "cpu", "precision": "fp16", "bytes": 856, "p50_ms": 5.0, "p90_ms": 10.0},
    ]


def test_a_package_with_one_graph_chooses_it(tiny_picture: Path) -> None:
    result = choose("--model", str(tiny_picture))
    assert result.exit_code == 0
    assert result.stdout.endswith("  chosen\n")
    assert find_saved_precision(load_package(tiny_picture).manifest, "cpu") == "fp32"


@pytest.mark.parametrize("arguments", [[], ["--provider", "auto"]])
@pytest.mark.parametrize(("cpu", "chosen"), [(1.0, "cpu"), (1.06, "coreml"), (0.5, "cpu")])
def test_every_provider_that_loads_is_measured_and_the_best_is_what_auto_takes(
    took: Measured,
    package: ModelPackage,
    fake_runtime: Callable[..., object],
    arguments: list[str],
    cpu: float,
    chosen: str,
) -> None:
    fake_runtime(["cuda", "coreml", "cpu"], {"coreml", "cpu"})
    took({"cpu": cpu}, fp32=10.0, fp16=5.0)
    said = choose(*arguments).stderr
    assert "Note: not measured: provider 'cuda' did not load: " in said
    assert f"takes fp16 on coreml and fp16 on cpu for tiny@1.0.0, and --provider auto takes {chosen}.\n" in said
    assert [find_saved_precision(package.manifest, name) for name in ("coreml", "cpu")] == ["fp16", "fp16"]
    predictor = Predictor.load(provider="auto")
    assert (predictor.session.provider, predictor.provider_reason) == (chosen, "chosen by mlic-bench --choose")


def test_a_provider_that_is_asked_for_is_the_only_one(
    took: Measured, package: ModelPackage, fake_runtime: Callable[..., object]
) -> None:
    fake_runtime(["coreml", "cpu"], {"coreml", "cpu"})
    took(fp32=10.0, fp16=5.0)
    assert "--precision auto takes fp16 on cpu for tiny@1.0.0.\n" in choose("--provider", "cpu").stderr
    assert find_saved_precision(package.manifest, "coreml") is None
    assert find_saved_provider(package.manifest) is None


def test_a_chosen_provider_that_is_gone_is_said(took: Measured, fake_runtime: Callable[..., object]) -> None:
    fake_runtime(["coreml", "cpu"], {"coreml", "cpu"})
    took({"cpu": 2.0}, fp32=10.0, fp16=5.0)
    assert "--provider auto takes coreml." in choose().stderr
    fake_runtime(["cpu"], {"cpu"})
    predictor = Predictor.load(provider="auto")
    assert predictor.provider_reason == (
        "the best that loads here; 'coreml', chosen by mlic-bench --choose, is not offered here"
    )
    fake_runtime(["coreml", "cpu"], {"cpu"})
    predictor = Predictor.load(provider="auto")
    assert predictor.provider_reason.startswith("the best that loads here; provider 'coreml' did not load: ")


def test_a_broken_file_is_replaced_and_that_is_said(took: Measured, settings: Path) -> None:
    settings.parent.mkdir()
    settings.write_text("nonsense")
    refused = CliRunner().invoke(infer, [os.devnull])
    assert refused.exit_code == 1
    assert refused.stderr.startswith(f"Error: '{settings}' is not valid JSON: ")
    assert refused.stderr.endswith(": remove it, or run mlic-bench --choose again\n")
    took(fp32=10.0, fp16=5.0)
    result = choose()
    assert result.exit_code == 0
    assert result.stderr.startswith("Note: replaced a file that is not valid JSON: ")
    assert Predictor.load().precision == "fp16"


def test_a_choice_that_cannot_be_written_is_an_error(settings: Path) -> None:
    settings.mkdir(parents=True)
    result = choose()
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: cannot write ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--precision", "fp16"], "'--choose' and '--precision' exclude each other."),
        (["--precision", "auto"], "'--choose' and '--precision' exclude each other."),
        (["--against", "pytorch"], "'--choose' and '--against' exclude each other."),
        (["--checkpoint", "runs/x"], "'--choose' and '--checkpoint' exclude each other."),
        (["--batch-size", "2"], "'--choose' measures one picture at a time; found '--batch-size' 2."),
    ],
)
def test_options_that_do_not_go_with_it_are_wrong_usage(settings: Path, arguments: list[str], message: str) -> None:
    result = choose(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not settings.exists()
    assert choose("--batch-size", "1").exit_code == 0


def test_bench_itself_saves_nothing(settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "entry_points", lambda group: [])
    assert CliRunner().invoke(bench, QUICK).exit_code == 0
    assert not settings.exists()


# --- what the commands say


def test_help_says_what_auto_is_and_when_a_precision_earns_its_place() -> None:
    shown = " ".join(CliRunner().invoke(bench, ["--help"]).stdout.split())
    assert "--precision [fp32|fp16|int8-full|int8|auto]" in shown
    assert "[default: auto]" in shown
    assert f"at least {WORTH_IT * 100:.0f} % faster at the median" in shown


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "tiny@1.0.0: fp32 on cpu, 2 threads (precision: the package's first; graph: from the cache)\n"),
        (
            ["--threads", "1"],
            "tiny@1.0.0: fp32 on cpu, 1 thread (precision: the package's first; graph: from the cache)\n",
        ),
        (["--precision", "fp16"], "tiny@1.0.0: fp16 on cpu, 2 threads (precision: as asked; graph: from the cache)\n"),
    ],
)
def test_verbose_says_what_runs_and_why(arguments: list[str], line: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("caption\nred\n")
    options = ["--input", str(tmp_path / "rows.csv"), "--threads", "2", *arguments]
    silent, verbose = (CliRunner().invoke(infer, [*options, *flag]) for flag in ([], ["-v"]))
    assert (silent.exit_code, silent.stderr) == (0, "")
    assert (verbose.exit_code, verbose.stderr) == (0, line)
    assert verbose.stdout == silent.stdout


def test_verbose_names_a_choice_and_a_recommendation(
    took: Measured, tiny_copy: Path, edit_manifest: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLIC_MODEL", str(tiny_copy))
    edit_manifest(tiny_copy, lambda data: data.update(recommended={"cpu": "fp16"}))
    (tmp_path / "rows.csv").write_text("caption\nred\n")
    command = ["--input", str(tmp_path / "rows.csv"), "--verbose"]
    assert "fp16 on cpu, " in (said := CliRunner().invoke(infer, command).stderr)
    assert said.endswith(" (precision: recommended by the package; graph: added to the cache)\n")
    took(fp32=10.0, fp16=11.0)
    assert choose().exit_code == 0
    assert "fp32 on cpu, " in (said := CliRunner().invoke(infer, command).stderr)
    assert said.endswith(" (precision: chosen by mlic-bench --choose; graph: from the cache)\n")
