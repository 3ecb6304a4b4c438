"""What sources of rows call things."""

# Names of columns and keys, in any mixture of upper and lower case; everything else is not read.
IMAGE_COLUMNS = ("ImageID", "image", "path")
CAPTION_COLUMNS = ("Caption",)

STDIN = "-"  # what the command line calls standard input


def is_uri(text: str) -> bool:
    """Whether a text is a URI such as s3://bucket/pictures, and not a path."""
    scheme, found, _ = text.partition("://")  # chained ones, such as simplecache::s3, are fsspec's
    return bool(found) and len(scheme) > 1 and scheme[0].isalpha() and all(c.isalnum() or c in "+-.:" for c in scheme)
