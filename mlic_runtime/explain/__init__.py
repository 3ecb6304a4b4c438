"""Evidence made visible: a web page, a picture, and a part of a notebook, from plain arrays."""
