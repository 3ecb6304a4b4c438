/**
 * A model package from a folder of a web site or from memory: manifest.json says which files there are, and each is
 * compared with its size and SHA-256 before anything uses it.
 */
import { PackageError, reason } from "./errors.js";

const SCHEMA_VERSION = 1;
const MANIFEST = "manifest.json";
const FILE_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/;
const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

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

function check(manifest) {
  const expect = (holds, key, expected) => {
    if (!holds) throw new PackageError(`${MANIFEST}: ${key} must be ${expected}`);
  };
  const isText = (value) => typeof value === "string" && value.trim() !== "";
  const isCount = (value, limit) => Number.isInteger(value) && value >= 1 && value <= limit;
  expect(isText(manifest.name) && isText(manifest.version), "name and version", "texts");
  expect(Array.isArray(manifest.labels) && manifest.labels.length > 0, "labels", "a list of at least one label");
  for (const label of manifest.labels) {
    const number = label?.threshold;
    expect(isText(label?.name), "labels.name", "a text");
    expect(typeof number === "number" && number >= 0 && number <= 1, `the threshold of ${label.name}`, "in [0, 1]");
  }
  const names = new Set(manifest.labels.map((label) => label.name));
  expect(names.size === manifest.labels.length, "labels", "labels with unique names");
  const { image, text } = manifest;
  expect(isCount(image?.height, 4096) && isCount(image?.width, 4096), "image", "1 to 4096 pixels a side");
  expect(["bilinear", "bicubic"].includes(image.interpolation), "image.interpolation", "bilinear or bicubic");
  expect(["stretch", "crop"].includes(image.resize), "image.resize", "stretch or crop");
  const files = manifest.files ?? {};
  for (const [name, file] of Object.entries(files)) {
    expect(FILE_NAME.test(name), "files", "plain file names");
    expect(/^[0-9a-f]{64}$/.test(file?.sha256), `files.${name}.sha256`, "64 hexadecimal digits");
    expect(Number.isInteger(file.bytes) && file.bytes >= 0, `files.${name}.bytes`, "0 or more");
  }
  expect(text === null || isCount(text?.max_length, 8192), "text.max_length", "1 to 8192 tokens");
  expect((text !== null) === TOKENIZER in files, "text", `set exactly when ${TOKENIZER} is listed`);
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
