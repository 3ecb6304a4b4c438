/** The page: pictures and captions in, labels with bars, heat maps and shaded words out. */
import { describe, drawHeatMap, largest, shadeWords } from "./heatmap.js";
import places from "./places.js";

const MODULES = { browser: "./in-browser.js", server: "./on-server.js" };
const SHOWN = 6; // labels that are seen at once; predicted ones always are
const TYPING = 200; // milliseconds after the last key until the caption is read
const ANNOUNCED = 20; // sentences that are kept for screen readers

const element = (id) => document.getElementById(id);
const percent = (value) => (value > 0.995 && value < 1 ? ">99 %" : value > 0 && value < 0.005 ? "<1 %" : `${Math.round(100 * value)} %`);
/** A percentage for the ear: "<" and ">" are read badly, or not at all. */
const spoken = (value) => percent(value).replace(">", "over ").replace("<", "under ");
let predictor; // undefined until one is loaded
let queue = Promise.resolve(); // the model takes one row after the other
const cards = new Set();

function say(error) {
  element("problem").textContent = error === null ? "" : String(error?.message ?? error);
}

/**
 * Have a screen reader say something, after what it is saying.
 *
 * One region for the whole page, which is there from the start: a region that comes with a new card is often not read.
 */
function announce(sentence) {
  const line = document.createElement("p");
  line.textContent = sentence;
  const place = element("announcements");
  place.append(line);
  while (place.children.length > ANNOUNCED) place.firstElementChild.remove();
}

/** Load the model where it is to run, and predict what is already there. */
async function start(place) {
  const [bar, model] = [element("progress"), element("model")];
  const onProgress = (loaded, total) => {
    bar.value = loaded / total;
    model.textContent = `Loading the model: ${(loaded / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
  };
  say(null);
  enable(false);
  bar.hidden = place !== "browser";
  bar.value = 0;
  model.textContent = "Loading the model…";
  announce(model.textContent); // not its progress, which changes many times a second
  const former = predictor;
  predictor = undefined;
  await queue; // what is running ends first
  await former?.close();
  let library;
  try {
    library = await import(MODULES[place]);
    predictor = await library.load(onProgress);
  } catch (error) {
    model.textContent = "There is no model.";
    say(error);
    allowChoice(true);
    return;
  } finally {
    bar.hidden = true;
  }
  const { name, version, labels, manifest, readsCaptions } = predictor;
  model.textContent = `${name} ${version}, ready: it knows ${labels.length} labels.`;
  announce(model.textContent);
  element("promise").textContent = library.PROMISE;
  element("facts").textContent =
    `Model ${name}@${version}, ${library.facts(predictor)}, pictures of ${manifest.image.width} x ` +
    `${manifest.image.height} pixels. Labels: ${labels.map((label) => label.name).join(", ")}.`;
  element("words").hidden = !readsCaptions;
  enable(true);
  for (const card of cards) card.predict();
  document.body.dataset.ready = place;
}

function enable(ready) {
  for (const id of ["files", "example", "words"]) element(id).disabled = !ready;
  element("camera").disabled = !ready || navigator.mediaDevices === undefined;
  allowChoice(ready);
  if (!ready) delete document.body.dataset.ready;
}

function allowChoice(allowed) {
  for (const choice of document.querySelectorAll("#places input")) choice.disabled = !allowed;
}

/** Let the user choose where the model runs, if there is a choice. */
function offerPlaces() {
  element("places").hidden = places.length === 1;
  for (const choice of document.querySelectorAll("#places input")) {
    choice.checked = choice.value === places[0];
    choice.addEventListener("change", () => start(choice.value));
  }
}

/** One picture or caption with what the model says about it. */
class Card {
  #picture;
  #name; // of the card
  #caption;
  #article;
  #prediction = null;
  #all = false;
  #pinned = null;
  #timer;

  constructor(picture, caption = "") {
    this.#picture = picture;
    this.#name = picture === null ? "Caption" : (picture.name ?? "Picture from the camera");
    this.#caption = caption;
    this.#article = element("card").content.firstElementChild.cloneNode(true);
    const [image, input] = [this.#one("img"), this.#one("input")];
    this.#article.setAttribute("aria-label", this.#name);
    this.#one(".remove").setAttribute("aria-label", `Remove ${this.#name}`);
    if (picture === null) {
      this.#one(".view").remove();
      this.#article.classList.add("wordy");
    } else {
      this.#one(".file").textContent = this.#name;
      image.alt = this.#name;
      image.src = URL.createObjectURL(picture);
      const onError = () => {
        this.#one(".view").remove();
        this.#hideUseless();
      };
      image.addEventListener("error", onError, { once: true });
    }
    this.#one(".caption").hidden = !predictor.readsCaptions;
    input.value = caption;
    input.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => {
        this.#caption = input.value;
        this.predict();
      }, TYPING);
    });
    this.#one(".more").addEventListener("click", () => {
      this.#all = !this.#all;
      this.#show();
    });
    this.#one(".explain").addEventListener("click", async ({ target }) => {
      target.disabled = true; // until there is an answer
      await this.predict({ explained: true });
      target.disabled = false;
      this.#one(".scores button")?.focus(); // the button that was pressed is gone
    });
    this.#one(".remove").addEventListener("click", () => {
      if (picture !== null) URL.revokeObjectURL(image.src);
      this.#article.remove();
      cards.delete(this);
      element("files").focus();
    });
    this.#one("h2").textContent = "…";
    this.#one(".more").hidden = true;
    this.#allowExplaining(false);
    element("results").prepend(this.#article);
    cards.add(this);
  }

  focus() {
    this.#one("input").focus();
  }

  /** Predict; say where the labels come from if that costs nothing more, or if it was asked for. */
  predict({ explained = false } = {}) {
    queue = queue.then(async () => {
      if (!this.#article.isConnected || predictor === undefined) return;
      const evidence = explained || !predictor.evidenceIsSlow;
      try {
        const input = { picture: this.#picture, caption: this.#caption };
        this.#prediction = await predictor.predict(input, { evidence });
        this.#one(".error").textContent = "";
        this.#allowExplaining(!evidence);
        this.#show();
        announce(this.#sentence());
      } catch (error) {
        this.#allowExplaining(false);
        this.#prediction = null;
        this.#one(".scores").replaceChildren();
        this.#one(".more").hidden = true;
        this.#one(".key").hidden = true;
        this.#one("h2").textContent = this.#picture === null ? "No label" : this.#name;
        this.#one(".error").textContent = String(error?.message ?? error);
        this.#hideUseless();
        announce(`${this.#name}: ${this.#one(".error").textContent}`);
      }
      this.#article.dataset.done = String(Number(this.#article.dataset.done ?? 0) + 1);
    });
    return queue;
  }

  /** The answer as a sentence. */
  #sentence() {
    const { labels, scores } = this.#prediction;
    const found = scores.filter(({ chosen }) => chosen).map(({ label, probability }) => `${label} ${spoken(probability)}`);
    return `${this.#name}: ${labels.length > 0 ? found.join(", ") : `none of the ${scores.length} labels`}`;
  }

  /** Take the caption's field from a picture that cannot be read: it would not help. */
  #hideUseless() {
    const unreadable = this.#picture !== null && this.#one(".view") === null;
    if (unreadable && this.#one(".error").textContent !== "") this.#one(".caption").hidden = true;
  }

  #one(selector) {
    return this.#article.querySelector(selector);
  }

  #allowExplaining(allowed) {
    this.#one(".explain").hidden = !allowed;
    this.#one(".slow").hidden = !allowed;
  }

  #show() {
    const { labels, scores, milliseconds } = this.#prediction;
    const sorted = scores.toSorted((left, right) => right.probability - left.probability);
    const shown = this.#all ? sorted : sorted.filter((score, index) => score.chosen || index < SHOWN);
    this.#one("h2").textContent = labels.length > 0 ? labels.join(", ") : "None of its labels";
    const focused = this.#one(".scores :focus")?.dataset.label;
    this.#one(".scores").replaceChildren(...shown.map((score) => this.#row(score)));
    if (focused !== undefined) this.#one(`.scores [data-label="${CSS.escape(focused)}"]`)?.focus();
    this.#one(".key").hidden = false;
    const more = this.#one(".more");
    more.hidden = shown.length === scores.length && !this.#all;
    more.textContent = this.#all ? "Show fewer labels" : `Show all ${scores.length} labels`;
    this.#one(".time").textContent = timeOf(milliseconds);
    if (this.#pinned !== null && !shown.some(({ label }) => label === this.#pinned)) this.#pinned = null;
    this.#pinned ??= this.#prediction.evidence === null ? null : (labels[0] ?? null);
    this.#explain(this.#pinned);
  }

  #row({ label, probability, threshold, chosen }) {
    const row = element("score").content.firstElementChild.cloneNode(true);
    const button = row.firstElementChild;
    row.classList.toggle("chosen", chosen);
    button.dataset.label = label;
    row.querySelector(".name").textContent = label;
    row.querySelector(".fill").style.width = `${100 * probability}%`;
    row.querySelector(".threshold").style.left = `${100 * threshold}%`;
    row.querySelector(".number").textContent = percent(probability);
    row.querySelector(".told").textContent = chosen ? "✓" : "";
    const verdict = chosen ? "predicted" : "not predicted";
    button.setAttribute("aria-label", `${label}, ${spoken(probability)}, ${verdict}, threshold ${spoken(threshold)}`);
    button.title = `Threshold ${percent(threshold)}`;
    button.disabled = this.#prediction.evidence === null;
    button.addEventListener("click", () => {
      this.#pinned = this.#pinned === label ? null : label;
      this.#explain(this.#pinned);
      const { evidence } = this.#prediction;
      if (this.#pinned !== null) announce(`${label}: ${describe(evidence.labels[label], evidence, this.#caption)}`);
    });
    for (const event of ["focus", "pointerenter"]) button.addEventListener(event, () => this.#explain(label));
    for (const event of ["blur", "pointerleave"]) button.addEventListener(event, () => this.#explain(this.#pinned));
    return row;
  }

  /** Show where a label comes from; nothing for null. */
  #explain(label) {
    const { evidence } = this.#prediction;
    for (const button of this.#article.querySelectorAll(".scores button")) {
      button.setAttribute("aria-pressed", String(button.dataset.label === this.#pinned));
    }
    const found = label === null ? null : evidence?.labels[label];
    const [frame, legend, words] = [this.#one(".frame"), this.#one(".legend"), this.#one(".words")];
    frame?.classList.toggle("explained", found != null);
    words.textContent = this.#caption;
    words.hidden = found == null || this.#caption.trim() === "";
    if (legend !== null) legend.hidden = found == null;
    if (found == null) return;
    const all = Object.values(evidence.labels);
    if (found.picture !== null && frame !== null) {
      this.#place();
      drawHeatMap(this.#one("canvas"), found.picture, evidence.width, largest(all.map(({ picture }) => picture)));
    }
    const method = evidence.method === "occlusion" ? ", found by covering each place" : "";
    if (legend !== null) this.#one(".meaning").textContent = `against and for “${label}”${method}`;
    shadeWords(words, this.#caption, evidence.words, found.words, largest(all.map((each) => each.words)));
  }

  /** Lay the heat map over what the model saw: the whole picture, or the middle of it. */
  #place() {
    const [image, { style }] = [this.#one("img"), this.#one("canvas")];
    let [width, height] = [1, 1];
    const spec = predictor.manifest.image;
    if (spec.resize === "crop" && image.naturalWidth > 0) {
      const wide = image.naturalWidth / image.naturalHeight / (spec.width / spec.height);
      [width, height] = [Math.min(1, 1 / wide), Math.min(1, wide)];
    }
    style.width = `${100 * width}%`;
    style.height = `${100 * height}%`;
    style.left = `${50 * (1 - width)}%`;
    style.top = `${50 * (1 - height)}%`;
  }
}

function timeOf({ server, picture, caption, graph }) {
  if (server !== undefined) return `${server.toFixed(0)} ms, to the server and back`;
  return `${(picture + caption + graph).toFixed(0)} ms, ${graph.toFixed(0)} of them in the model`;
}

function add(files) {
  say(null);
  for (const file of files) new Card(file).predict();
}

async function addExamples() {
  say(null);
  try {
    const response = await fetch(new URL("examples/examples.json", document.baseURI));
    if (!response.ok) throw new Error(`there are no examples here (the server answers ${response.status})`);
    for (const { file, caption } of (await response.json()).toReversed()) {
      const picture = await fetch(new URL(`examples/${file}`, document.baseURI));
      const card = new Card(new File([await picture.blob()], file), predictor.readsCaptions ? caption : "");
      await card.predict();
    }
  } catch (error) {
    say(error);
  }
}

async function openCamera() {
  say(null);
  const video = element("video");
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    await video.play();
    element("viewfinder").hidden = false;
    element("shoot").focus();
  } catch (error) {
    say(`The camera cannot be used: ${error.message}`);
  }
}

function closeCamera() {
  const video = element("video");
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  video.srcObject = null;
  element("viewfinder").hidden = true;
  element("camera").focus();
}

async function shoot() {
  const video = element("video");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  add([await canvas.convertToBlob()]);
}

element("files").addEventListener("change", ({ target }) => {
  add(target.files);
  target.value = ""; // so that the same file can be chosen again
});
element("camera").addEventListener("click", openCamera);
element("close").addEventListener("click", closeCamera);
element("shoot").addEventListener("click", shoot);
element("words").addEventListener("click", () => new Card(null).focus());
element("example").addEventListener("click", addExamples);

for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", name === "dragover");
    if (name !== "drop" || predictor === undefined) return;
    const { files } = event.dataTransfer;
    if (files.length > 0) add(files);
    else say("That was no file; drop pictures from a folder of this device.");
  });
}
document.addEventListener("paste", ({ clipboardData }) => {
  if (predictor !== undefined && clipboardData.files.length > 0) add(clipboardData.files);
});

offerPlaces();
start(places[0]);
