/**
 * A model package from a folder of a web site or from memory: manifest.json says which files there are, and each is
 * compared with its size and SHA-256 before anything uses it.
 */
import { PackageError, reason } from "./errors.js";

const SCHEMA_VERSION = 1;
const MANIFEST = "manifest.json";
const CARD = "README.md";
const PRECISIONS = ["fp32", "fp16", "int8-full", "int8"];
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;
const FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const NOT_PRINTABLE = /(?! )[\p{C}\p{Z}]/u; // as `str.isprintable`
// Keys that there must be, and that there may be: other ones are errors, for they could mean something.
const KEYS = {
  manifest: [
    ["schema_version", "name", "version", "labels", "image", "text", "files", "metrics", "parity", "provenance"],
    ["latency", "recommended", "evidence"],
  ],
  label: [["name", "threshold"], []],
  image: [["height", "width", "interpolation", "resize"], []],
  text: [["max_length", "vocab_size", "pad_id"], []],
  file: [["sha256", "bytes", "precision"], []],
  evidence: [["height", "width"], ["faithfulness"]],
};
// As mlic_runtime/limits.py has them.
const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
const MAX_GRAPH_BYTES = 2 ** 31 - 1;
const MAX_OTHER_BYTES = 32 * 1024 * 1024;
const MAX_SIDE = 4096;
const MAX_TOKENS = 8192;
const MAX_VOCABULARY = 2 ** 24;

export const TOKENIZER = "tokenizer.json";

/**
 * Read manifest.json.
 *
 * @param {string|URL|Map<string, Uint8Array>} base the folder's address, or the files themselves
 * @returns {Promise<object>} the manifest
 * @throws {PackageError} it cannot be had, is no JSON, or is not one that this module reads
 */
export async function readManifest(base) {
  const bytes = await fetchFile(base, MANIFEST, MAX_MANIFEST_BYTES);
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new PackageError(`${MANIFEST} is not JSON: ${reason(error)}`);
  }
  if (manifest?.schema_version !== SCHEMA_VERSION) {
    throw new PackageError(
      `${MANIFEST} has schema_version ${JSON.stringify(manifest?.schema_version)}; this page reads ` +
        `${SCHEMA_VERSION}: export the package again`,
    );
  }
  check(manifest);
  return manifest;
}

/** Check what this module reads, by the rules of `mlic_runtime.package.manifest`; the measurements are not looked into. */
function check(manifest) {
  const expect = (holds, key, expected) => {
    if (!holds) throw new PackageError(`${MANIFEST}: ${key} must be ${expected}`);
  };
  const expectKeys = (value, where, [required, optional]) => {
    expect(isObject(value), where, "an object");
    const missing = required.find((key) => !Object.hasOwn(value, key));
    expect(missing === undefined, where, `an object with the key ${missing}`);
    const unknown = Object.keys(value).find((key) => !required.includes(key) && !optional.includes(key));
    expect(unknown === undefined, where, `an object without the key ${JSON.stringify(unknown)}`);
  };
  const expectCount = (value, where, least, most) => {
    expect(Number.isInteger(value) && value >= least && value <= most, where, `a whole number, ${least} to ${most}`);
  };
  expectKeys(manifest, "manifest", KEYS.manifest);
  const { name, version, labels, image, text, files, evidence } = manifest;
  expect(isMatch(NAME, name), "manifest.name", "letters, digits, '.', '_', '-'");
  expect(isMatch(NAME, version), "manifest.version", "a version such as 1.0.0");
  expect(Array.isArray(labels) && labels.length > 0, "manifest.labels", "a list of at least one label");
  for (const label of labels) {
    expectKeys(label, "manifest.labels", KEYS.label);
    const isName = typeof label.name === "string" && label.name.trim() !== "" && !NOT_PRINTABLE.test(label.name);
    expect(isName, "manifest.labels.name", "a name of printable characters");
    const isShare = typeof label.threshold === "number" && label.threshold >= 0 && label.threshold <= 1;
    expect(isShare, `the threshold of ${JSON.stringify(label.name)}`, "in [0, 1]");
  }
  expect(new Set(labels.map((label) => label.name)).size === labels.length, "manifest.labels", "labels with unique names");
  expectKeys(image, "manifest.image", KEYS.image);
  expectCount(image.height, "image.height", 1, MAX_SIDE);
  expectCount(image.width, "image.width", 1, MAX_SIDE);
  expect(["bilinear", "bicubic"].includes(image.interpolation), "image.interpolation", "bilinear or bicubic");
  expect(["stretch", "crop"].includes(image.resize), "image.resize", "stretch or crop");
  if (text !== null) {
    expectKeys(text, "manifest.text", KEYS.text);
    expectCount(text.max_length, "text.max_length", 1, MAX_TOKENS);
    expectCount(text.vocab_size, "text.vocab_size", 1, MAX_VOCABULARY);
    expectCount(text.pad_id, "text.pad_id", 0, text.vocab_size - 1);
  }
  if (evidence != null) {
    expectKeys(evidence, "manifest.evidence", KEYS.evidence);
    expectCount(evidence.height, "evidence.height", 1, MAX_SIDE);
    expectCount(evidence.width, "evidence.width", 1, MAX_SIDE);
  }
  expect(isObject(files), "manifest.files", "an object");
  const precisions = [];
  for (const [file, spec] of Object.entries(files)) {
    const where = `files.${file}`;
    expect(isMatch(FILE_NAME, file), "manifest.files", "plain file names inside the package folder");
    expectKeys(spec, where, KEYS.file);
    expect(isMatch(SHA256, spec.sha256), `${where}.sha256`, "64 lower-case hexadecimal digits");
    const isOther = file === TOKENIZER || file === CARD;
    expectCount(spec.bytes, `${where}.bytes`, 0, isOther ? MAX_OTHER_BYTES : MAX_GRAPH_BYTES);
    const known = isOther ? spec.precision === null : PRECISIONS.includes(spec.precision) && file !== MANIFEST;
    expect(known, where, `a graph with a precision, ${TOKENIZER} or ${CARD}`);
    if (!isOther) precisions.push(spec.precision);
  }
  expect(precisions.length > 0, "manifest.files", "at least one graph (a file with a precision)");
  expect(new Set(precisions).size === precisions.length, "manifest.files", "one graph per precision");
  expect((text !== null) === Object.hasOwn(files, TOKENIZER), "manifest.text", `set exactly when ${TOKENIZER} is listed`);
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isMatch(pattern, value) {
  return typeof value === "string" && pattern.test(value);
}

/**
 * Read one file of a package.
 *
 * @param {string|URL|Map<string, Uint8Array>} base see `readManifest`
 * @param {object} manifest what `readManifest` returned
 * @param {string} name the file
 * @param {(bytes: number) => void} onBytes is called with the bytes that have come so far
 * @returns {Promise<Uint8Array>} its content, which is the manifest's
 * @throws {PackageError} it cannot be had, or was altered
 */
export async function readFile(base, manifest, name, onBytes = () => {}) {
  const { bytes: size, sha256 } = manifest.files[name];
  const content = await fetchFile(base, name, size, onBytes);
  if (content.length !== size) {
    throw new PackageError(`${name} has ${content.length} bytes, the manifest says ${size}: copy the package again`);
  }
  const subtle = globalThis.crypto?.subtle;
  if (subtle === undefined) {
    throw new PackageError("the browser checks files on https:// and localhost only: open the page there");
  }
  const digest = new Uint8Array(await subtle.digest("SHA-256", content));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== sha256) {
    throw new PackageError(`${name} is not what the manifest says (SHA-256 ${found}): copy the package again`);
  }
  return content;
}

/** Read a file, at most `limit` bytes of it and one more: who asked sees that it is too long. */
async function fetchFile(base, name, limit, onBytes = () => {}) {
  if (base instanceof Map) {
    const content = base.get(name);
    if (content === undefined) throw new PackageError(`the package has no ${name}`);
    return content;
  }
  let response;
  try {
    response = await fetch(new URL(name, folderUrl(base)), { credentials: "same-origin" });
  } catch (error) {
    throw new PackageError(`cannot read ${name}: ${reason(error)}`);
  }
  if (!response.ok) throw new PackageError(`cannot read ${name}: the server answers ${response.status}`);
  const chunks = [];
  let total = 0;
  const reader = response.body.getReader();
  try {
    for (let part = await reader.read(); !part.done && total <= limit; part = await reader.read()) {
      chunks.push(part.value);
      total += part.value.length;
      onBytes(total);
    }
  } catch (error) {
    throw new PackageError(`cannot read ${name}: ${reason(error)}`);
  } finally {
    reader.cancel().catch(() => {}); // it has ended, or is not wanted any more
  }
  const content = new Uint8Array(total);
  let at = 0;
  for (const chunk of chunks) {
    content.set(chunk, at);
    at += chunk.length;
  }
  return content;
}

function folderUrl(base) {
  const url = new URL(base, globalThis.location?.href);
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}
