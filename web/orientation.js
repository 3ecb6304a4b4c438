/**
 * The EXIF orientation of JPEG and WebP files, and how to turn their pixels upright.
 *
 * Browsers turn pictures themselves, but not all of them WebP, and of a JPEG the module must average blocks before they are
 * turned, as the decoder does for Python. So it gives the browser the file with an orientation of 1. It reads PNG files upright.
 */
const ORIENTATION = 0x0112; // EXIF 2.32
const SHORT = 3;
const MAX_SEGMENTS = 1000; // of a JPEG, or chunks of a WebP
const MAX_EXIF_BYTES = 1 << 20;
const CHANNELS = 3;

/**
 * Find the orientation of a picture file.
 *
 * @param {Blob} blob
 * @returns {Promise<{orientation: number, upright: Blob}>} 1 to 8, and the file without it; 1 and the file itself where it has
 *     none that can be read
 */
export async function splitOrientation(blob) {
  const none = { orientation: 1, upright: blob };
  const start = await view(blob, 0, 12);
  const isJpeg = start.byteLength > 2 && start.getUint16(0) === 0xffd8;
  const isWebp = start.byteLength === 12 && text(start, 0) === "RIFF" && text(start, 8) === "WEBP";
  if (!isJpeg && !isWebp) return none;
  const exif = await (isJpeg ? findInJpeg(blob) : findInWebp(blob));
  if (exif === null) return none;
  const found = readTag(await view(blob, exif.from, Math.min(exif.to, exif.from + MAX_EXIF_BYTES)));
  if (found === null || found.orientation < 2 || found.orientation > 8) return none;
  const at = exif.from + found.at;
  const one = Uint8Array.from(found.little ? [1, 0] : [0, 1]);
  return {
    orientation: found.orientation,
    upright: new Blob([blob.slice(0, at), one, blob.slice(at + 2)], { type: blob.type }),
  };
}

/**
 * Turn pixels upright.
 *
 * @param {{data: Uint8Array|Uint8ClampedArray, width: number, height: number}} pixels RGB
 * @param {number} orientation 1 to 8; 5 to 8 swap the sides
 * @returns {{data: Uint8Array|Uint8ClampedArray, width: number, height: number}}
 */
export function turn({ data, width, height }, orientation) {
  if (orientation === 1) return { data, width, height };
  const swapped = orientation >= 5;
  const mirrorsX = [2, 3, 7, 8].includes(orientation); // the source's columns are read from the right
  const mirrorsY = [3, 4, 6, 7].includes(orientation); // its rows from below
  const [toWidth, toHeight] = swapped ? [height, width] : [width, height];
  const turned = new Uint8ClampedArray(data.length);
  for (let y = 0, to = 0; y < toHeight; y++) {
    for (let x = 0; x < toWidth; x++, to += CHANNELS) {
      const [column, row] = swapped ? [y, x] : [x, y];
      const fromX = mirrorsX ? width - 1 - column : column;
      const fromY = mirrorsY ? height - 1 - row : row;
      const from = (fromY * width + fromX) * CHANNELS;
      turned[to] = data[from];
      turned[to + 1] = data[from + 1];
      turned[to + 2] = data[from + 2];
    }
  }
  return { data: turned, width: toWidth, height: toHeight };
}

/** Return where the TIFF structure of the first EXIF segment lies (ITU-T T.81, B.1.1; EXIF 2.32, 4.7.2). */
async function findInJpeg(blob) {
  let at = 2;
  for (let segment = 0; segment < MAX_SEGMENTS; segment++) {
    const head = await view(blob, at, at + 10);
    if (head.byteLength < 10 || head.getUint8(0) !== 0xff) return null;
    const marker = head.getUint8(1);
    if (marker === 0xff) {
      at += 1; // fill
      continue;
    }
    if (marker === 0xda || marker === 0xd9) return null;
    const length = head.getUint16(2);
    if (marker === 0xe1 && text(head, 4) === "Exif" && head.getUint16(8) === 0) {
      return { from: at + 10, to: at + 2 + length };
    }
    at += 2 + Math.max(2, length);
  }
  return null;
}

/** Return where the TIFF structure of the chunk "EXIF" lies; some writers put the JPEG's "Exif\0\0" before it. */
async function findInWebp(blob) {
  let at = 12;
  for (let chunk = 0; chunk < MAX_SEGMENTS; chunk++) {
    const head = await view(blob, at, at + 14);
    if (head.byteLength < 14) return null;
    const size = head.getUint32(4, true);
    if (text(head, 0) === "EXIF") {
      const from = at + 8 + (text(head, 8) === "Exif" ? 6 : 0);
      return { from, to: at + 8 + size };
    }
    at += 8 + size + (size % 2);
  }
  return null;
}

/** Return the orientation in the first directory of a TIFF structure (TIFF 6.0, section 2), and where it stands. */
function readTag(data) {
  if (data.byteLength < 8) return null;
  const little = data.getUint16(0) === 0x4949;
  if ((!little && data.getUint16(0) !== 0x4d4d) || data.getUint16(2, little) !== 42) return null;
  const directory = data.getUint32(4, little);
  if (directory + 2 > data.byteLength) return null;
  const entries = data.getUint16(directory, little);
  for (let entry = 0, at = directory + 2; entry < entries && at + 12 <= data.byteLength; entry++, at += 12) {
    if (data.getUint16(at, little) !== ORIENTATION) continue;
    if (data.getUint16(at + 2, little) !== SHORT) return null;
    return { orientation: data.getUint16(at + 8, little), at: at + 8, little };
  }
  return null;
}

async function view(blob, from, to) {
  return new DataView(await blob.slice(from, to).arrayBuffer());
}

function text(data, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((index) => data.getUint8(at + index)));
}
