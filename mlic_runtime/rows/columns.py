"""Names in sources of rows: of columns, of picture files, of standard input."""

# Columns and keys, in any mixture of upper and lower case; no others are read.
IMAGE_COLUMNS = ("ImageID", "image", "path")
CAPTION_COLUMNS = ("Caption",)

# A folder is searched for the usual endings of `picture.formats.FORMATS`, and for those of HEIC. Where the plug-in for
# HEIC is missing, such pictures are errors, so that none is lost silently.
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif")

STDIN = "-"  # on the command line
