"""The names of the formats, apart from what reads them: the command line shows them before anything is loaded."""

DATA_FORMATS = (
    *("auto", "open-images", "vertex", "csv", "competition", "coco", "label-studio", "cvat", "datumaro", "createml"),
    *("jsonl", "json", "parquet", "shards", "voc", "yolo", "tags", "imagefolder", "captions"),
)
"""After --data-format; "auto" looks at the source."""
