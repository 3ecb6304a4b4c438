"""How much of anything is read: the limits that SECURITY.md promises."""

# Of a row, or of a caption that is a file of its own. A quote that is never closed, or a file that is one line, ends in
# an error and not in all of the memory. (The csv module has a limit of its own for a cell, 131,072 characters.)
MAX_ROW_BYTES = 1024 * 1024


MAX_PIXELS = 90_000_000  # width x height of a picture; here because the command line reads it without loading Pillow


# A picture from elsewhere is read whole before it is decoded. Of what can be one within the limit of pixels, only
# uncompressed pictures of more than eight bits are larger.
MAX_PICTURE_BYTES = 256 * 1024 * 1024
