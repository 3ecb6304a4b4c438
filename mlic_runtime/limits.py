"""How much of anything is read: the limits that SECURITY.md promises, by subject.

No limit changes what an ordinary input gives. Each keeps one input from taking all of the memory or time of a device.
"""

# --- pictures

# Pixels (width x height). Some kinds of picture count several times, see `picture/cost.py`.
MAX_PIXELS = 90_000_000

# Scans of a JPEG. Encoders write 10 to 20; this is libtiff's limit too (LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER).
MAX_JPEG_SCANS = 100

# Bytes of a picture that is not a local file: it is read whole before it is decoded. Within MAX_PIXELS, only
# uncompressed pictures of more than 8 bits are larger.
MAX_PICTURE_BYTES = 256 * 1024 * 1024

# --- captions and rows

# Characters of a caption. The rest is cut, so that a huge text cannot stall a device.
MAX_CAPTION_CHARACTERS = 20_000

# Bytes of a row, or of a caption that is a file of its own. So a quote that is never closed ends in an error and does
# not fill the memory. (The csv module has its own limit for a cell, 131,072 characters.)
MAX_ROW_BYTES = 1024 * 1024

# --- model packages

# Bytes of manifest.json.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

# Bytes of a graph. Protobuf allows no more, and a graph has no external data.
MAX_GRAPH_BYTES = 2**31 - 1

# Bytes of a tokenizer or a model card. XLM-RoBERTa's tokenizer, with 250,000 tokens, has 17 MB.
MAX_OTHER_FILE_BYTES = 32 * 1024 * 1024

# Messages of a graph inside one another: protobuf's own limit.
MAX_GRAPH_DEPTH = 100

# Pixels of one side of the model's input. No model for small devices has a larger one.
MAX_INPUT_SIDE = 4096

# Tokens of a caption.
MAX_CAPTION_TOKENS = 8192

# Token ids. The largest vocabularies in use have 2**18.
MAX_VOCABULARY = 2**24

# Bytes of a `.mlic` file. A zip archive needs 64-bit fields beyond, which are refused.
MAX_ARCHIVE_BYTES = 2**31 - 1

# Members of a `.mlic` file: a manifest, a tokenizer, a card and a graph for each precision, and room for more.
MAX_ARCHIVE_MEMBERS = 64

# Bytes of the directory of a `.mlic` file. A member takes 46 bytes and its name, which has at most 200 characters.
MAX_ARCHIVE_DIRECTORY_BYTES = 64 * 256

# --- tokenizers

# Characters of a token. The longest of GPT-4's vocabulary is 128 spaces.
MAX_TOKEN_CHARACTERS = 256

# Characters of a word that WordPiece tries to split, which takes time that grows with their square. BERT has 100.
MAX_WORD_CHARACTERS = 200

# Characters of a prefix or suffix of a part of a word, such as "##".
MAX_AFFIX_CHARACTERS = 16

# Characters that a normalizer puts before the text.
MAX_PREPENDED_CHARACTERS = 16

# Steps of the normalizer, of the pre-tokenizer and of the post-processor.
MAX_TOKENIZER_STEPS = 16

# Times that all replacements together may lengthen a text.
MAX_REPLACEMENT_GROWTH = 16

# Bytes that a Precompiled map makes of one character. Unicode's longest mapping has 33.
MAX_MAPPED_BYTES = 64

# --- files of the user

# Optimised graphs in the cache. The newest stay: five models with three precisions each.
MAX_CACHE_ENTRIES = 16

# Bytes of all optimised graphs in the cache.
MAX_CACHE_BYTES = 512 * 1024 * 1024

# Bytes of the file of saved precisions.
MAX_SAVED_PRECISIONS_BYTES = 1024 * 1024

# Bytes of a file of label ids.
MAX_LABEL_IDS_BYTES = 16 * 1024 * 1024

# Bytes of a line in the journal of a batch.
MAX_JOURNAL_LINE_BYTES = 64 * 1024
