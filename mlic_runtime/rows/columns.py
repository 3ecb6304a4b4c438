"""What sources of rows call things."""

# Names of columns and keys, in any mixture of upper and lower case; everything else is not read.
IMAGE_COLUMNS = ("ImageID", "image", "path")
CAPTION_COLUMNS = ("Caption",)

STDIN = "-"  # what the command line calls standard input
