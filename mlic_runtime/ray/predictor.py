"""`RayPredictor`: a `Predictor` for `map_batches` of Ray Data."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlic_runtime.base.text import normalize_whitespace
from mlic_runtime.errors import CaptionError, InputError
from mlic_runtime.predict.prediction import Prediction, PredictionOptions
from mlic_runtime.predict.predictor import Predictor
from mlic_runtime.rows.reader import Row, RowError, picture_finder
from mlic_runtime.tables.columns import CAPTION_COLUMNS, EXPECTED_COLUMNS, IMAGE_COLUMNS

from .results import result_columns, result_fields

if TYPE_CHECKING:
    from mlic_runtime.picture.decode import ImageSource


class RayPredictor:
    """A model for the rows of a Ray dataset; each actor loads and verifies the model package once.

    Example:
        >>> dataset.map_batches(  # doctest: +SKIP
        ...     RayPredictor, fn_constructor_kwargs={"image_root": "s3://bucket/pictures"},
        ...     batch_format="pyarrow", batch_size=32, num_cpus=1, concurrency=4,
        ... )

    A batch has a column with pictures, a column with captions, or both. Pictures are names below `image_root`, URIs
    that begin with it, the bytes of files, or uint8 arrays (H, W, 3) in RGB. A pyarrow table comes back with the
    columns of `results.result_fields` added; so does a dict of numpy arrays, but with `probabilities` as one
    float32 array (B, L), the labels in the order of `labels`, NaN where there is none. A row that cannot be predicted
    has an error in its place. Columns that have the name of a result are replaced.

    Attributes:
        labels: the names of the model's labels, in the order of its manifest.

    Args:
        model: see `Predictor.load`; the package must be there on every node.
        image_root: the folder, a path or a URI, of pictures that are given by name; names that lead out of it are
            errors. None means that every name is an error.
        image_column: the name of the column with the pictures; by default the one that has a name as in a rows file.
        caption_column: the name of the column with the captions; by default as for `image_column`.
        threads: of the graph, and how many threads decode pictures; None means as many as the actor has CPUs.
        threshold: see `PredictionOptions`.
        top_k: see `PredictionOptions`.
        at_least_one: see `PredictionOptions`.
        loading: the other arguments of `Predictor.load`. The precision "auto" may mean another one on another machine.

    Raises:
        MlicError: as in `Predictor.load`; also if the image root cannot be used, or an option is out of range.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        image_root: str | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        threads: int | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        at_least_one: bool = False,
        **loading: Any,
    ) -> None:
        self._options = PredictionOptions(threshold, top_k, at_least_one)
        self._threads = actor_cpus() if threads is None else threads
        self._predictor = Predictor.load(model, threads=self._threads, **loading)
        self.labels = self._predictor.labels
        self._find_picture = None if image_root is None else picture_finder(image_root)
        self._names = (image_column, caption_column)

    def __call__(self, batch: Any) -> Any:
        """Predict a batch: a pyarrow table, or a dict of numpy arrays of one length.

        Raises:
            InputError: it has neither a column with pictures nor one with captions.
        """
        columns: Mapping[str, Any] = batch if isinstance(batch, Mapping) else _lists(batch)
        names = [
            _find_column(columns, name, known)
            for name, known in zip(self._names, (IMAGE_COLUMNS, CAPTION_COLUMNS), strict=True)
        ]
        present = [name for name in names if name is not None]
        if not present:
            raise InputError(f"a batch has the columns {', '.join(columns) or '(none)'}; expected {EXPECTED_COLUMNS}")
        count = len(columns[present[0]])
        images, captions = ([None] * count if name is None else columns[name] for name in names)
        rows = [self._row(image, caption) for image, caption in zip(images, captions, strict=True)]
        results = list(
            self._predictor.stream_rows(rows, self._options, batch_size=max(1, count), workers=self._threads)
        )
        return self._to_numpy(batch, results) if isinstance(batch, Mapping) else self._to_arrow(batch, results)

    def _row(self, image: Any, caption: Any) -> Row:
        name = None
        try:
            picture: ImageSource | None = None if _is_missing(image) else image
            if isinstance(picture, str):
                name = picture = str(picture)  # no longer numpy's subclass of str
                if self._find_picture is None:
                    raise InputError(f"found the name {name!r} of a picture; expected its bytes, or give image_root")
                picture = self._find_picture(name)
            text = None if _is_missing(caption) else caption
            if text is not None and not isinstance(text, str):
                raise CaptionError(f"a caption must be a text, found {type(text).__name__}")
            return Row(picture, normalize_whitespace(text), name)
        except InputError as error:
            return Row(name=name, error=error)

    def _to_arrow(self, table: Any, results: list[Prediction | RowError]) -> Any:
        for field, column in zip(result_fields(self.labels), result_columns(results, self.labels), strict=True):
            if field.name in table.column_names:
                table = table.drop_columns([field.name])
            table = table.append_column(field, column)
        return table

    def _to_numpy(self, batch: Mapping[str, Any], results: list[Prediction | RowError]) -> dict[str, Any]:
        import numpy as np

        columns = result_columns(results, self.labels)
        added: dict[str, Any] = {}
        for field, column in zip(result_fields(self.labels), columns, strict=True):
            if field.name == "probabilities":
                parts = [part.to_numpy(zero_copy_only=False) for part in column.flatten()]
                added[field.name] = np.stack(parts, axis=1).astype(np.float32)
            else:
                values = np.empty(len(column), dtype=object)
                values[:] = column.to_pylist()
                added[field.name] = values
        return {**batch, **added}


def actor_cpus() -> int:
    """Return how many CPUs Ray gave to the actor that runs this, at least one."""
    import ray

    return max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))


def _lists(table: Any) -> dict[str, list[Any]]:
    return {name: table[name].to_pylist() for name in table.column_names}


def _find_column(columns: Mapping[str, Any], name: str | None, known: tuple[str, ...]) -> str | None:
    if name is not None:
        if name not in columns:
            raise InputError(f"a batch has the columns {', '.join(columns)}; expected {name!r} among them")
        return name
    known_names = {known_name.lower() for known_name in known}
    matching = [column for column in columns if column.lower() in known_names]
    if len(matching) > 1:
        raise InputError(f"a batch has {', '.join(matching)}, which are the same; expected one, or the name of one")
    return matching[0] if matching else None


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)  # numpy's NaN stands for null
