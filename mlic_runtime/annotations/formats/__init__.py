"""One module for each format of annotations."""
