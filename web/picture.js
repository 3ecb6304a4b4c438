/** Pictures to the model's input, as `mlic_runtime.picture.decode` makes it; the browser decodes. */
import { InputError, reason } from "./errors.js";
import { splitOrientation, turn } from "./orientation.js";
import { reduce, resize } from "./resize.js";

const MAX_PIXELS = 90_000_000;
const MAX_BYTES = 256 * 1024 * 1024;
const COVERED = 15 / 16; // of the wanted size, that a JPEG which was made smaller must still have
const REDUCING_GAP = 3;

/**
 * Read a picture and resize it to the model's input.
 *
 * @param {Blob|{data: Uint8Array|Uint8ClampedArray, width: number, height: number}} picture a picture file, or RGB or
 *     RGBA bytes, row by row
 * @param {{height: number, width: number, interpolation: string, resize: string}} spec `image` of the manifest
 * @returns {Promise<Uint8ClampedArray>} RGB bytes (height, width, 3)
 * @throws {InputError} it is no picture that the browser can decode, or too large
 */
export async function readPixels(picture, spec) {
  const isFile = typeof Blob !== "undefined" && picture instanceof Blob;
  const pixels = isFile ? await readFile(picture, spec) : fromBytes(picture);
  const box = spec.resize === "crop" ? centreBox(pixels, spec) : undefined;
  return resize(pixels, spec.width, spec.height, { filter: spec.interpolation, box, reducingGap: REDUCING_GAP }).data;
}

/** Return a picture file as upright RGB. */
async function readFile(blob, spec) {
  const { orientation, upright } = await splitOrientation(blob);
  let pixels = await decode(upright, blob.name);
  if (await isJpeg(blob)) {
    // The runtime lets the decoder make JPEGs smaller, which is an average of blocks.
    const [width, height] = orientation < 5 ? [spec.width, spec.height] : [spec.height, spec.width];
    const [x, y] = [pixels.width / Math.ceil(COVERED * width), pixels.height / Math.ceil(COVERED * height)];
    const by = [8, 4, 2, 1].find((factor) => Math.min(Math.floor(x), Math.floor(y)) >= factor) ?? 1;
    if (by > 1) pixels = reduce(pixels, by, by);
  }
  return turn(pixels, orientation);
}

/** Return a picture file as RGB; transparency becomes white. */
async function decode(blob, name) {
  if (blob.size === 0) throw new InputError("the picture is empty");
  if (blob.size > MAX_BYTES) throw new InputError(`the picture has ${blob.size} bytes, more than ${MAX_BYTES}`);
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch (error) {
    throw new InputError(`${name === undefined ? "this" : JSON.stringify(name)} is not a picture that this browser can read (${reason(error)}); save it as JPEG or PNG`);
  }
  try {
    checkSize(bitmap.width, bitmap.height);
    const { width, height } = bitmap;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (context === null) throw new InputError(`${width} x ${height} pixels are too many for this browser`);
    context.fillStyle = "white";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    return fromBytes(context.getImageData(0, 0, width, height));
  } finally {
    bitmap.close();
  }
}

function fromBytes({ data, width, height }) {
  checkSize(width, height);
  const count = width * height;
  if (data.length === 3 * count) return { data, width, height };
  if (data.length !== 4 * count) {
    throw new InputError(`${width} x ${height} pixels need ${3 * count} or ${4 * count} bytes, found ${data.length}`);
  }
  const rgb = new Uint8ClampedArray(3 * count);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    rgb[to] = data[from];
    rgb[to + 1] = data[from + 1];
    rgb[to + 2] = data[from + 2];
  }
  return { data: rgb, width, height };
}

function checkSize(width, height) {
  if (!(width >= 1 && height >= 1)) throw new InputError(`the picture has no pixels (${width} x ${height})`);
  if (width * height > MAX_PIXELS) {
    throw new InputError(`${width} x ${height} pixels are more than the limit of ${MAX_PIXELS}; scale the picture down`);
  }
}

async function isJpeg(blob) {
  const start = new Uint8Array(await blob.slice(0, 3).arrayBuffer());
  return start[0] === 0xff && start[1] === 0xd8 && start[2] === 0xff;
}

function centreBox({ width, height }, spec) {
  const scale = Math.min(width / spec.width, height / spec.height);
  const boxWidth = Math.min(spec.width * scale, width);
  const boxHeight = Math.min(spec.height * scale, height);
  const [left, upper] = [(width - boxWidth) / 2, (height - boxHeight) / 2];
  return [left, upper, left + boxWidth, upper + boxHeight];
}
