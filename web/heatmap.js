/** Evidence as colours: vermillion speaks for a label, blue against it, as on the pages of `mlic-infer --explain`. */

const FOR = "--for";
const AGAINST = "--against";

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

function colour(element, part) {
  const channels = getComputedStyle(element).getPropertyValue(part >= 0 ? FOR : AGAINST);
  return `rgb(${channels} / ${Math.abs(part).toFixed(3)})`;
}
