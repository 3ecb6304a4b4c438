from pathlib import Path

import pytest

from mlic_train.errors import ConfigError
from mlic_train.sweep.space import GRIDS, Parameter, Space, read_space


def read(folder: Path, text: str) -> Space:
    file = folder / "space.toml"
    file.write_text(text, encoding="utf-8")
    return read_space(file)


def test_the_preset_is_the_origins_grid() -> None:
    grid = GRIDS["origin"].grid()
    assert len(grid) == 16
    assert {tuple(point) for point in grid} == {("dropout", "batch_size", "epochs", "learning_rate")}
    expected = {(d, b, e, r) for d in (0.5, 0.7) for b in (30, 50) for e in (1, 3) for r in (0.001, 0.01)}
    assert {tuple(point.values()) for point in grid} == expected


def test_a_space_is_read_from_toml(tmp_path: Path) -> None:
    space = read(
        tmp_path,
        """
        [learning_rate]
        low = 1e-4
        high = 1e-2
        log = true
        [dropout]
        choices = [0, 0.5]
        [width]
        low = 64
        high = 200
        step = 64
        [word_dropout]
        low = 0
        high = 0.3
        step = 0.1
        [backbone]
        choices = ["conv3", "tf_efficientnet_lite0"]
        [horizontal_flip]
        choices = [true, false]
        """,
    )
    assert space.parameters == (
        Parameter("learning_rate", (), 1e-4, 1e-2, log=True),
        Parameter("dropout", (0.0, 0.5)),
        Parameter("width", (), 64, 192, step=64),
        Parameter("word_dropout", (), 0.0, 0.3, step=0.1),
        Parameter("backbone", ("conv3", "tf_efficientnet_lite0")),
        Parameter("horizontal_flip", (True, False)),
    )
    assert isinstance(space.parameters[1].choices[0], float)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[dropout", "space.toml cannot be read as TOML"),
        ("", "names no parameter"),
        ("[dropuot]\nchoices = [0.5]", "'dropuot' is not a parameter that can be searched; did you mean 'dropout'?"),
        ("[labels]\nchoices = ['a']", "'labels' is not a parameter that can be searched"),
        ("[mean]\nchoices = [0.5]", "'mean' is not a parameter that can be searched"),
        ("dropout = 0.5", "[dropout] must be a table with choices, or with low and high; found 0.5"),
        ("[dropout]\nchoice = [0.5]", "[dropout] has the unknown key 'choice'; known: choices,"),
        ("[dropout]\nchoices = []", "[dropout] needs at least one value"),
        ("[dropout]\nchoices = 0.5", "[dropout] needs at least one value"),
        ("[dropout]\nchoices = [0.5, 0.5]", "[dropout] lists 0.5 twice"),
        ("[dropout]\nchoices = [0.5, 'much']", "[dropout] dropout must be float, found 'much'"),
        ("[dropout]\nchoices = [true]", "[dropout] dropout must be float, found True"),
        ("[dropout]\nchoices = [0.5, 2]", "[dropout] dropout is 2.0; it must be from 0 to 0.95"),
        ("[epochs]\nchoices = [1.5]", "[epochs] epochs must be int, found 1.5"),
        ("[loss]\nchoices = ['hinge']", "[loss] loss is 'hinge'; choose one of: bce,"),
        ("[loss]\nlow = 'bce'\nhigh = 'bce'", "[loss] takes no numbers, so it has no range; give choices"),
        ("[freeze_backbone]\nchoices = [1]", "[freeze_backbone] freeze_backbone must be bool, found 1"),
        ("[dropout]\nlow = 0.1", "[dropout] has no high; give choices, or low and high"),
        ("[dropout]\nlow = 0.5\nhigh = 0.1", "[dropout] has an empty range: low 0.5 is above high 0.1"),
        ("[dropout]\nlow = 0.1\nhigh = 0.5\nchoices = [1]", "[dropout] has choices and a range; give one of them"),
        ("[dropout]\nlow = 0\nhigh = 0.5\nlog = true", "[dropout] has low 0.0; a logarithmic range must start above 0"),
        ("[dropout]\nlow = 0.1\nhigh = 0.5\nlog = 1", "[dropout] needs log = true or false, found 1"),
        ("[dropout]\nlow = 0.1\nhigh = 0.5\nlog = true\nstep = 0.1", "[dropout] has log and step; give one of them"),
        ("[dropout]\nlow = 0.1\nhigh = 0.5\nstep = 0", "[dropout] needs a step above 0, found 0"),
        ("[epochs]\nlow = 1\nhigh = 9\nstep = 0.5", "[epochs] needs a step above 0 that is a whole number, found 0.5"),
    ],
)
def test_a_wrong_space_is_one_line_that_names_the_parameter(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_range_has_no_grid(tmp_path: Path) -> None:
    space = read(tmp_path, "[dropout]\nlow = 0.1\nhigh = 0.5")
    with pytest.raises(ConfigError, match="--sampler grid needs choices, dropout has a range; try --sampler tpe"):
        space.grid()
