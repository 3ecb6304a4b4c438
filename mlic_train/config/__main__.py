"""`python -m mlic_train.config` prints docs/train/options.md."""

from mlic_runtime.base.option import element_type, flag_of

from . import options

_PAGE_HEAD = """# Options of mlic-train

For looking up one option; [Train a model](README.md) says which of them are worth a look.

`python -m mlic_train.config` writes this page from the fields of `mlic_train/config/`. Each option has the same
name in three places: `--batch-size 64` on the command line, `batch_size = 64` in the TOML file of `--config`, and
`mlic_train.train(data, batch_size=64)` in Python. The command line wins over the file. A run folder keeps what it was
started with as `options.toml`: `mlic-train --config runs/hybrid/options.toml --output runs/again` repeats the run.

[A preset](presets.md) gives the options that are not given otherwise. The column "default" is that of `balanced`, the
usual preset."""


def options_page() -> str:
    """Return docs/train/options.md: a table of options for each group."""
    rows: dict[str, list[str]] = {}
    usual = options.usual_options()
    for name, kind in options.OWNERS.items():
        about, flag = usual[name], flag_of(kind, name)
        shown = f"`--{flag}`, `--no-{flag}`" if element_type(kind, name)[0] is bool else f"`--{flag}`"
        values = ", ".join(about.choices) or about.range
        rows.setdefault(about.group, []).append(f"| {shown} | {about.default_text} | {values} | {about.help} |")
    tables = (
        "\n".join([f"## {group}", "", "| option | default | values | meaning |", "|---|---|---|---|", *lines])
        for group, lines in rows.items()
    )
    return "\n\n".join([_PAGE_HEAD, *tables]) + "\n"


if __name__ == "__main__":
    print(options_page(), end="")
