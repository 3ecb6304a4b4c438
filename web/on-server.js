/** The model on the server that this page comes from (`mlic-serve`), with the interface of `Predictor`. */
import { InputError, PackageError, reason } from "./errors.js";

export const PROMISE =
  `Pictures and captions are sent to ${location.host}, which runs the model; it neither keeps nor logs them. ` +
  "This page can reach no other host.";

/** Ask the server for its model. */
export async function load() {
  const { models } = await ask("v1/models", {}, PackageError);
  return new ServerPredictor(models[0]);
}

/** Return what runs, in a few words. */
export function facts({ precision, provider }) {
  return `${precision}, ${provider === "openvino" ? "OpenVINO" : "ONNX Runtime"} on the server (${provider})`;
}

class ServerPredictor {
  #model;

  constructor(model) {
    this.#model = model;
    this.name = model.name;
    this.version = model.version;
    this.precision = model.precision;
    this.provider = model.provider;
    this.labels = model.labels;
    this.readsCaptions = model.reads_caption;
    this.hasEvidence = true;
    this.evidenceIsSlow = model.evidence === "occlusion";
    this.manifest = { image: model.image };
  }

  /** Predict the labels of one picture with its caption, as `Predictor.predict`. */
  async predict({ picture, caption }, { evidence = false } = {}) {
    const form = new FormData();
    if (picture != null) form.append("image", picture, picture.name ?? "picture");
    form.append("caption", caption ?? "");
    form.append("evidence", String(evidence));
    const begun = performance.now();
    const answer = await ask("v1/predict", { method: "POST", body: form }, InputError);
    const chosen = new Set(answer.labels);
    return {
      labels: answer.labels,
      scores: this.labels.map(({ name, threshold }) => ({
        label: name,
        probability: answer.probabilities[name],
        threshold,
        chosen: chosen.has(name),
      })),
      milliseconds: { server: performance.now() - begun },
      evidence: evidence ? this.#evidence(answer.evidence, answer.caption ?? "") : null,
      model: answer.model,
    };
  }

  /** There is nothing to free. */
  async close() {}

  #evidence({ method, picture, words, spans, caption: byWord }, caption) {
    const at = units(caption);
    const grid = picture === null ? [] : Object.values(picture)[0];
    return {
      method,
      height: grid.length,
      width: grid[0]?.length ?? 0,
      words: words.map((text, index) => ({ text, start: at[spans[index][0]], end: at[spans[index][1]] })),
      labels: Object.fromEntries(
        this.labels.map(({ name }) => [
          name,
          { picture: picture === null ? null : Float32Array.from(picture[name].flat()), words: byWord?.[name] ?? [] },
        ]),
      ),
    };
  }
}

/** Return where each character begins, in UTF-16 units: Python counts characters. */
function units(text) {
  const starts = [0];
  for (const character of text) starts.push(starts.at(-1) + character.length);
  return starts;
}

/** Return the JSON that the server answers; its errors are thrown as `Kind`. */
async function ask(path, options, Kind) {
  let response;
  let answer;
  try {
    response = await fetch(new URL(path, document.baseURI), options);
    answer = await response.json();
  } catch (error) {
    throw new Kind(
      response === undefined
        ? `the server does not answer (${reason(error)}); is mlic-serve running?`
        : `the server answers ${response.status} without JSON; is it mlic-serve?`,
    );
  }
  if (!response.ok) throw new Kind(answer.error ?? `the server answers ${response.status}`);
  return answer;
}
