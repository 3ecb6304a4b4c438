/**
 * Captions to token ids, as `mlic_runtime.caption.tokenizer` makes them. The tokenizer itself is Hugging Face's own
 * JavaScript library; this adds the limits, and which words the tokens come from.
 */
import { PackageError, reason } from "./errors.js";

const MAX_CHARACTERS = 20_000; // the rest is cut, as `MAX_CAPTION_CHARACTERS` of the runtime
// As BertPreTokenizer of the `tokenizers` library cuts: marks and ideographs stand alone.
const MARKS = "\\p{P}$+<=>^`|~";
const IDEOGRAPHS = "\\u4E00-\\u9FFF\\u3400-\\u4DBF\\u{20000}-\\u{2A6DF}\\u{2A700}-\\u{2CEAF}\\uF900-\\uFAFF\\u{2F800}-\\u{2FA1F}";
// What `str.strip` of Python takes for white space; `String.trim` lacks some and has U+FEFF.
const BLANK = /^[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$/u;
// `INVISIBLE` of `tokenizer_safety`, which `mlic_train.captions` writes: it spares white space, and U+0085 is that in Rust, but
// not in JavaScript; with U+FEFF it is the other way round.
const INVISIBLE = String.raw`[\p{C}\x{FE0E}\x{FE0F}\x{FFFD}&&[^\s\x{200C}\x{200D}]]`;
const LIKE_RUST = [["\x85", " "], ["\ufeff", ""]].map(([found, content]) => ({ type: "Replace", pattern: { String: found }, content }));
const WORD = new RegExp(`[${MARKS}]|[${IDEOGRAPHS}]|[^\\s${MARKS}${IDEOGRAPHS}]+`, "gu");

/** The step from captions to token ids, by the package's tokenizer.json. */
export class CaptionTokenizer {
  #tokenizer;
  #spec;
  #before = []; // special tokens, as of BERT
  #after = [];

  /**
   * @param {Uint8Array} json the content of tokenizer.json
   * @param {{max_length: number, pad_id: number}} spec `text` of the manifest
   * @param {{Tokenizer: Function}} library the module @huggingface/tokenizers
   * @throws {PackageError} it is no tokenizer that the library reads
   */
  constructor(json, spec, library) {
    if (library?.Tokenizer === undefined) {
      throw new PackageError("the model reads captions: give the module @huggingface/tokenizers as `tokenizers`");
    }
    this.#spec = spec;
    try {
      // The manifest decides about truncation and padding, not tokenizer.json.
      const content = { ...JSON.parse(new TextDecoder().decode(json)), truncation: null, padding: null };
      content.normalizer = likeRust(content.normalizer);
      this.#tokenizer = new library.Tokenizer(content, {});
      this.#findSpecialTokens();
    } catch (error) {
      throw new PackageError(`tokenizer.json is not a tokenizer that this module reads: ${reason(error)}`);
    }
    const special = this.#before.length + this.#after.length;
    if (special > spec.max_length) {
      throw new PackageError(`tokenizer.json adds ${special} special tokens, but text.max_length is ${spec.max_length}`);
    }
  }

  /**
   * Tokenise a caption.
   *
   * @param {string|null} caption
   * @returns {number[]} at most `max_length` ids; none for a caption that is null, blank, or gives none but special tokens
   */
  encode(caption) {
    const ids = this.#read(caption);
    return ids.length === 0 ? [] : [...this.#before, ...ids, ...this.#after];
  }

  /**
   * Tokenise captions, padded on the right to the longest of them.
   *
   * @param {(string|null)[]} captions
   * @returns {{ids: BigInt64Array, mask: BigInt64Array, length: number}} (captions, length), row by row
   */
  encodeBatch(captions) {
    const rows = captions.map((caption) => this.encode(caption));
    const length = Math.max(1, ...rows.map((row) => row.length));
    const ids = new BigInt64Array(rows.length * length).fill(BigInt(this.#spec.pad_id));
    const mask = new BigInt64Array(rows.length * length);
    rows.forEach((row, index) =>
      row.forEach((id, at) => {
        ids[index * length + at] = BigInt(id);
        mask[index * length + at] = 1n;
      }),
    );
    return { ids, mask, length };
  }

  /**
   * Return the words of a caption that the model reads, and which of its tokens belong to each.
   *
   * Words are tokenised one by one. Where that gives other tokens than the whole caption, the caption is one word.
   *
   * @param {string|null} caption
   * @returns {{text: string, start: number, end: number, tokens: number[]}[]} start and end in UTF-16 units
   */
  words(caption) {
    const ids = this.#read(caption);
    if (ids.length === 0) return [];
    const text = clean(caption);
    const words = [];
    let next = 0;
    let end = 0;
    for (const found of text.matchAll(WORD)) {
      // In some tokenizers the space before a word belongs to it.
      const pieces = [found[0], text.slice(end, found.index) + found[0]]
        .map((each) => this.#ids(each))
        .find((each) => each.every((id, index) => next + index >= ids.length || ids[next + index] === id));
      if (pieces === undefined) return this.#whole(caption, ids);
      end = found.index + found[0].length;
      const tokens = pieces.map((_, index) => next + index).filter((at) => at < ids.length);
      next += pieces.length;
      if (tokens.length > 0) words.push(this.#word(caption, found.index, end, tokens));
    }
    return next < ids.length ? this.#whole(caption, ids) : words;
  }

  #whole(caption, ids) {
    return [this.#word(caption, 0, caption.length, [...ids.keys()])];
  }

  #word(caption, start, end, tokens) {
    return { text: caption.slice(start, end), start, end, tokens: tokens.map((at) => this.#before.length + at) };
  }

  /** Return the ids that fit, without special tokens. */
  #read(caption) {
    const text = clean(caption);
    const room = this.#spec.max_length - this.#before.length - this.#after.length;
    return BLANK.test(text) ? [] : this.#ids(text).slice(0, room);
  }

  #ids(text, special = false) {
    return Array.from(this.#tokenizer.encode(text, { add_special_tokens: special }).ids, Number);
  }

  #findSpecialTokens() {
    const all = this.#ids("a", true);
    const found = this.#ids("a");
    const at = all.findIndex((_, index) => found.every((id, offset) => all[index + offset] === id));
    if (at < 0 || found.length === 0) throw new Error("its special tokens do not stand around the caption");
    this.#before = all.slice(0, at);
    this.#after = all.slice(at + found.length);
  }
}

/** Return a normalizer that does in JavaScript what it does in Rust. */
function likeRust(normalizer) {
  if (normalizer?.type === "Sequence") return { ...normalizer, normalizers: normalizer.normalizers.map(likeRust) };
  if (normalizer?.type !== "Replace" || normalizer.pattern?.Regex !== INVISIBLE) return normalizer;
  return { type: "Sequence", normalizers: [...LIKE_RUST, normalizer] };
}

/** Return whether a caption says nothing. */
export function isBlank(caption) {
  return BLANK.test(clean(caption));
}

/** Cut what is too long, by characters as Python counts them; lone surrogates become U+FFFD and NUL a space. */
function clean(caption) {
  if (caption === null || caption === undefined) return "";
  let text = caption;
  if (text.length > MAX_CHARACTERS) text = Array.from(text).slice(0, MAX_CHARACTERS).join("");
  return text.toWellFormed().replaceAll("\0", " ");
}
