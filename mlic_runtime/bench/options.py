"""`BenchOptions`: what every measurement of a model package has in common."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlic_runtime.predict.prediction import check_count
from mlic_runtime.providers.names import AUTO

if TYPE_CHECKING:
    from mlic_runtime.picture.decode import ImageSource


@dataclass(frozen=True)
class BenchOptions:
    """What a measurement runs on, how often, and how it loads the model.

    Attributes:
        image: the picture; None means a made-up one.
        caption: the caption; None means `inputs.DEFAULT_CAPTION`, and none for a model that reads no captions.
        runs: measured rounds, >= 1.
        warmup: rounds before them, >= 1.
        threads: threads per run; None means one for every physical core that this process may use.
        spin: see `session.create_session`.
        provider: execution provider of the runtime; see `opening.open_graph`.
        precision: which graph, or "auto"; see `opening.open_graph`.
        cache: see `opening.open_graph`.

    Raises:
        InputError: `runs` or `warmup` is below 1.
    """

    image: "ImageSource | None" = None
    caption: str | None = None
    runs: int = 50
    warmup: int = 10
    threads: int | None = None
    spin: bool = False
    provider: str = "cpu"
    precision: str = AUTO
    cache: bool = True

    def __post_init__(self) -> None:
        check_count("runs", self.runs)
        check_count("warmup", self.warmup)
