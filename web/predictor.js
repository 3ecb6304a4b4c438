/** Run a model package: picture and caption in, labels with probabilities out. */
import { InputError, PackageError, reason } from "./errors.js";
import { readFile, readManifest, TOKENIZER } from "./package-reader.js";
import { readPixels } from "./picture.js";
import { CaptionTokenizer, isBlank } from "./tokenizer.js";

export { InputError, PackageError } from "./errors.js";

const PREFERRED = ["int8", "int8-full", "fp32"]; // fp16 is for graphics processors
const MAX_INPUTS = 64; // in one call

/**
 * A model package that is ready to predict. `await Predictor.load(...)` makes one.
 *
 * @property {object} manifest the content of manifest.json
 * @property {string} precision of the graph that runs
 */
export class Predictor {
  #session;
  #ort;
  #tokenizer;

  /** For `load` alone. */
  constructor(ort, session, tokenizer, manifest, precision) {
    this.#ort = ort;
    this.#session = session;
    this.#tokenizer = tokenizer;
    this.manifest = manifest;
    this.precision = precision;
  }

  /**
   * Load a model package.
   *
   * @param {string|URL|Map<string, Uint8Array>} base the address of the folder with the package's files, or the files
   * @param {object} options
   * @param {object} options.ort the module onnxruntime-web
   * @param {object} [options.tokenizers] the module @huggingface/tokenizers; for models that read captions
   * @param {string} [options.precision] "int8", "int8-full" or "fp32"; the first of them that the package has, if it is missing
   * @param {(loaded: number, total: number) => void} [options.onProgress] is called with bytes
   * @returns {Promise<Predictor>}
   * @throws {PackageError} a file is missing, was altered, or cannot be run here
   */
  static async load(base, { ort, tokenizers, precision, onProgress = () => {} }) {
    const manifest = await readManifest(base);
    const graphs = Object.entries(manifest.files).filter(([, file]) => file.precision != null);
    const has = graphs.map(([, file]) => file.precision);
    const wanted = precision ?? PREFERRED.find((name) => has.includes(name));
    const graphName = graphs.find(([, file]) => file.precision === wanted)?.[0];
    if (graphName === undefined) {
      throw new PackageError(`the package has no ${wanted ?? PREFERRED.join(" or ")} graph; it has: ${has.join(", ")}`);
    }
    const names = manifest.text === null ? [graphName] : [TOKENIZER, graphName];
    const total = names.reduce((sum, name) => sum + manifest.files[name].bytes, 0);
    const loaded = new Map(names.map((name) => [name, 0]));
    const contents = await Promise.all(
      names.map((name) =>
        readFile(base, manifest, name, (bytes) => {
          loaded.set(name, bytes);
          onProgress([...loaded.values()].reduce((sum, each) => sum + each, 0), total);
        }),
      ),
    );
    const tokenizer = manifest.text === null ? null : new CaptionTokenizer(contents[0], manifest.text, tokenizers);
    let session;
    try {
      session = await ort.InferenceSession.create(contents.at(-1), { executionProviders: ["wasm"] });
    } catch (error) {
      throw new PackageError(`${graphName} does not run here: ${reason(error)}`);
    }
    return new Predictor(ort, session, tokenizer, manifest, wanted);
  }

  /** The name of the model. */
  get name() {
    return this.manifest.name;
  }

  /** The version of the model. */
  get version() {
    return this.manifest.version;
  }

  /** The labels, {name, threshold}. */
  get labels() {
    return this.manifest.labels;
  }

  /** Whether the model reads captions. */
  get readsCaptions() {
    return this.#tokenizer !== null;
  }

  /** Whether the graph can say where a prediction comes from. */
  get hasEvidence() {
    return this.#session.outputNames.includes("picture_evidence");
  }

  /**
   * Predict the labels of one picture with its caption, or of several in one run of the graph.
   *
   * @param {{picture?: Blob|object|null, caption?: string|null}|object[]} inputs one, or a list of at most 64; `picture`
   *     as in `readPixels`
   * @param {{evidence?: boolean}} options `evidence`: say what each place and word adds to the logit of each label
   * @returns {Promise<Prediction|Prediction[]>} a list for a list
   * @throws {InputError} a picture cannot be read, or there is neither a picture nor a caption
   */
  async predict(inputs, { evidence = false } = {}) {
    const rows = Array.isArray(inputs) ? inputs : [inputs];
    if (rows.length === 0) return [];
    if (rows.length > MAX_INPUTS) throw new InputError(`${rows.length} inputs are more than ${MAX_INPUTS} in one call`);
    for (const { picture, caption } of rows) {
      if (caption != null && typeof caption !== "string") {
        throw new InputError(`a caption must be a text or null, found ${typeof caption}`);
      }
      if (picture == null && !(this.readsCaptions && !isBlank(caption))) {
        throw new InputError(`nothing to predict: give a picture${this.readsCaptions ? ", a caption or both" : ""}`);
      }
    }
    const begun = performance.now();
    const pixels = await this.#pixels(rows);
    const decoded = performance.now();
    const captions = rows.map(({ caption }) => caption ?? null);
    const feeds = { pixels };
    let length = 0;
    if (this.readsCaptions) {
      const tokens = this.#tokenizer.encodeBatch(captions);
      length = tokens.length;
      feeds.input_ids = new this.#ort.Tensor("int64", tokens.ids, [rows.length, length]);
      feeds.attention_mask = new this.#ort.Tensor("int64", tokens.mask, [rows.length, length]);
    }
    const tokenised = performance.now();
    const outputs = await this.#run(feeds, evidence && this.hasEvidence);
    const milliseconds = {
      picture: (decoded - begun) / rows.length,
      caption: (tokenised - decoded) / rows.length,
      graph: (performance.now() - tokenised) / rows.length,
    };
    const predictions = rows.map((row, index) => {
      const scores = this.#scores(outputs.logits.data, index);
      const found = evidence && this.hasEvidence ? this.#evidence(outputs, index, row, length) : null;
      return {
        labels: scores.filter(({ chosen }) => chosen).sort(byProbability).map(({ label }) => label),
        scores,
        evidence: found,
        milliseconds,
        model: `${this.name}@${this.version}`,
      };
    });
    return Array.isArray(inputs) ? predictions : predictions[0];
  }

  /** Free the memory of the graph. */
  async close() {
    await this.#session.release();
  }

  async #pixels(rows) {
    const { height, width } = this.manifest.image;
    const size = height * width * 3;
    const data = new Uint8Array(rows.length * size); // zeros say "no picture"
    for (const [index, { picture }] of rows.entries()) {
      if (picture != null) data.set(await readPixels(picture, this.manifest.image), index * size);
    }
    return new this.#ort.Tensor("uint8", data, [rows.length, height, width, 3]);
  }

  async #run(feeds, explain) {
    const wanted = ["logits", ...(explain ? ["picture_evidence", "caption_evidence"] : [])];
    let outputs;
    try {
      outputs = await this.#session.run(feeds, wanted.filter((name) => this.#session.outputNames.includes(name)));
    } catch (error) {
      throw new PackageError(`the graph failed: ${reason(error)}`);
    }
    const [found, expected] = [outputs.logits.dims.join(" x "), `${feeds.pixels.dims[0]} x ${this.labels.length}`];
    if (found !== expected) throw new PackageError(`the graph gave ${found} logits, expected ${expected} (rows x labels)`);
    if (!outputs.logits.data.every(Number.isFinite)) throw new PackageError("the graph gave logits that are not finite");
    return outputs;
  }

  #scores(logits, row) {
    return this.labels.map(({ name, threshold }, index) => {
      const probability = sigmoid(logits[row * this.labels.length + index]);
      return { label: name, probability, threshold, chosen: probability >= threshold };
    });
  }

  #evidence(outputs, row, { picture, caption }, length) {
    const { data, dims } = outputs.picture_evidence;
    const [, labels, height, width] = dims;
    const cells = height * width;
    const words = this.readsCaptions ? this.#tokenizer.words(caption ?? null) : [];
    const byWord = outputs.caption_evidence?.data;
    const result = { height, width, words: words.map(({ text, start, end }) => ({ text, start, end })), labels: {} };
    this.labels.forEach(({ name }, label) => {
      const at = (row * labels + label) * cells;
      const tokens = (row * labels + label) * length;
      result.labels[name] = {
        picture: picture == null ? null : data.slice(at, at + cells),
        words: words.map((word) => word.tokens.reduce((sum, token) => sum + byWord[tokens + token], 0)),
      };
    });
    return result;
  }
}

/** The logistic function in float32, as `mlic_runtime.predict.prediction.sigmoid`. */
function sigmoid(logit) {
  const small = Math.fround(Math.exp(-Math.abs(logit)));
  return Math.fround(Math.fround(logit >= 0 ? 1 : small) / Math.fround(1 + small));
}

function byProbability(left, right) {
  return right.probability - left.probability;
}
