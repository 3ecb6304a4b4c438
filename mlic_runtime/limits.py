"""How much of anything is read: the limits that docs/security/limits.md promises, by subject.

No limit changes what an ordinary input gives. Each keeps one input from taking all of the memory or time of a device.
"""

# Pictures
MAX_PIXELS = 90_000_000  # width x height; some kinds of picture count several times, see `picture/cost.py`
MAX_JPEG_SCANS = 100  # libtiff's limit too (LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER); encoders write 10 to 20
# Of a picture that is not a local file: it is read whole before it is decoded. Within MAX_PIXELS, only uncompressed
# pictures of more than 8 bits are larger.
MAX_PICTURE_BYTES = 256 * 1024 * 1024

# Captions and rows
MAX_CAPTION_CHARACTERS = 20_000  # the rest is cut, so that a huge text cannot stall a device
# Of a row, or of a file with one caption or one sample's JSON. So a quote that is never closed ends in an error and
# does not fill the memory. (The csv module has its own limit for a cell, 131,072 characters.)
MAX_ROW_BYTES = 1024 * 1024
MAX_JSON_ARRAY_BYTES = 256 * 1024 * 1024  # of rows in one JSON array, which is read whole; JSON lines have no limit
# Of a file of annotations that is parsed whole (JSON, XML); the largest in use, such as those of LVIS, have 1 to 2 GB.
MAX_ANNOTATIONS_BYTES = 2**31 - 1

# Annotations of data sets
MAX_LIST_CHARACTERS = 64 * 1024  # of a cell that is read as a list, such as "['a', 'b']"; a longer one is text
MAX_XML_DEPTH = 64  # elements inside one another; annotations have about ten
MAX_DATASET_CARD_BYTES = 4 * 1024 * 1024  # of a README.md with the names of labels; a longer one is passed over
MAX_WRAPPING_FOLDERS = 4  # one inside the other, each with nothing else, that are searched for a data set
MAX_SHARDS = 100_000  # that one pattern of names stands for
MAX_TAR_HEADER_BYTES = 64 * 1024  # of a header that extends the next: a name and some times
MAX_TAR_PADDING_BYTES = 1024 * 1024  # after the end mark; tar programs fill up a record of 10 KiB, some a larger one

# Model packages
MAX_MANIFEST_BYTES = 4 * 1024 * 1024  # of manifest.json; that of the released hybrid has 17 KB
MAX_GRAPH_BYTES = 2**31 - 1  # protobuf's limit; a graph has no external data
MAX_OTHER_FILE_BYTES = 32 * 1024 * 1024  # of a tokenizer or a card; XLM-RoBERTa's tokenizer has 17 MB
MAX_GRAPH_DEPTH = 100  # messages of a graph inside one another: protobuf's own limit
MAX_INPUT_SIDE = 4096  # pixels of one side of the model's input; no model for small devices has a larger one
MAX_CAPTION_TOKENS = 8192  # that a model may take
MAX_VOCABULARY = 2**24  # token ids; the largest vocabularies in use have 2**18
MAX_ARCHIVE_BYTES = 2**31 - 1  # of a `.mlic` file; zipfile writes larger ones with 64-bit fields, which are refused
MAX_ARCHIVE_MEMBERS = 64  # of a `.mlic` file: a manifest, a tokenizer, a card, a graph for each precision, and more
MAX_ARCHIVE_DIRECTORY_BYTES = 64 * 256  # a member takes 46 bytes and its name, of at most 200 characters

# Tokenizers
MAX_TOKEN_CHARACTERS = 256  # the longest token of GPT-4's vocabulary is 128 spaces
MAX_WORD_CHARACTERS = 200  # that WordPiece tries to split, in time that grows with their square; BERT has 100
MAX_AFFIX_CHARACTERS = 16  # of a prefix or suffix of a part of a word, such as "##"
MAX_PREPENDED_CHARACTERS = 16  # that a normalizer puts before the text
MAX_TOKENIZER_STEPS = 16  # of the normalizer, of the pre-tokenizer and of the post-processor
MAX_REPLACEMENT_GROWTH = 16  # times that all replacements together may lengthen a text
MAX_MAPPED_BYTES = 64  # that a Precompiled map makes of one character; Unicode's longest mapping has 33

# Data sets in zip files, unpacked: at most MAX_UNPACKED_BYTES and so many times the file's own size
MAX_UNPACKED_MEMBERS = 5_000_000  # ImageNet has 1,431,167 pictures
MAX_UNPACKED_BYTES = 2**30
MAX_UNPACKED_GROWTH = 100  # pictures do not shrink; tables of text do by 20 times at the most

# Requests to mlic-serve; the options of the same names change the first five
MAX_REQUEST_BYTES = 32 * 1024 * 1024  # --max-body
MAX_REQUEST_INPUTS = 64  # --max-inputs: pictures and captions in one request
MAX_RECEIVED_BYTES = 256 * 1024 * 1024  # --max-received: of all requests that are not yet answered
MAX_QUEUE = 256  # --max-queue: pictures that are accepted and not yet answered
MAX_CONNECTIONS = 4096  # --max-connections
MAX_JSON_VALUES = 100_000  # commas and brackets; 32 MB of "[[],[],[]" would be 700 MB of lists
MAX_FORM_FIELDS = 256  # besides files
MAX_TOKEN_BYTES = 4096  # of the first line of --token-file

# Files of the user
MAX_CACHE_ENTRIES = 16  # optimised graphs; the newest stay: five models with three precisions each
MAX_CACHE_BYTES = 512 * 1024 * 1024  # of all optimised graphs together
MAX_SAVED_PRECISIONS_BYTES = 1024 * 1024  # of the file of saved precisions
MAX_LABEL_IDS_BYTES = 16 * 1024 * 1024  # of a file of label ids
MAX_JOURNAL_LINE_BYTES = 64 * 1024  # of a line in the journal of a batch
