/** Evidence as colours: vermillion speaks for a label, blue against it, as on the pages of `mlic-infer --explain`. */

const FOR = "--for";
const AGAINST = "--against";
const WORDS = 3; // that are said of a caption

/** Return how strongly a number is coloured, in [-1, 1]: the signed square root of number / scale. */
function strength(value, scale) {
  return scale > 0 ? Math.sign(value) * Math.sqrt(Math.min(1, Math.abs(value) / scale)) : 0;
}

/** Return the largest absolute number of all lists of numbers. */
export function largest(lists) {
  return lists.reduce((most, list) => (list ?? []).reduce((found, value) => Math.max(found, Math.abs(value)), most), 0);
}

/**
 * Draw one cell of colour for each number.
 *
 * @param {HTMLCanvasElement} canvas gets height x width pixels
 * @param {Float32Array} values row by row from the top left
 * @param {number} width of a row
 * @param {number} scale the number that gets the strongest colour
 */
export function drawHeatMap(canvas, values, width, scale) {
  canvas.width = width;
  canvas.height = values.length / width;
  const context = canvas.getContext("2d");
  values.forEach((value, index) => {
    context.fillStyle = colour(canvas, strength(value, scale));
    context.fillRect(index % width, Math.floor(index / width), 1, 1);
  });
}

/**
 * Shade the words of a caption.
 *
 * @param {HTMLElement} place gets the caption
 * @param {string} caption
 * @param {{start: number, end: number}[]} words where they stand in the caption
 * @param {number[]} values one for each word
 * @param {number} scale the number that gets the strongest colour
 */
export function shadeWords(place, caption, words, values, scale) {
  const pieces = [];
  let end = 0;
  words.forEach((word, index) => {
    const shaded = document.createElement("span");
    shaded.textContent = caption.slice(word.start, word.end);
    shaded.style.backgroundColor = colour(place, strength(values[index], scale) * 0.5);
    pieces.push(caption.slice(end, word.start), shaded);
    end = word.end;
  });
  place.replaceChildren(...pieces, caption.slice(end));
}

/**
 * Say in words where a label comes from, for those who do not see the colours.
 *
 * @param {{picture: Float32Array|null, words: number[]|null}} found
 * @param {{width: number, words: {start: number, end: number}[]}} evidence of all labels
 * @param {string} caption
 * @returns {string} such as "most from the upper left of the picture; words for it: a, cat"
 */
export function describe({ picture, words }, evidence, caption) {
  const parts = [];
  if (picture !== null && picture.length > 0) {
    const best = picture.reduce((most, value, index) => (value > picture[most] ? index : most), 0);
    const height = picture.length / evidence.width;
    const row = ["upper", "middle", "lower"][Math.floor((3 * Math.floor(best / evidence.width) + 1.5) / height)];
    const column = ["left", "middle", "right"][Math.floor((3 * (best % evidence.width) + 1.5) / evidence.width)];
    const place = row === column ? "the middle" : `the ${row} ${column}`;
    parts.push(picture[best] > 0 ? `most from ${place} of the picture` : "nothing in the picture speaks for it");
  }
  const speaking = evidence.words
    .map(({ start, end }, index) => ({ word: caption.slice(start, end), value: words?.[index] ?? 0 }))
    .filter(({ value }) => value > 0)
    .toSorted((left, right) => right.value - left.value)
    .slice(0, WORDS);
  if (evidence.words.length > 0) {
    const named = speaking.map(({ word }) => word).join(", ");
    parts.push(named === "" ? "no word speaks for it" : `words for it: ${named}`);
  }
  return parts.join("; ");
}

function colour(element, part) {
  const channels = getComputedStyle(element).getPropertyValue(part >= 0 ? FOR : AGAINST);
  return `rgb(${channels} / ${Math.abs(part).toFixed(3)})`;
}
