"""`mlic-shards`: training data of any format as shards."""

from typing import Any

import click

from mlic_runtime.base.progress import log_line, progress_bar
from mlic_runtime.cli.command import MlicCommand, write
from mlic_runtime.cli.fields import FOLDER, NEW_FOLDER

from .data_options import data_from, data_options


@click.command(cls=MlicCommand, context_settings={"show_default": True})
@click.version_option(package_name="mlic-train")
@data_options
@click.option("--output", type=NEW_FOLDER, help="The new folder for the shards, labels.csv and shards.json.")
@click.option("--samples-per-shard", type=click.IntRange(1), default=10_000, help="Samples, at most.")
@click.option("--megabytes-per-shard", type=click.IntRange(1), default=1000, help="Size, at most, in 10^6 bytes.")
@click.option("--index", type=FOLDER, help="Only write the indices of the shards in that folder, for reading from far.")
@click.option(
    "--verify", type=FOLDER, help="Only compare the shards in that folder with their shards.json and indices."
)
def shards(**options: Any) -> None:
    """Write data as shards, tar files in webdataset's form, for mlic-train --data; prints what was written.

    \b
    mlic-shards --data my-data --output shards
    mlic-train --data 'shards/train-{000000..000063}.tar'
    mlic-shards --verify shards
    mlic-shards --index shards-of-others
    """  # noqa: D301 # click needs the backspace itself
    from mlic_train.data.shard_writer import index_shards, verify_shards, write_shards

    for name, work in (("verify", verify_shards), ("index", index_shards)):
        if options[name] is not None:
            with progress_bar("shards", "shard") as progress:
                count = work(options[name], progress)
            write(f"ok {count} shards\n")
            return
    if options["output"] is None:
        raise click.UsageError("no folder for the shards; give --output FOLDER")
    from mlic_train.data.splits import problem_lines, read_divided

    splits, _, notes = read_divided(data_from(options), decode=True)
    for line in (*notes, *problem_lines(splits)):
        log_line(line)
    with progress_bar("records", "record") as progress:
        written = write_shards(
            splits,
            options["output"],
            samples=options["samples_per_shard"],
            max_bytes=options["megabytes_per_shard"] * 1_000_000,
            progress=progress,
        )
    for name, facts in written.items():
        size = sum(int(each["bytes"]) for each in facts.values())
        line = f"{name}: {len(splits[name].records)} records, {len(facts)} shards, {size} bytes\n"
        write(line, kept=f"the shards are in {options['output']}")
