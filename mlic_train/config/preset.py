"""Presets: options under a name, in TOML files of the package, in the form that `--config` reads."""

from pathlib import Path

FOLDER = Path(__file__).with_name("presets")
USUAL = "balanced"
NONE = "none"  # the options' own defaults, under no preset
_FILES = {file.stem: file for file in sorted(FOLDER.glob("*.toml"))}
PRESETS = (USUAL, *(name for name in _FILES if name != USUAL), NONE)

# A file may have tables of these names, for options that depend on where a run is computed.
CPU, GPU = "cpu", "gpu"

# What a preset says of a part is left out where the user has chosen another part, or none.
OF_CAPTIONS = frozenset(
    {
        *("text_encoder", "embedding", "vocab_size", "max_length", "word_dropout", "text_learning_rate"),
        *("fusion", "width", "num_layers", "num_heads", "encoder_dropout"),
        *("text_batch_size", "text_rows_per_epoch", "drop_caption", "drop_picture", "auxiliary_weight"),
    }
)
OF_OWN_ENCODERS = frozenset({"embedding", "vocab_size", "word_dropout"})  # not of a Hugging Face encoder
OF_THE_TIME = frozenset({"epochs", "min_steps", "schedule", "patience"})  # a time limit plans them
OF_THE_BACKBONE = frozenset(
    {
        *("backbone_weights", "image_size", "mean", "std", "drop_path", "freeze_batch_statistics"),
        *("freeze_backbone", "freeze_stages", "cache_features", "backbone_learning_rate", "layer_decay"),
    }
)


def preset_file(name: str) -> Path:
    """Return the file of a preset that is not `NONE`."""
    return _FILES[name]


def for_whom(name: str) -> str:
    """Return in one line whom a preset is for: the first line of its file."""
    if name == NONE:
        return "every option at its own default."
    with preset_file(name).open(encoding="utf-8") as file:
        return file.readline().lstrip("# ").rstrip()
