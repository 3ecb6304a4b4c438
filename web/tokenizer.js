/**
 * Captions to token ids, as `mlic_runtime.caption.tokenizer` makes them. The tokenizer itself is Hugging Face's own
 * JavaScript library; this adds the limits, and which words the tokens come from.
 */
import { PackageError, reason } from "./errors.js";

const MAX_CHARACTERS = 20_000; // the rest is cut, as `MAX_CAPTION_CHARACTERS` of the runtime
// As BertPreTokenizer of the `tokenizers` library cuts: marks and ideographs stand alone.
const MARKS = "\\p{P}$+<=>^`|~";
const IDEOGRAPHS = "\\u4E00-\\u9FFF\\u3400-\\u4DBF\\u{20000}-\\u{2A6DF}\\u{2A700}-\\u{2CEAF}\\uF900-\\uFAFF\\u{2F800}-\\u{2FA1F}";
const WORD = new RegExp(`[${MARKS}]|[${IDEOGRAPHS}]|[^\\s${MARKS}${IDEOGRAPHS}]+`, "gu");

/** The step from captions to token ids, by the package's tokenizer.json. */
export class CaptionTokenizer {
  #tokenizer;
  #spec;

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
      this.#tokenizer = new library.Tokenizer(content, {});
    } catch (error) {
      throw new PackageError(`tokenizer.json is not a tokenizer: ${reason(error)}`);
    }
  }

  /**
   * Tokenise a caption.
   *
   * @param {string|null} caption
   * @returns {number[]} at most `max_length` ids; none for a caption that is null, blank or gives none
   */
  encode(caption) {
    const text = clean(caption);
    return text.trim() === "" ? [] : this.#ids(text).slice(0, this.#spec.max_length);
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
    const ids = this.encode(caption);
    if (ids.length === 0) return [];
    const words = [];
    let next = 0;
    for (const found of clean(caption).matchAll(WORD)) {
      const pieces = this.#ids(found[0]);
      const tokens = pieces.map((_, index) => next + index).filter((at) => at < ids.length);
      if (pieces.some((id, index) => next + index < ids.length && ids[next + index] !== id)) return [whole(caption, ids)];
      next += pieces.length;
      if (tokens.length > 0) {
        words.push({ text: found[0], start: found.index, end: found.index + found[0].length, tokens });
      }
    }
    return next < ids.length ? [whole(caption, ids)] : words;
  }

  #ids(text) {
    const ids = this.#tokenizer.encode(text).ids;
    return Array.from(ids, Number);
  }
}

function whole(caption, ids) {
  return { text: caption, start: 0, end: caption.length, tokens: ids.map((_, index) => index) };
}

/** Cut what is too long, by characters as Python counts them; lone surrogates become U+FFFD and NUL a space. */
function clean(caption) {
  if (caption === null || caption === undefined) return "";
  let text = caption;
  if (text.length > MAX_CHARACTERS) text = Array.from(text).slice(0, MAX_CHARACTERS).join("");
  return text.toWellFormed().replaceAll("\0", " ");
}
