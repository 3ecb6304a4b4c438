"""Names in sources of rows: of columns, and of standard input."""

from mlic_runtime.picture.signatures import PICTURE_SUFFIXES as PICTURE_SUFFIXES

# Columns and keys, in any mixture of upper and lower case; no others are read.
IMAGE_COLUMNS = ("ImageID", "image", "path")
CAPTION_COLUMNS = ("Caption",)

STDIN = "-"  # on the command line
