/**
 * Resize 8-bit pixels as Pillow does (Resample.c and Reduce.c): antialiased, two passes, fixed-point weights of 22 bits,
 * 8 bits between the passes; large pictures are averaged down by whole numbers first. Pillow 13 takes some tall pictures
 * the other way round, rows before columns, which changes a level by 1 at most.
 */
const BITS = 22;
const CHANNELS = 3;
const FILTERS = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [
    2,
    (value) => {
      const x = Math.abs(value);
      const a = -0.5;
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
      return 0;
    },
  ],
};

/** Pixels: RGB bytes, row by row. @typedef {{data: Uint8Array|Uint8ClampedArray, width: number, height: number}} Pixels */

/**
 * Resize pixels.
 *
 * @param {Pixels} pixels
 * @param {number} width of the result
 * @param {number} height of the result
 * @param {{filter: string, box?: number[], reducingGap?: number}} options `box` is (left, upper, right, lower) in source
 *     pixels, the whole picture if it is missing; `reducingGap` as in Pillow's `Image.resize`
 * @returns {Pixels}
 */
export function resize(pixels, width, height, { filter, box, reducingGap }) {
  if (!Object.hasOwn(FILTERS, filter)) {
    throw new Error(`unknown filter ${filter}; expected ${Object.keys(FILTERS).join(" or ")}`);
  }
  let source = pixels;
  let [left, upper, right, lower] = box ?? [0, 0, pixels.width, pixels.height];
  if (reducingGap !== undefined) {
    const byX = Math.trunc((right - left) / width / reducingGap) || 1;
    const byY = Math.trunc((lower - upper) / height / reducingGap) || 1;
    if (byX > 1 || byY > 1) {
      // What the filter reaches beyond the box is reduced too (`Image._get_safe_box`).
      const reach = FILTERS[filter][0] - 0.5;
      const marginX = (right - left) / width * reach;
      const marginY = (lower - upper) / height * reach;
      const x = Math.max(0, Math.trunc(left - marginX));
      const y = Math.max(0, Math.trunc(upper - marginY));
      const toX = Math.min(pixels.width, Math.ceil(right + marginX));
      const toY = Math.min(pixels.height, Math.ceil(lower + marginY));
      source = reduce(pixels, byX, byY, [x, y, toX, toY]);
      [left, right] = [(left - x) / byX, (right - x) / byX];
      [upper, lower] = [(upper - y) / byY, (lower - y) / byY];
    }
  }
  [left, upper, right, lower] = [left, upper, right, lower].map(Math.fround); // Pillow's box is float32
  if (source.width !== width || left !== 0 || right !== width) {
    const data = new Uint8ClampedArray(source.height * width * CHANNELS);
    const table = weights(source.width, left, right, width, filter);
    pass(source.data, source.height, CHANNELS, source.width * CHANNELS, table, data, CHANNELS, width * CHANNELS);
    source = { data, width, height: source.height };
  }
  if (source.height !== height || upper !== 0 || lower !== height) {
    const data = new Uint8ClampedArray(height * width * CHANNELS);
    const line = width * CHANNELS;
    pass(source.data, width, line, CHANNELS, weights(source.height, upper, lower, height, filter), data, line, CHANNELS);
    source = { data, width, height };
  }
  return source;
}

/**
 * Average blocks of pixels, as Pillow's `Image.reduce`; blocks at the right and lower edge may be smaller.
 *
 * @param {Pixels} pixels
 * @param {number} byX the width of a block
 * @param {number} byY its height
 * @param {number[]} box (left, upper, right, lower), the whole picture if it is missing
 * @returns {Pixels}
 */
export function reduce(pixels, byX, byY, box = [0, 0, pixels.width, pixels.height]) {
  const [left, upper, right, lower] = box;
  const width = Math.ceil((right - left) / byX);
  const height = Math.ceil((lower - upper) / byY);
  const data = new Uint8ClampedArray(width * height * CHANNELS);
  const { data: source } = pixels;
  let at = 0;
  for (let y = 0; y < height; y++) {
    const top = upper + y * byY;
    const bottom = Math.min(top + byY, lower);
    for (let x = 0; x < width; x++) {
      const from = left + x * byX;
      const to = Math.min(from + byX, right);
      const count = (bottom - top) * (to - from);
      // Reduce.c: (sum + half) * (2^24 / count) >> 24, in 32 bits without a sign.
      const multiplier = Math.floor(2 ** 24 / count) || 1;
      const half = Math.floor(count / 2);
      let red = half;
      let green = half;
      let blue = half;
      for (let row = top; row < bottom; row++) {
        let place = (row * pixels.width + from) * CHANNELS;
        for (let column = from; column < to; column++) {
          red += source[place];
          green += source[place + 1];
          blue += source[place + 2];
          place += CHANNELS;
        }
      }
      data[at] = Math.floor((red * multiplier) / 2 ** 24);
      data[at + 1] = Math.floor((green * multiplier) / 2 ** 24);
      data[at + 2] = Math.floor((blue * multiplier) / 2 ** 24);
      at += CHANNELS;
    }
  }
  return { data, width, height };
}

/** Return for each pixel of the result where it begins to read, and its weights as whole numbers of 22 bits. */
function weights(size, from, to, target, name) {
  const [reach, filter] = FILTERS[name];
  const scale = (to - from) / target;
  const stretch = Math.max(scale, 1);
  const support = reach * stretch;
  return Array.from({ length: target }, (_, index) => {
    const center = from + (index + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(size, Math.trunc(center + support + 0.5));
    const row = [];
    let sum = 0;
    for (let x = start; x < end; x++) {
      const weight = filter((x - center + 0.5) * (1 / stretch));
      row.push(weight);
      sum += weight;
    }
    const fixed = row.map((weight) => {
      const value = (sum === 0 ? weight : weight * (1 / sum)) * 2 ** BITS;
      return Math.trunc(value < 0 ? value - 0.5 : value + 0.5);
    });
    return { start, fixed };
  });
}

function pass(pixels, lines, step, lineStep, table, out, outStep, outLineStep) {
  for (let line = 0; line < lines; line++) {
    for (let index = 0; index < table.length; index++) {
      const { start, fixed } = table[index];
      for (let channel = 0; channel < CHANNELS; channel++) {
        let sum = 2 ** (BITS - 1);
        let at = line * lineStep + start * step + channel;
        for (let tap = 0; tap < fixed.length; tap++) {
          sum += pixels[at] * fixed[tap];
          at += step;
        }
        out[line * outLineStep + index * outStep + channel] = Math.floor(sum / 2 ** BITS);
      }
    }
  }
}
